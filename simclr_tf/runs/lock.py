"""The lock of a run directory: one training at a time."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import time

import psutil
import tensorflow as tf

from simclr_tf import console, errors, storage, text

LOCK = "training.lock"
# The creation time of a process follows the system clock, which may be corrected by some seconds.
_CLOCK_SECONDS = 5.0
# How often a lock without valid content, which may be just being written, is read.
_READINGS = 10
_READING_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        host: name of its machine.
        pid: its process id there.
        created: when it was created, in seconds since 1970. Process ids are reused, so this is
            compared, too.
        started: when it took the lock, for messages.
    """

    host: str
    pid: int
    created: float
    started: str


@contextlib.contextmanager
def hold(model_dir: str) -> Iterator[None]:
    """Holds the lock of a run directory, so that no other training writes into it.

    The lock is a file. On a local disk it is created exclusively, so that of two processes that
    start at the same moment one gets it. Object stores such as gs:// cannot do this through
    TensorFlow: there a start is refused if the file exists, but two starts within a fraction of a
    second may both succeed. The file is removed at the end, also after errors and Ctrl-C. A file
    that a killed process of this host left is recognised and replaced.

    Args:
        model_dir: the run directory, which exists.

    Raises:
        UserError: if another process holds the lock or may hold it, or it cannot be written.
    """
    path = os.path.join(model_dir, LOCK)
    own = _this_process()
    while not _create(path, own):
        holder = _read(path)
        if holder is None:
            continue  # Removed in the meantime.
        _check_ended(holder, path)
        if _take_over(path, holder, own):
            break
    try:
        yield
    finally:
        _release(path, own)


def _release(path: str, own: Holder) -> None:
    """Deletes the lock file, unless it is that of another process or already deleted."""
    # An error here would hide the one with which training ended.
    with contextlib.suppress(errors.UserError, tf.errors.OpError):
        if _read(path) == own:
            _remove(path)


def _this_process() -> Holder:
    process = psutil.Process()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Holder(platform.node(), process.pid, process.create_time(), now)


def _check_ended(holder: Holder, path: str) -> None:
    """Refuses to replace the lock of a process that may be running.

    Raises:
        UserError: with the process and the remedy.
    """
    who = f"process {holder.pid} on {holder.host}, started at {holder.started}"
    if holder.host != platform.node():
        raise errors.UserError(
            f"{path} is held by another training ({who}), and this host cannot see whether it is "
            "running; wait for its end, use another --model_dir, or delete the file if that "
            "process has ended."
        )
    if _is_running(holder):
        raise errors.UserError(
            f"{path} is held by another training ({who}), which is running; wait for its end, stop "
            "it, or use another --model_dir."
        )


def _is_running(holder: Holder) -> bool:
    """Returns whether a process of this host is running."""
    try:
        process = psutil.Process(holder.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - holder.created) < _CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _take_over(path: str, holder: Holder, own: Holder) -> bool:
    """Replaces the lock of a process that has ended, unless another process did so first.

    Only one process at a time may do this: it holds a second file meanwhile.

    Returns:
        Whether the lock is now that of this process.

    Raises:
        UserError: if another process is replacing the lock.
    """
    guard = f"{path}.takeover"
    if not _create(guard, own):
        raise errors.UserError(
            f"Another process is taking over {path} at this moment; try again, and if {guard} "
            "stays, delete it."
        )
    try:
        if _read(path) != holder:
            return False
        storage.replace(path, _content(own))
    finally:
        _remove(guard)
    console.warn(
        f"{path} was left by process {holder.pid} of this host, started at {holder.started}, which "
        "has ended; this training takes over the run directory."
    )
    return True


def _create(path: str, own: Holder) -> bool:
    """Creates a lock file; returns False if it exists.

    Raises:
        UserError: if it cannot be written.
    """
    if "://" in path:  # No file of the operating system.
        if tf.io.gfile.exists(path):
            return False
        storage.replace(path, _content(own))
        return True
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(_content(own))
    except OSError as error:
        _remove(path)
        raise _unwritable(path, error) from error
    return True


def _unwritable(path: str, error: OSError) -> errors.UserError:
    return errors.UserError(
        f"{path} could not be written ({text.reason(error)}); free some space and run the same "
        "command again."
    )


def _content(own: Holder) -> str:
    return json.dumps(dataclasses.asdict(own)) + "\n"


def _read(path: str) -> Holder | None:
    """Returns the process that a lock file names; None if there is no file.

    Raises:
        UserError: if the content is not that of a lock file.
    """
    for attempt in range(_READINGS):
        if attempt:
            time.sleep(_READING_SECONDS)
        try:
            with tf.io.gfile.GFile(path) as file:
                return Holder(**json.loads(file.read()))
        except tf.errors.NotFoundError:
            return None
        except (ValueError, TypeError):
            continue  # It is being written, or damaged.
    raise errors.UserError(
        f"{path} does not say which process holds it; delete the file if no training writes into "
        "this run directory."
    )


def _remove(path: str) -> None:
    """Deletes a file; does nothing if it was deleted with its directory."""
    with contextlib.suppress(tf.errors.NotFoundError):
        tf.io.gfile.remove(path)
