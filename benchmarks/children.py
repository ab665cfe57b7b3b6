"""Processes that measure when they are asked to, so that several can take turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import subprocess
from typing import IO


class Child:
    """A process that answers each line of its input by a line.

    It may also print lines before it is asked, such as when it is ready.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Starts a command with an environment."""
        self._process = subprocess.Popen(
            command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self) -> str:
        """Waits for the next line.

        Raises:
            RuntimeError: if the process ended instead.
        """
        output: IO[str] | None = self._process.stdout
        assert output is not None
        line = output.readline()
        if not line:
            raise RuntimeError("A process ended; its error is above.")
        return line

    def ask(self, line: str = "") -> str:
        """Sends a line, and waits for the answer; see `read`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # It ended, which `read` says.
            print(line, file=self._process.stdin, flush=True)
        return self.read()

    def end(self) -> None:
        """Closes the input, and waits until the process ends."""
        self._process.communicate()

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()
        self._process.communicate()
