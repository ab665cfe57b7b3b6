"""Starts a run in a process of its own that records which phase it is in.

`survive.py` uses it. The phases are recorded in memory that both processes share, so that they are
known after a kill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import mmap
import multiprocessing
import os
import pathlib
import sys
import time
from typing import Any

PHASES = ("start", "training", "metrics", "saving", "exporting", "evaluating")
FORK = multiprocessing.get_context("fork")


class Monitor:
    """Memory shared by a run and the process that watches it.

    Attributes:
        phase: the phase that the run is in, one of `PHASES`: "start" if it is in no other one.
        resumed: the step that training resumed from, or -1.
    """

    def __init__(self) -> None:
        size = 8 * (2 + 2 * len(PHASES))
        self._memory = memoryview(mmap.mmap(-1, size)).cast("d")

    def reset(self) -> None:
        """Forgets the run before."""
        self._memory[:] = memoryview(bytearray(8 * len(self._memory))).cast("d")
        self.resumed = -1

    @property
    def phase(self) -> str:
        """The phase that the run is in."""
        return PHASES[int(self._memory[0])]

    @property
    def resumed(self) -> int:
        """The step that training resumed from, or -1."""
        return int(self._memory[1])

    @resumed.setter
    def resumed(self, step: int) -> None:
        self._memory[1] = step

    def entries(self, phase: str) -> int:
        """Returns how often the run has entered a phase."""
        return int(self._memory[2 + PHASES.index(phase)])

    def seconds(self, phase: str) -> float:
        """Returns how long the run has been in a phase, without its current visit."""
        return self._memory[2 + len(PHASES) + PHASES.index(phase)]

    @contextlib.contextmanager
    def inside(self, phase: str) -> Iterator[None]:
        """Records that the run is in a phase."""
        number, outer, start = PHASES.index(phase), self._memory[0], time.monotonic()
        self._memory[0] = number
        self._memory[2 + number] += 1
        try:
            yield
        finally:
            self._memory[0] = outer
            self._memory[2 + len(PHASES) + number] += time.monotonic() - start

    def observe(self, owner: Any, name: str, phase: str) -> None:
        """Replaces a function by one that records its phase, and the step if it has checkpoints."""
        function = getattr(owner, name)

        def observed(*args: Any, **kwargs: Any) -> Any:
            for argument in (*args, *kwargs.values()):
                if phase == "training" and type(argument).__name__ == "Checkpoints":
                    self.resumed = int(argument.step)
            with self.inside(phase):
                return function(*args, **kwargs)

        setattr(owner, name, observed)


def start(main: Callable[[list[str]], int], arguments: list[str], output: pathlib.Path) -> Any:
    """Starts a program in a forked process.

    Args:
        main: takes the command line and returns the exit code.
        arguments: the command line.
        output: file for what it prints.
    """

    def run() -> None:
        with output.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.exit(main(arguments))

    process = FORK.Process(target=run, daemon=True)
    process.start()
    return process


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a forked process, so that what it starts does not stay in this one.

    Raises:
        EOFError: if the function failed; the process has printed why.
    """
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=lambda: sender.send(function(*arguments)), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()
