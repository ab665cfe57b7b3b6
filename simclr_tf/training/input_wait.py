"""Judges whether training waits for images for too much of its time."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from simclr_tf import config as config_lib
from simclr_tf import console

# Waiting during a larger fraction of the time than this slows training.
_LONG_WAIT = 0.2
# What training warns of lasts two windows of this time, so an epoch may begin with a wait.
_WATCHED_SECONDS = 60.0


def is_long(fraction: float) -> bool:
    """Returns whether waiting during a fraction of the time slows training."""
    return fraction > _LONG_WAIT


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of training.

    Attributes:
        number: its number, from 1.
        steps: the number of steps.
        seconds: how long they took.
        waited: seconds of these in which training waited for images.
        is_slow: whether the wait was long in this window and in the one before. A single one may
            still have used up batches that were made while the step was compiled.
    """

    number: int
    steps: int
    seconds: float
    waited: float
    is_slow: bool

    @property
    def wait(self) -> float:
        """The fraction of the time in which training waited for images."""
        return self.waited / self.seconds

    @property
    def rate(self) -> float:
        """Steps per second."""
        return self.steps / self.seconds


class Windows:
    """Divides training into windows. The first call, which compiles the step, is in none."""

    def __init__(self, seconds: float, steps: int = 1) -> None:
        """Begins the first window.

        Args:
            seconds: the least time of a window.
            steps: the least number of its steps.
        """
        self._least_seconds, self._least_steps = seconds, steps
        self._compiled, self._number, self._was_long = False, 0, False
        self._clear()

    def _clear(self) -> None:
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    def add(self, steps: int, seconds: float, waited: float) -> Window | None:
        """Adds a call to the window, and returns the window if that ends it."""
        if not self._compiled:
            self._compiled = True
            return None
        self._steps += steps
        self._seconds += seconds
        self._waited += waited
        if self._steps < self._least_steps or self._seconds < self._least_seconds:
            return None
        long = is_long(self._waited / self._seconds)
        self._number += 1
        window = Window(
            self._number, self._steps, self._seconds, self._waited, long and self._was_long
        )
        self._was_long = long
        self._clear()
        return window


def remedies(config: config_lib.Config, *, accelerator: bool) -> list[str]:
    """Returns the flags that may shorten the wait and are not in effect.

    Args:
        config: the settings of the run.
        accelerator: whether it trains on other devices than the processors of the host.
    """
    found = []
    if accelerator and config.augment_on == "host":
        found.append("--augment_on=device")
    if not config.cache_dataset:
        found.append("--cache_dataset")
    if config.data_service is None:
        found.append("--data_service")
    return found


def warning(fraction: float, flags: Sequence[str] = ()) -> str | None:
    """Returns the warning for a fraction of the time of training; None if it is small.

    Args:
        fraction: how much of its time training waited.
        flags: the result of `remedies`.
    """
    if not is_long(fraction):
        return None
    remedy = " or ".join(flags) or "Faster storage or more processors"
    return (
        f"Training waited for images during {fraction:.0%} of the time: the input is slower than "
        f"the network. {remedy} may help."
    )


class Watch:
    """Follows the records of a run, and warns once if training waits long for some minutes."""

    def __init__(self, flags: Sequence[str] = ()) -> None:
        """Starts to watch; `flags` are the result of `remedies`."""
        self._flags, self._warned = flags, False
        self._windows = Windows(_WATCHED_SECONDS)

    def record(self, waited: float, seconds: float) -> None:
        """Adds a record, and prints the warning if there is one.

        Args:
            waited: seconds spent waiting for images.
            seconds: seconds of the record.
        """
        window = self._windows.add(1, seconds, waited)
        if window is None or not window.is_slow or self._warned:
            return
        found = warning(window.wait, self._flags)
        if found is not None:
            self._warned = True
            console.warn(found)
