"""Trains one run of a study in a process of its own, and records how it ended and what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import platform
import resource
import signal
import subprocess
import threading
import time
from typing import IO, Any

from simclr_tf import preemption

RECORD, OUTPUT = "cell.json", "output.log"
# Locked by the study that trains the run.
_CLAIM, _LOOK_SECONDS = "cell.lock", 0.2
DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"
# By the exit code of the program; it also ends by SIGTERM itself, until it handles signals.
_STATUS_OF = {0: DONE, preemption.EXIT_CODE: INTERRUPTED, -signal.SIGTERM: INTERRUPTED}
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
        peak_memory: the most memory that an attempt held, in bytes; at least what the program held
            that started it, which the system counts, too.
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
    """The processes that are running, so that all of them can be ended.

    Attributes:
        ended: whether all were asked to end, and no other starts.
    """

    def __init__(self) -> None:
        """Has no process yet."""
        self._mutex = threading.Lock()
        self._running: set[int] = set()
        self.ended = False

    def start(self, command: Sequence[str], **settings: Any) -> subprocess.Popen | None:
        """Starts a process; None if all processes were ended."""
        with self._mutex:
            if self.ended:
                return None
            # In a session of its own, so that Ctrl-C reaches only this program, which ends it.
            process = subprocess.Popen(command, start_new_session=True, **settings)
            self._running.add(process.pid)
            return process

    def wait(self, process: subprocess.Popen) -> tuple[int, resource.struct_rusage]:
        """Returns the exit code of a process, negative for a signal, and what it used."""
        # Until its status is read, the system gives its number to no other process, so `end_all`
        # reaches only those that it is for.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._mutex:
            _, status, usage = os.wait4(process.pid, 0)
            self._running.discard(process.pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, usage

    @property
    def any_running(self) -> bool:
        """Whether a process is running."""
        with self._mutex:
            return bool(self._running)

    def end_all(self) -> None:
        """Asks all processes to save a checkpoint and end, and starts no other.

        Those that are asked a second time end at once.
        """
        with self._mutex:
            self.ended = True
            for number in self._running:
                os.kill(number, signal.SIGTERM)


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
    with _alone(folder, processes):
        before = read(folder)
        if before is not None and before.status == DONE:
            return before  # By another study, while this one waited.
        record = _train(command, folder, before, processes, cores)
        if record is None:
            return _record(INTERRUPTED, command, before, cores=cores)
        return _keep(folder, record)


@contextlib.contextmanager
def _alone(folder: str, processes: Processes) -> Iterator[None]:
    """Waits until no other study on this machine trains the run, or all processes are ended."""
    with open(os.path.join(folder, _CLAIM), "ab") as file:
        while not _claim(file) and not processes.ended:
            time.sleep(_LOOK_SECONDS)
        yield


def _claim(file: IO[bytes]) -> bool:
    """Returns whether this study may train the run; the system lets go when its process ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # A file system without locks: that of the run directory has to be enough.
        return True
    return True


def _train(
    command: Sequence[str],
    folder: str,
    before: Record | None,
    processes: Processes,
    cores: Sequence[int] | None,
) -> Record | None:
    """Runs a command until it ends, and returns its record; None if all processes were ended."""
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
            return None
        if cores is not None and hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):  # It has ended already.
                os.sched_setaffinity(process.pid, cores)
        ended, usage = processes.wait(process)
    state = _STATUS_OF.get(ended, FAILED)
    return _record(
        state,
        command,
        before,
        seconds=time.monotonic() - start,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_memory=usage.ru_maxrss * 1024,
        cores=cores,
        error="" if state == DONE else last_error(folder, begin, ended),
    )


def processors() -> list[int]:
    """Returns the numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def python_path() -> str:
    """Returns the PYTHONPATH with which other processes import this package, wherever they run."""
    above = pathlib.Path(__file__).parents[2]
    given = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    # Where the package is installed, Python finds it itself.
    is_checkout = (above / "run.py").exists()
    return os.pathsep.join([str(above), *given] if is_checkout else given)


def _environment(cores: Sequence[int] | None) -> dict[str, str]:
    """Returns the environment of a process, which may use only some processors."""
    environment = {**os.environ, "COLUMNS": "120", "PYTHONPATH": python_path()}
    if cores is not None:
        environment |= {"TF_NUM_INTRAOP_THREADS": str(len(cores))}
    return environment


def lost(command: Sequence[str], folder: str, error: str) -> Record:
    """Writes the record of a run that ended without one, for example with its machine.

    Args:
        command: the program and its arguments.
        folder: the run directory.
        error: why it ended.
    """
    os.makedirs(folder, exist_ok=True)
    error = error[:_MAX_ERROR]
    return _keep(folder, _record(FAILED, command, read(folder), error=error))


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
        cores=len(cores if cores is not None else processors()),
        error=error,
    )


def _keep(folder: str, record: Record) -> Record:
    """Writes the record atomically, unless another study has finished the run meanwhile.

    Returns:
        The record that is kept.
    """
    other = read(folder)
    if record.status != DONE and other is not None and other.status == DONE:
        return other
    path = os.path.join(folder, RECORD)
    with open(f"{path}.partial", "w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(record), file, indent=2)
    os.replace(f"{path}.partial", path)
    return record


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
    reasons = [line for line in lines if line.startswith("error:")]
    if not reasons or ended == preemption.EXIT_CODE:
        reasons = lines[-1:]
    if ended < 0:
        return f"Killed by {signal.Signals(-ended).name}; lack of memory is a usual reason."
    return (reasons[-1] if reasons else f"Exit code {ended} without output.")[:_MAX_ERROR]
