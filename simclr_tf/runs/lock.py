"""The lock of a run directory: one training at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import fcntl
import os
import threading
import time
from typing import ParamSpec, TypeVar

import tensorflow as tf

from simclr_tf import console, errors, storage, text
from simclr_tf.runs import directory, holder

LOCK = "training.lock"
# How often the holder of a lock renews it.
_BEAT_SECONDS = 10.0
# How long a start on another host waits for a renewal, and how often it looks. Network file systems
# may show a change a minute later.
_SILENT_SECONDS = 90.0
_LOOK_SECONDS = 2.0
# How long to wait for another process that creates, renews or removes the lock at this moment.
_GUARD_SECONDS = 10.0
# How often a lock file without valid content is read.
_READINGS = 10
_READING_SECONDS = 0.1

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Held:
    """A lock that this process holds, and that a thread renews."""

    def __init__(self, path: str, own: holder.Holder) -> None:
        """Starts to renew the lock.

        Args:
            path: the lock file, which names this process.
            own: this process.
        """
        self._path, self._own = path, own
        self._lost: str | None = None
        self._renewed_at = _clock()
        self._mutex = threading.Lock()
        self._released = threading.Event()
        threading.Thread(target=self._keep_renewing, name="lock", daemon=True).start()

    def check(self, *, now: bool = False) -> None:
        """Checks that this process still holds the lock; call it before writing to the directory.

        Args:
            now: reads the lock file in any case. Otherwise what the thread found last is enough,
                unless it has not run for some time: if a process or its machine was suspended,
                training continues at the same moment as the thread.

        Raises:
            UserError: if another training has taken over the lock, or the directory is not there.
        """
        if now or _clock() - self._renewed_at > 2 * _BEAT_SECONDS:
            self._renew()
        if self._lost is not None:
            raise errors.UserError(self._lost)

    def checked(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Returns a function that does the same as another one, and then calls `check`."""

        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            result = function(*args, **kwargs)
            self.check()
            return result

        return call

    def _keep_renewing(self) -> None:
        while self._lost is None and not self._released.wait(_BEAT_SECONDS):
            self._renew()

    def _renew(self) -> None:
        """Writes the lock file again, unless it is that of another process."""
        with self._mutex:
            # If the disk is full or the network fails, training itself finds out when it writes.
            with contextlib.suppress(errors.UserError, OSError, tf.errors.OpError):
                if not self._released.is_set():
                    self._lost = self._why_lost()
            self._renewed_at = _clock()

    def _why_lost(self) -> str | None:
        model_dir = os.path.dirname(self._path)
        if not tf.io.gfile.isdir(model_dir):
            return directory.missing(model_dir)
        with _exclusive(self._path):
            found = _read(self._path)
            if found not in (None, self._own):
                return (
                    f"{self._path} was taken over by another training ({found}), because this one "
                    f"had not renewed it for {_SILENT_SECONDS:.0f} s; this one ends so that only "
                    "one writes into the run directory; to resume it instead, stop the other one "
                    "and run the same command again."
                )
            self._own = self._own.renewed()
            storage.replace(self._path, self._own.to_json())
        return None

    def release(self) -> None:
        """Deletes the lock file, unless it is that of another process or already deleted."""
        self._released.set()
        # An error here would hide the one with which training ended.
        with self._mutex, contextlib.suppress(errors.UserError, OSError, tf.errors.OpError):
            if tf.io.gfile.exists(self._path):
                with _exclusive(self._path):
                    if _read(self._path) == self._own:
                        tf.io.gfile.remove(self._path)


@contextlib.contextmanager
def hold(model_dir: str) -> Iterator[Held]:
    """Holds the lock of a run directory, so that no other training writes into it.

    The lock is a file that names its process. It is removed at the end, also after errors and
    Ctrl-C. If the process was killed, the next start replaces it. A start on the same host checks
    whether the process is running. A start on another host watches whether the file is renewed. It
    measures that time by its own clock, because clocks of hosts differ.

    On object stores such as gs://, two starts within a fraction of a second may both take the lock.
    The one whose lock was replaced then ends at the next renewal.

    Args:
        model_dir: the run directory, which exists.

    Yields:
        The lock, which is to be checked before writing.

    Raises:
        UserError: if another process holds the lock or may hold it, or it cannot be written.
    """
    path, own = os.path.join(model_dir, LOCK), holder.this_process()
    left: holder.Holder | None = None
    while not _claim(path, own, left):
        left = _read(path)
        if left is not None:
            _check_ended(left, path)
    if left is not None:
        console.warn(f"{path} was left by {_who_left(left)}; this training takes over.")
    held = Held(path, own)
    try:
        yield held
    finally:
        held.release()


