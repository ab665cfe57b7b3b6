"""Counts the records of TFRecord files and lists their labels, without reading the images.

A record holds a serialized tf.train.Example, a map from keys to features. Of a local file only a
few hundred bytes around the keys are read: the images, nearly all of a file, are skipped. So a
million records take seconds, and the result need not be stored with a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import contextlib
import functools
import os
import time
from typing import NamedTuple

from google.protobuf import message
import tensorflow as tf

from simclr_tf import console, errors, paths, text

# Key of the human-readable name of a class, as in the records of ImageNet.
_TEXT_KEY = "image/class/text"
_FILES_AT_ONCE = 16
_READ_BYTES = 512
_REMOTE_READ_BYTES = 8 * 2**20
# A record is framed by its length (8 bytes) and a checksum of that (4) before it, and by a checksum
# of it (4) after it.
_LENGTH, _HEADER, _FOOTER = 8, 12, 4
_GZIP = b"\x1f\x8b"
_PROGRESS_AFTER = 5.0  # seconds

_ReadAt = Callable[[int, int], bytes]  # (position, length) -> bytes, fewer at the end


class Scan(NamedTuple):
    """What a file holds.

    Attributes:
        num_records: number of records.
        num_bytes: size of the file.
        labels: distinct serialized values of the label -> (number of the first record that has it,
            serialized `image/class/text` of that record; None without one).
    """

    num_records: int
    num_bytes: int
    labels: dict[bytes, tuple[int, bytes | None]]


def scan(found: Sequence[str], label_key: str) -> list[Scan]:
    """Scans files, several at a time; shows the progress if it takes long.

    Args:
        found: paths of the files.
        label_key: key of the label; empty if the records are only to be counted.

    Raises:
        errors.UserError: for a file that is truncated, or not an uncompressed TFRecord file.
    """
    one = functools.partial(_scan_file, key=label_key.encode())
    started, progress = time.monotonic(), None
    with futures.ThreadPoolExecutor(_FILES_AT_ONCE) as threads, contextlib.ExitStack() as stack:
        scans: list[Scan] = []
        for done in threads.map(one, found):
            scans.append(done)
            if progress is None and time.monotonic() - started > _PROGRESS_AFTER:
                shown = console.Progress("Reading record files", len(found), len(scans))
                progress = stack.enter_context(shown)
            if progress is not None:
                progress.update(len(scans))
    return scans


def first_record(path: str) -> tf.train.Example | None:
    """Returns the first record of a file; None if the file has none.

    Raises:
        errors.UserError: if it cannot be read, or is not a tf.train.Example.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            _check_uncompressed(path, file.read(len(_GZIP)))
        for record in tf.data.TFRecordDataset(path).take(1).as_numpy_iterator():
            return tf.train.Example.FromString(record)
    except tf.errors.OpError as error:
        raise _unreadable(path, 0, text.reason(error)) from error
    except message.DecodeError as error:
        raise _unreadable(path, 0, "it is not a tf.train.Example") from error
    return None


def _scan_file(path: str, *, key: bytes) -> Scan:
    remote = paths.scheme(path) is not None
    labels: dict[bytes, tuple[int, bytes | None]] = {}
    count = 0
    for read_at, start, stop in (_remote_records if remote else _local_records)(path):
        if key:
            try:
                label = _feature(read_at, start, stop, key)
                if label is not None and label not in labels:
                    name = _feature(read_at, start, stop, _TEXT_KEY.encode())
                    labels[label] = (count, name)
            except ValueError as error:
                raise _unreadable(path, count, "it is not a tf.train.Example") from error
        count += 1
    return Scan(count, tf.io.gfile.stat(path).length, labels)


def _local_records(path: str) -> Iterator[tuple[_ReadAt, int, int]]:
    """Yields a function that reads the file, and the begin and the end of each record."""
    with _opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        window = _Window(descriptor)
        _check_uncompressed(path, window.read_at(0, len(_GZIP)))
        position = index = 0
        while position < size:
            header = window.read_at(position, _HEADER)
            start = position + _HEADER
            stop = start + int.from_bytes(header[:_LENGTH], "little")
            if stop + _FOOTER > size:
                raise _unreadable(
                    path, index, f"it would end at byte {stop + _FOOTER:,} of {size:,}"
                )
            yield window.read_at, start, stop
            position, index = stop + _FOOTER, index + 1


def _remote_records(path: str) -> Iterator[tuple[_ReadAt, int, int]]:
    """Does the same for a remote file, which TensorFlow reads as a whole."""
    count = 0
    try:
        dataset = tf.data.TFRecordDataset(path, buffer_size=_REMOTE_READ_BYTES)
        for record in dataset.as_numpy_iterator():
            count += 1
            yield functools.partial(_slice, record), 0, len(record)
    except tf.errors.OpError as error:
        raise _unreadable(path, count, text.reason(error)) from error


def _slice(record: bytes, position: int, length: int) -> bytes:
    return record[position : position + length]


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise errors.UserError(
            f"The file {path} cannot be opened ({error.strerror}); fix its permissions, or name "
            "other files."
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Window:
    """Reads short pieces of a file, mostly from one read of the system."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._start, self._bytes = descriptor, 0, b""

    def read_at(self, position: int, length: int) -> bytes:
        """Returns bytes of the file, fewer at its end."""
        offset = position - self._start
        if offset < 0 or offset + length > len(self._bytes):
            self._bytes = os.pread(self._descriptor, max(length, _READ_BYTES), position)
            self._start, offset = position, 0
        return self._bytes[offset : offset + length]


def _feature(read_at: _ReadAt, start: int, stop: int, key: bytes) -> bytes | None:
    """Returns the serialized tf.train.Feature of a key of a tf.train.Example, or None.

    An Example has one field, its Features (1). Those are entries (1) of a key (1) and a value (2).
    All of these are preceded by a tag and their length.

    Raises:
        ValueError: if the bytes are something else.
    """
    position, length = _field(read_at, start, 1) if start < stop else (stop, 0)
    stop = min(position + length, stop)
    while position < stop:
        position, length = _field(read_at, position, 1)
        end = position + length
        position, length = _field(read_at, position, 1)
        if read_at(position, length) == key:
            position, length = _field(read_at, position + length, 2)
            return read_at(position, length)
        position = end
    return None


def _field(read_at: _ReadAt, position: int, number: int) -> tuple[int, int]:
    """Returns where the content of a field begins, and its length."""
    head = read_at(position, 6)
    if not head or head[0] != number << 3 | 2:
        raise ValueError(f"no field {number} at byte {position}")
    length = shift = 0
    for index in range(1, len(head)):
        length |= (head[index] & 0x7F) << shift
        if head[index] < 0x80:
            return position + index + 1, length
        shift += 7
    raise ValueError(f"no length at byte {position + 1}")


def _check_uncompressed(path: str, start: bytes) -> None:
    if start == _GZIP:
        raise errors.UserError(
            f"The file {path} is compressed (gzip), so its records cannot be counted quickly; "
            "decompress it, or name uncompressed files."
        )


def _unreadable(path: str, index: int, reason: str) -> errors.UserError:
    return errors.UserError(
        f"The record {index:,} of {path} cannot be read ({reason}); copy the file again, or name "
        "only TFRecord files of tf.train.Example."
    )
