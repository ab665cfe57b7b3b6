"""Judges for how much of its time training waits for images."""

from __future__ import annotations

from simclr_tf import console

# Waiting during a larger fraction of the time than this slows training.
_LONG_WAIT = 0.2
# Less time than this is not judged: an epoch may begin with a wait.
_LEAST_SECONDS = 60.0


def is_long(fraction: float) -> bool:
    """Returns whether waiting during a fraction of the time slows training."""
    return fraction > _LONG_WAIT


def warning(fraction: float) -> str | None:
    """Returns the warning for a fraction of the time of training; None if it is small."""
    if not is_long(fraction):
        return None
    return (
        f"Training waited for images during {fraction:.0%} of the time: the input is slower than "
        "the network. --augment_on=device, --cache_dataset or --data_service may help."
    )


class Watch:
    """Adds up the records of a run, and warns once."""

    def __init__(self) -> None:
        """Starts to watch."""
        self._waited, self._seconds = 0.0, 0.0
        self._started, self._warned = False, False

    def record(self, waited: float, seconds: float) -> None:
        """Adds a record, and prints the warning if there is one.

        The first record is ignored, because it has the start of the input and the compilation.

        Args:
            waited: seconds spent waiting for images.
            seconds: seconds of the record.
        """
        if not self._started:
            self._started = True
            return
        self._waited += waited
        self._seconds += seconds
        if self._warned or self._seconds < _LEAST_SECONDS:
            return
        found = warning(self._waited / self._seconds)
        if found is not None:
            self._warned = True
            console.warn(found)
