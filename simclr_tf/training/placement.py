"""Finds out during training whether the host or the accelerator makes views faster."""

from __future__ import annotations

from collections.abc import Callable
import time

from simclr_tf import console
from simclr_tf.training import averages, input_wait

HOST, DEVICE = "host", "device"
Train = Callable[[int], averages.Sums]  # Trains for a number of steps.
# What is measured in each place, after the first call, which compiles the step.
_STEPS, _SECONDS = 20, 5.0


class Trial:
    """Trains with views of the host, and tries the accelerator if training waits for images.

    It goes on in the faster place. The views are the same in both, so no step is wasted.
    """

    def __init__(self, make: Callable[[str, int], Train], start_step: int, batch_size: int) -> None:
        """Begins on the host.

        Args:
            make: returns what trains from a step on, with views made on "host" or "device".
            start_step: the first step.
            batch_size: images of a step.
        """
        self._make, self._step, self._batch_size = make, start_step, batch_size
        self._train = make(HOST, start_step)
        self._of_host: _Measured | None = None  # As soon as the accelerator is tried.
        self._measured: _Measured | None = _Measured()  # Until the place is chosen.

    def __call__(self, count: int) -> averages.Sums:
        """Trains for a number of steps."""
        start = time.monotonic()
        sums = self._train(count)
        self._step += sums.steps
        if self._measured is not None:
            self._measured.add(sums, time.monotonic() - start)
            if self._measured.is_enough and sums.finite:
                self._decide(self._measured)
        return sums

    def _decide(self, measured: _Measured) -> None:
        """Tries the accelerator after the host, and chooses after the accelerator."""
        self._measured = None
        if self._of_host is None:
            if input_wait.is_long(measured.wait):
                console.say(
                    f"Training waited for images during {measured.wait:.0%} of the time, so the "
                    "accelerator makes the views for some steps, to compare (--augment_on=auto)."
                )
                self._of_host, self._measured = measured, _Measured()
                self._train = self._make(DEVICE, self._step)
            return
        host, device = (self._batch_size * one.rate for one in (self._of_host, measured))
        stays = device > host
        console.say(
            f"Views are made on the {'accelerator' if stays else 'host'} from now on: "
            f"{device:,.0f} images/s on the accelerator, {host:,.0f} on the host."
        )
        if not stays:
            self._train = self._make(HOST, self._step)


class _Measured:
    """The speed of some calls, without the first one."""

    def __init__(self) -> None:
        self._compiled = False
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    def add(self, sums: averages.Sums, seconds: float) -> None:
        """Adds a call."""
        if self._compiled:
            self._steps += sums.steps
            self._seconds += seconds
            self._waited += sums.waited
        self._compiled = True

    @property
    def is_enough(self) -> bool:
        """Whether the speed can be judged."""
        return self._steps >= _STEPS and self._seconds >= _SECONDS

    @property
    def wait(self) -> float:
        """The fraction of the time in which training waited for images."""
        return self._waited / self._seconds

    @property
    def rate(self) -> float:
        """Steps per second."""
        return self._steps / self._seconds
