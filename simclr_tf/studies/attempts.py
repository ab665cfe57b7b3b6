"""Trains one run of a study in a process of its own, and records how it ended and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import threading
import time
from typing import Any

from simclr_tf import preemption

RECORD, OUTPUT = "cell.json", "output.log"
DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"
# The end of the output in which the last error is looked for, in bytes.
_TAIL = 4000
_MAX_ERROR = 600


@dataclasses.dataclass(frozen=True)
class Record:
    """How a run of a study ended.

    Attributes:
        status: DONE, FAILED or INTERRUPTED.
        command: what trains it, as a list of words.
        seconds: how long it took, over all attempts.
        cpu_seconds: how long its processors worked.
        peak_memory: the most memory that an attempt held, in bytes.
        attempts: how often it was started.
        host: name of the machine.
        cores: number of processors that it could use.
        error: the last error; empty if there is none.
    """

    status: str
    command: tuple[str, ...]
    seconds: float
    cpu_seconds: float
    peak_memory: int
    attempts: int
    host: str
    cores: int
    error: str = ""


class Processes:
    """The processes that are running, so that all of them can be ended."""

    def __init__(self) -> None:
        """Has no process yet."""
        self._mutex = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self._ended = False

    def start(self, command: Sequence[str], **settings: Any) -> subprocess.Popen | None:
        """Starts a process; None if all processes were ended."""
        with self._mutex:
            if self._ended:
                return None
            # In a session of its own, so that Ctrl-C reaches only this program, which ends it.
            process = subprocess.Popen(command, start_new_session=True, **settings)
            self._running.add(process)
            return process

    def forget(self, process: subprocess.Popen) -> None:
        """Removes a process that has ended."""
        with self._mutex:
            self._running.discard(process)

    def end_all(self) -> None:
        """Asks all processes to save a checkpoint and end, and starts no other."""
        with self._mutex:
            self._ended = True
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()


def read(folder: str) -> Record | None:
    """Returns the record of a run; None if there is none, or it is damaged."""
    try:
        with open(os.path.join(folder, RECORD), encoding="utf-8") as file:
            stored = json.load(file)
        return Record(**{**stored, "command": tuple(stored["command"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None  # The run is started again, and resumes from what its directory has.


def train(
    command: Sequence[str],
    folder: str,
    *,
    processes: Processes | None = None,
    cores: Sequence[int] | None = None,
) -> Record:
    """Runs the command of a run until it ends, and writes its record.

    Args:
        command: the program and its arguments.
        folder: the run directory, in which its output and the record are written.
        processes: where to register the process; None if nobody ends it.
        cores: numbers of the processors to use; None for all.
    """
    processes = Processes() if processes is None else processes
    os.makedirs(folder, exist_ok=True)
    before = read(folder)
    start = time.monotonic()
    with open(os.path.join(folder, OUTPUT), "ab") as output:
        begin = output.tell()
        process = processes.start(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(cores),
        )
        if process is None:
            return _record(INTERRUPTED, command, before, cores=cores)
        if cores is not None and hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):  # It has ended already.
                os.sched_setaffinity(process.pid, cores)
        # Also says what the process used, which Popen.wait does not.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        processes.forget(process)
    ended = process.returncode
    state = DONE if ended == 0 else INTERRUPTED if ended == preemption.EXIT_CODE else FAILED
    record = _record(
        state,
        command,
        before,
        seconds=time.monotonic() - start,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_memory=usage.ru_maxrss * 1024,
        cores=cores,
        error="" if state == DONE else last_error(folder, begin, ended),
    )
    _write(folder, record)
    return record


def _environment(cores: Sequence[int] | None) -> dict[str, str]:
    """Returns the environment of a process, which may use only some processors."""
    environment = {**os.environ, "COLUMNS": "120"}
    if cores is not None:
        environment |= {"TF_NUM_INTRAOP_THREADS": str(len(cores))}
    return environment


def _record(
    status: str,
    command: Sequence[str],
    before: Record | None,
    *,
    seconds: float = 0.0,
    cpu_seconds: float = 0.0,
    peak_memory: int = 0,
    cores: Sequence[int] | None = None,
    error: str = "",
) -> Record:
    """Returns a record that includes the costs of earlier attempts."""
    return Record(
        status=status,
        command=tuple(command),
        seconds=seconds + (before.seconds if before else 0),
        cpu_seconds=cpu_seconds + (before.cpu_seconds if before else 0),
        peak_memory=max(peak_memory, before.peak_memory if before else 0),
        attempts=1 + (before.attempts if before else 0),
        host=platform.node(),
        cores=len(cores) if cores is not None else os.cpu_count() or 1,
        error=error,
    )


def _write(folder: str, record: Record) -> None:
    """Writes the record atomically."""
    path = os.path.join(folder, RECORD)
    with open(f"{path}.partial", "w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(record), file, indent=2)
    os.replace(f"{path}.partial", path)


def last_error(folder: str, begin: int, ended: int) -> str:
    """Returns the last line of an attempt's output that says why it failed.

    Args:
        folder: the run directory.
        begin: where the output of the attempt begins.
        ended: its exit code; negative for a signal that killed it.
    """
    with open(os.path.join(folder, OUTPUT), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - _TAIL))
        lines = file.read().decode("utf-8", "replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    reasons = [line for line in lines if line.startswith("error:")] or lines[-1:]
    if ended < 0:
        return f"Killed by signal {-ended}, for example for lack of memory."
    return (reasons[-1] if reasons else f"Exit code {ended} without output.")[:_MAX_ERROR]


def environment_of(folder: str) -> Mapping[str, Any]:
    """Returns the environment.json of a run; empty if there is none."""
    try:
        with open(os.path.join(folder, "environment.json"), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}
