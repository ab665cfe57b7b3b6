"""Reads every image of a split and reports which are unreadable and which are unusual."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
import functools
import io
import itertools
from typing import NamedTuple

import numpy as np
from PIL import Image
import tensorflow as tf

from simclr_tf import errors, text
from simclr_tf.data import array_records, decode, folder, iterators, record_files, sources

# Images in memory at a time: enough for every core.
_CHUNK = 4 * iterators.CORES
_TINY = 8  # pixels; a smaller image leaves little to crop


class Finding(NamedTuple):
    """The result of reading one image.

    Attributes:
        name: the file or record.
        label: its class, -1 if it is unlabelled.
        unreadable: why it cannot be used, as the rest of a sentence; None if it can.
        unusual: what is done to the image or lost from it, in words that many images share.
    """

    name: str
    label: int
    unreadable: str | None
    unusual: tuple[str, ...]


def inspect(source: sources.Source, split: str) -> Iterator[Finding]:
    """Reads the images of a split in the stored order, several at a time.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.

    Yields:
        A finding for every image.

    Raises:
        errors.UserError: if a record cannot be read, and so none of those after it.
    """
    access = source.random_access(split)
    with futures.ThreadPoolExecutor(iterators.CORES) as threads:
        if access is None:
            yield from _inspect_stream(source, split, threads)
            return
        if access.labels is None:  # Outside of a graph, parsing takes longer than reading.
            access = access._replace(read=tf.function(access.read, autograph=False))
        indices = iter(np.flatnonzero(~access.excluded))
        while chunk := list(itertools.islice(indices, _CHUNK)):
            yield from threads.map(functools.partial(_inspect_file, access), chunk)


def first_unreadable(source: sources.Source, split: str) -> Finding | None:
    """Returns the first image that cannot be used, or None after reading the whole split.

    Raises:
        errors.UserError: see `inspect`.
    """
    return next((finding for finding in inspect(source, split) if finding.unreadable), None)


def unreadable_record(
    source: sources.Source, split: str, index: int, error: tf.errors.OpError
) -> errors.UserError:
    """Returns the error for a record that cannot be read, counted in the stored order."""
    remedy = "copy that file again"
    if not source.name.startswith(record_files.PREFIX):
        remedy += ", or delete the data set so that it is prepared again"
    return errors.UserError(
        f"{source.example_name(split, index)} of the split {split!r} of {source.name!r} cannot be "
        f"read ({text.reason(error)}); {remedy}."
    )


def _inspect_stream(
    source: sources.Source, split: str, threads: futures.Executor
) -> Iterator[Finding]:
    count = 0
    examples = iterators.without_tuning(source.examples(split)).as_numpy_iterator()
    try:
        for chunk in _chunks(examples):
            for finding in threads.map(_inspect_one, chunk):
                yield finding
                count += 1
    except tf.errors.OpError as error:
        raise unreadable_record(source, split, count, error) from error


def _chunks(examples: Iterator[dict]) -> Iterator[list[dict]]:
    chunk: list[dict] = []
    try:
        for example in examples:
            chunk.append(example)
            if len(chunk) == _CHUNK:
                yield chunk
                chunk = []
    except tf.errors.OpError:
        yield chunk  # What was read before the error.
        raise
    yield chunk


def _inspect_file(access: folder.RandomAccess, index: int) -> Finding:
    try:
        example = access.read(tf.constant(index, tf.int32))
    except tf.errors.OpError as error:
        why = f"cannot be read ({reason_of_system(error)})"
        label = -1 if access.labels is None else int(access.labels[index])
        return Finding(access.name(index), label, why, ())
    return _inspect_one({name: value.numpy() for name, value in example.items()})


def _inspect_one(example: dict) -> Finding:
    name, encoded, label = example["name"].decode(), example["image"], int(example["label"])
    try:
        shape = decode.decode_image(tf.constant(encoded)).shape
    except tf.errors.OpError as error:
        return Finding(name, label, why_unreadable(error), ())
    return Finding(name, label, None, tuple(_unusual(encoded, shape[0], shape[1])))


def reason_of_system(error: tf.errors.OpError) -> str:
    """Returns why the system could not read a file, without the path."""
    return array_records.why_unread(error) or text.reason(error).rpartition("; ")[2]


def why_unreadable(error: tf.errors.OpError) -> str:
    """Returns why an image could not be decoded, as the rest of a sentence."""
    message = " ".join(str(error.message).split())
    if "more than" in message and "pixels" in message:
        return f"has more than {decode.MAX_PIXELS:,} pixels"
    if "not a JPEG, PNG, BMP or GIF" in message or "Unknown image file format" in message:
        return "is not a JPEG, PNG, BMP or GIF"
    return "is corrupt or truncated"


def _unusual(encoded: bytes, height: int, width: int) -> Iterator[str]:
    if min(height, width) < _TINY:
        yield f"less than {_TINY} pixels wide or high"
    try:
        # Reads the header only. Decompression bombs are refused before this, by size.
        with Image.open(io.BytesIO(encoded)) as image:
            mode, frames = image.mode, getattr(image, "n_frames", 1)
            transparent = mode in ("RGBA", "LA") or "transparency" in image.info
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return  # TensorFlow reads it, so there is nothing more to report.
    if frames > 1:
        yield "an animation, of which the first frame is used"
    if mode.startswith("I"):
        yield "16 bits per sample, of which the upper 8 are used"
    if transparent:
        yield "transparency, which is ignored"
    if mode == "CMYK":
        yield "CMYK, which is converted to RGB"