def _claim(path: str, own: holder.Holder, left: holder.Holder | None) -> bool:
    """Writes the lock file if it is still that of a process that has ended, or not there.

    Returns:
        Whether it was written.
    """
    with _exclusive(path):
        found = _read(path) if tf.io.gfile.exists(path) else None
        free = found is None if left is None else left.unchanged(found)
        if free:
            storage.replace(path, own.to_json())
        return free


def _check_ended(found: holder.Holder, path: str) -> None:
    """Returns if the holder of a lock has ended; on another host, after waiting for a renewal.

    Raises:
        UserError: with the process and the remedy.
    """
    held = f"{path} is held by another training ({found})"
    remedy = "wait for its end, stop it, or use another --model_dir."
    if found.is_here():
        if found.is_running():
            raise errors.UserError(f"{held}, which is running; {remedy}")
    elif found.beats is None:
        raise errors.UserError(
            f"{held}, and this host cannot see whether it is running; wait for its end, use "
            "another --model_dir, or delete the file if that process has ended."
        )
    else:
        console.say(f"{held}; waiting up to {_SILENT_SECONDS:.0f} s to see whether it is running.")
        if _is_renewed(found, path):
            raise errors.UserError(f"{held}, which is running: it renewed the file; {remedy}")


def _is_renewed(found: holder.Holder, path: str) -> bool:
    """Returns whether a lock changes while this process watches it; False if it is removed."""
    looks = round(_SILENT_SECONDS / _LOOK_SECONDS)
    with console.Progress("waited, seconds", round(_SILENT_SECONDS)) as progress:
        # Counted in readings: while this process is suspended, it sees no renewals.
        for look in range(1, looks + 1):
            time.sleep(_LOOK_SECONDS)
            now = _read(path)
            if now is None:
                return False
            if not found.unchanged(now):
                return True
            progress.update(round(look * _LOOK_SECONDS))
    return False


def _who_left(left: holder.Holder) -> str:
    if left.is_here():
        return f"process {left.pid} of this host, started at {left.started}, which has ended"
    return f"{left}, which did not renew it for {_SILENT_SECONDS:.0f} s"


@contextlib.contextmanager
def _exclusive(path: str) -> Iterator[None]:
    """Lets one process at a time read and write a lock file.

    The system releases it when the process ends, however it ends. Object stores and some file
    systems do not have it; there, the renewals detect that two processes wrote the file.

    Raises:
        UserError: if another process does not finish, or nothing can be written.
    """
    if "://" in path:  # No file of the operating system.
        yield
        return
    guard = f"{path}.guard"
    try:
        descriptor = _open_exclusively(guard)
    except OSError as error:
        raise errors.UserError(
            f"{path} could not be written ({text.reason(error)}); {storage.remedy(error)} and run "
            "the same command again."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):  # Deleted with the directory.
            os.unlink(guard)
        os.close(descriptor)


def _open_exclusively(guard: str) -> int:
    """Returns the descriptor of a file that no other process has opened in this way."""
    deadline = time.monotonic() + _GUARD_SECONDS
    while True:
        descriptor = os.open(guard, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(guard) and os.path.samestat(os.stat(guard), os.fstat(descriptor)):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass  # Another process has it, or has just removed it.
        except OSError:
            return descriptor  # A file system without such locks.
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise errors.UserError(
                f"Another process has been holding {guard} for {_GUARD_SECONDS:.0f} s; stop it, or "
                "run the same command again."
            )
        time.sleep(_READING_SECONDS / 10)


def _read(path: str) -> holder.Holder | None:
    """Returns the process that a lock file names; None if there is no file.

    Raises:
        UserError: if the content is not that of a lock file.
    """
    for attempt in range(_READINGS):
        if attempt:
            time.sleep(_READING_SECONDS)
        try:
            with tf.io.gfile.GFile(path) as file:
                return holder.from_json(file.read())
        except tf.errors.NotFoundError:
            return None
        except (ValueError, TypeError):
            continue  # An earlier version is writing it, or it is damaged.
    raise errors.UserError(
        f"{path} does not say which process holds it; delete the file if no training writes into "
        "this run directory."
    )


def _clock() -> float:
    """Returns seconds that also count while the machine is suspended, if the system has them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
