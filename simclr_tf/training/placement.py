"""Measures during training whether the host or the accelerator makes views faster."""

from __future__ import annotations

from collections.abc import Callable
import time

from simclr_tf import console
from simclr_tf.training import averages, input_wait

HOST, DEVICE = "host", "device"
Train = Callable[[int], averages.Sums]  # Trains for a number of steps.
# The speed is measured over at least so many steps and seconds.
_STEPS, _SECONDS = 20, 5.0
# A trial must be able to pay: it compiles another step and begins to read again. The time that is
# left must be at least this many times that of the first call, which compiled.
_LEAST_LEFT = 10


class Trial:
    """Trains with views of the host, and tries the accelerator if training waits for images.

    Then training continues in the faster place. The views are the same in both, so no step is
    wasted.

    Attributes:
        place: where the views are made now.
    """

    def __init__(
        self,
        make: Callable[[str, int], Train],
        start_step: int,
        *,
        total_steps: int,
        batch_size: int,
    ) -> None:
        """Begins on the host.

        Args:
            make: returns what trains from a step on, with views made on "host" or "device".
            start_step: the first step.
            total_steps: the step at which training ends.
            batch_size: images of a step.
        """
        self._make, self._step = make, start_step
        self._total_steps, self._batch_size = total_steps, batch_size
        self._first_seconds: float | None = None  # Of the first call.
        self._of_host: input_wait.Window | None = None  # As soon as the accelerator is tried.
        self._move(HOST)

    def _move(self, place: str) -> None:
        self.place, self._train = place, self._make(place, self._step)
        self._windows: input_wait.Windows | None = input_wait.Windows(_SECONDS, _STEPS)

    def __call__(self, count: int) -> averages.Sums:
        """Trains for a number of steps."""
        start = time.monotonic()
        sums = self._train(count)
        seconds = time.monotonic() - start
        self._step += sums.steps
        if self._first_seconds is None:
            self._first_seconds = seconds
        if self._windows is not None:
            window = self._windows.add(sums.steps, seconds, sums.waited)
            if window is not None and sums.finite:
                self._judge(window)
        return sums

    def _judge(self, window: input_wait.Window) -> None:
        if self._of_host is None:
            if window.is_slow:
                self._try_device(window)
        elif window.number > 1:  # The first one has batches that were read during compilation.
            self._choose(self._of_host, window)

    def _try_device(self, host: input_wait.Window) -> None:
        assert self._first_seconds is not None
        left = (self._total_steps - self._step) / host.rate
        if left < _LEAST_LEFT * self._first_seconds:
            self._windows = None
            return
        console.say(
            f"Training waited for images during {host.wait:.0%} of the time, so the accelerator "
            "makes the views for some steps, to compare (--augment_on=auto)."
        )
        self._of_host = host
        self._move(DEVICE)

    def _choose(self, host: input_wait.Window, device: input_wait.Window) -> None:
        stays = device.rate > host.rate
        on_device, on_host = (self._batch_size * one.rate for one in (device, host))
        console.say(
            f"Views are made on the {'accelerator' if stays else 'host'} from now on: "
            f"{on_device:,.0f} images/s on the accelerator, {on_host:,.0f} on the host."
        )
        if not stays:
            self._move(HOST)
        self._windows = None
