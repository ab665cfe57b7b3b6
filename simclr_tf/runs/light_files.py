"""Reads and writes files, and imports TensorFlow, which takes seconds, only for remote paths.

Whatever cannot be read is an OSError, also where TensorFlow raises an error of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
import contextlib
import os
from typing import Any, NamedTuple

from simclr_tf import errors, paths


class Entry(NamedTuple):
    """A file or a folder in a folder.

    Attributes:
        name: its name there.
        is_folder: whether it is a folder, or a symbolic link to one.
        is_link: whether it is a symbolic link.
    """

    name: str
    is_folder: bool
    is_link: bool


def entries(folder: str) -> list[Entry]:
    """Returns what is in a folder, in the order of the names.

    Raises:
        OSError: if the folder cannot be listed.
    """
    if paths.scheme(folder) is None:
        with os.scandir(folder) as scanned:
            return sorted(Entry(one.name, one.is_dir(), one.is_symlink()) for one in scanned)
    with _remote() as tf:
        names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder))
        return [Entry(name, tf.io.gfile.isdir(f"{folder}/{name}"), False) for name in names]


def identity(path: str) -> Hashable:
    """Returns what all paths of a file or folder have in common.

    Raises:
        OSError: if there is no such file or folder.
    """
    if paths.scheme(path) is not None:
        return path
    status = os.stat(path)
    return status.st_dev, status.st_ino


def modified(path: str) -> float:
    """Returns when a file was changed, in seconds since 1970.

    Raises:
        OSError: if there is no such file.
    """
    if paths.scheme(path) is None:
        return os.stat(path).st_mtime
    with _remote() as tf:
        return tf.io.gfile.stat(path).mtime_nsec / 1e9


def read_text(path: str) -> str:
    """Returns the content of a text file in UTF-8.

    Raises:
        OSError: if it cannot be read.
        UnicodeDecodeError: if it is not UTF-8.
    """
    return _read(path, None).decode()


def read_end(path: str, size: int) -> bytes:
    """Returns up to `size` bytes at the end of a file.

    Raises:
        OSError: if it cannot be read.
    """
    return _read(path, size)


def write_text(path: str, content: str) -> None:
    """Writes a text file.

    Raises:
        UserError: if it cannot be written.
    """
    if paths.scheme(path) is not None:
        from simclr_tf import storage

        storage.replace(path, content)
        return
    partial = f"{path}.partial"
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(content)
        os.replace(partial, path)
    except OSError as error:
        raise errors.UserError(
            f"{path} could not be written ({error.strerror}); name a file in a folder that exists "
            "and that you may write to."
        ) from error


def _read(path: str, size: int | None) -> bytes:
    """Returns the content of a file, or only the last `size` bytes of it."""
    if paths.scheme(path) is None:
        with open(path, "rb") as file:
            if size is not None:
                file.seek(max(0, os.stat(path).st_size - size))
            return file.read()
    with _remote() as tf, tf.io.gfile.GFile(path, "rb") as file:
        if size is not None:
            file.seek(max(0, file.size() - size))
        return file.read()


@contextlib.contextmanager
def _remote() -> Iterator[Any]:
    """Yields the module `tensorflow`, whose errors become those of the system."""
    import tensorflow as tf

    try:
        yield tf
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(str(error)) from error
    except tf.errors.OpError as error:
        raise OSError(str(error)) from error
