"""Output to the terminal: lines, tables and progress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import io
import os
import re
import sys
import time

import rich.console
import rich.progress
import rich.table

from simclr_tf import text

# Seconds between progress lines where there is no terminal.
_LINE_EVERY = 10.0


# Where several processes work together, only one of them prints.
_silent = False


def silence() -> None:
    """Prints nothing from now on."""
    global _silent
    _silent = True


def _console() -> rich.console.Console:
    if _silent:
        return rich.console.Console(file=io.StringIO(), width=120)
    # A new one for each use, because tests and notebooks replace sys.stdout. A log file has no
    # width; COLUMNS may set it.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
    return rich.console.Console(file=sys.stdout, width=width, highlight=False, markup=False)


def _redraws(console: rich.console.Console) -> bool:
    """Returns whether a line can be drawn again.

    The variable FORCE_COLOR, which notebooks set, makes rich take everything for a terminal.
    """
    return console.is_terminal and console.file.isatty()


def say(message: str) -> None:
    """Prints one plain line, cut short if it is very long."""
    _console().print(text.limited(message), markup=False, soft_wrap=True)


def warn(message: str) -> None:
    """Prints one line as a warning, cut short if it is very long."""
    _say_in_color("yellow", f"warning: {message}")


def problem(message: str) -> None:
    """Prints one line as a problem, cut short if it is very long."""
    _say_in_color("red", f"problem: {message}")


def _say_in_color(color: str, message: str) -> None:
    _console().print(text.limited(message), style=color, markup=False, soft_wrap=True)


def facts(title: str, rows: Mapping[str, object]) -> None:
    """Prints a two-column table of names and values."""
    table = rich.table.Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, str(value))
    _console().print(table)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table with a header. Columns of numbers are right-aligned, others left-aligned."""
    table = rich.table.Table(title=title, title_justify="left")
    for index, name in enumerate(header):
        numbers = all(re.fullmatch(r"[\d.,]+%?", row[index]) for row in rows)
        # Long words, such as paths, continue on the next line.
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console().print(table)


class Progress:
    """Shows the progress of a long task: a bar on a terminal, plain lines elsewhere."""

    def __init__(
        self,
        what: str,
        total: int,
        done: int = 0,
        *,
        shown: bool = True,
        line_every: float = _LINE_EVERY,
        slow_start: bool = False,
    ) -> None:
        """Starts at `done` of `total`.

        Args:
            what: name of the task.
            total: how much there is to do.
            done: how much of it is done.
            shown: whether to show anything at all; not within another task, which has the line.
            line_every: seconds between lines where there is no terminal; 0 for every update.
            slow_start: whether the first update takes much longer than others, as a step that is
                compiled. Lines then estimate the time left from the following ones.
        """
        self.what, self.total, self.done, self.shown = what, total, done, shown
        self._start, self._first, self._line_every = time.monotonic(), done, line_every
        self._last_line, self._slow_start = self._start, slow_start
        self._bar: rich.progress.Progress | None = None

    def __enter__(self) -> Progress:
        """Shows the bar."""
        console = _console()
        if self.shown and _redraws(console):
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(bar_width=20),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[note]}"),
                rich.progress.TimeRemainingColumn(),
                console=console,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.what, total=self.total, completed=self.done, note=""
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the bar and leaves it on the screen."""
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, note: str = "") -> None:
        """Updates the progress. Without a terminal, prints a line now and then, and at the end.

        Args:
            done: how much of the total is done.
            note: additional text, such as metrics.
        """
        self.done = done
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if self._slow_start:
            self._start, self._first, self._slow_start = now, done, False
        if done < self.total and now - self._last_line < self._line_every:
            return
        self._last_line = now
        rest = (now - self._start) / max(1, done - self._first) * (self.total - done)
        known = self._first < done < self.total
        left = f"  {duration(rest)} left" if known else ""
        say(f"{self.what} {done:,}/{self.total:,}  {note}{left}")


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Shows what is being done while it is done, and then how long it took.

    Args:
        what: present participle and object, such as "Exporting the SavedModel".
    """
    start = time.monotonic()
    console = _console()
    status = console.status(what) if _redraws(console) else contextlib.nullcontext()
    with status:
        yield
    say(f"{what}: {duration(time.monotonic() - start)}")


def duration(seconds: float) -> str:
    """Formats a number of seconds: 8 s, 3 min 20 s, 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
