"""Signals by which machines and schedulers announce that the process must end."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

# By convention 128 + 15, the number of SIGTERM; also for the other signals, which mean the same.
EXIT_CODE = 143
# How long after a signal that ends the program at once it is sent again.
_AGAIN_SECONDS = 5.0


class Preempted(BaseException):
    """The process must end because of a signal; the message is the line to print.

    Not an Exception, like KeyboardInterrupt, so that code that handles errors does not catch it.
    """


class Preemption:
    """Handles these signals: training ends after a step, and anything else at once.

    At once means that an exception is raised wherever the program is. Libraries catch some of them,
    and continue or raise another error. So the signal is sent again until the program ends, and an
    error after it counts as its consequence.

    Attributes:
        requested: whether training was asked to end.
    """

    def __init__(self) -> None:
        """Handles no signal yet; see `listen`."""
        self.requested = False
        self._training = False
        self._signal = ""
        self._ended: str | None = None
        self._left = threading.Event()
        self._previous: dict[signal.Signals, Any] = {}

    def listen(self, name: str) -> None:
        """Handles a signal from now on.

        Args:
            name: such as "TERM", without "SIG".
        """
        # Python allows handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            number = signal.Signals[f"SIG{name}"]
            self._previous[number] = signal.signal(number, self._handle)

    def listen_again(self) -> None:
        """Handles the same signals as before, after a library has replaced the handlers."""
        for number in self._previous:
            signal.signal(number, self._handle)

    def __enter__(self) -> Preemption:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._left.set()
        for number, previous in self._previous.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
        if self._ended is not None and isinstance(error, Exception):
            raise Preempted(self._ended) from error

    def request(self, signal_name: str) -> None:
        """Asks training to end, as a signal to this process does.

        Args:
            signal_name: what asks, for the message.
        """
        self.requested = True
        self._signal = self._signal or signal_name

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._signal = signal.Signals(number).name
        if self._training and not self.requested:
            self.requested = True
            return
        if self._ended is None:
            threading.Thread(target=self._send_again, args=(number,), daemon=True).start()
        self._ended = (
            f"Ended at once by {self._signal}. Run the same command again to resume from the last "
            "checkpoint."
        )
        raise Preempted(self._ended)

    def _send_again(self, number: int) -> None:
        while not self._left.wait(_AGAIN_SECONDS):
            os.kill(os.getpid(), number)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Lets the first signal only set `requested`, for training that saves and ends then.

        Raises:
            Preempted: at the end, if there was a signal.
        """
        self._training = True
        try:
            yield
        finally:
            self._training = False
        if self.requested:
            raise Preempted(
                f"Ended by {self._signal} after a checkpoint was saved. Run the same command again "
                "to resume."
            )
