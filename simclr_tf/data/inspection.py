"""Reads every image of a split and reports which are unreadable and which are unusual."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
import functools
import io
import itertools
from typing import NamedTuple

import numpy as np
from PIL import Image
import tensorflow as tf

from simclr_tf import errors, pixel_format, text
from simclr_tf.data import (
    array_files,
    array_records,
    decode,
    depth,
    exif,
    folder,
    iterators,
    kinds,
    record_files,
    sources,
    stored,
)

# Images in memory at a time: enough for every core.
_CHUNK = 4 * iterators.CORES
_TINY = 8  # pixels; a smaller image leaves little to crop


class Finding(NamedTuple):
    """The result of reading one image.

    Attributes:
        name: the file or record.
        label: its class, -1 if it is unlabelled or may have several.
        unreadable: why it cannot be used, as the rest of a sentence; None if it can.
        unusual: what is done to the image or lost from it, in words that many images share.
        sixteen_bit: the values that it uses, if it has 16 bits.
    """

    name: str
    label: int
    unreadable: str | None
    unusual: tuple[str, ...]
    sixteen_bit: depth.Range | None = None


def inspect(source: sources.Source, split: str, *, with_pillow: bool = True) -> Iterator[Finding]:
    """Reads the images of a split in the stored order, several at a time.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.
        with_pillow: as for `decode.decode_image`.

    Yields:
        A finding for every image.

    Raises:
        errors.UserError: if a record cannot be read, and so none of those after it.
    """
    access = source.random_access(split)
    inspect_one = functools.partial(inspect_example, with_pillow=with_pillow, pixels=source.pixels)
    with futures.ThreadPoolExecutor(iterators.CORES) as threads:
        if access is None:
            yield from _inspect_stream(source, split, threads, inspect_one)
            return
        if access.labels is None:  # Outside of a graph, parsing takes longer than reading.
            access = access._replace(read=tf.function(access.read, autograph=False))
        indices = iter(np.flatnonzero(~access.excluded))
        while chunk := list(itertools.islice(indices, _CHUNK)):
            yield from threads.map(functools.partial(_inspect_file, access, inspect_one), chunk)


def first_unreadable(
    source: sources.Source, split: str, *, with_pillow: bool = True
) -> Finding | None:
    """Returns the first image that cannot be used, or None after reading the whole split.

    Raises:
        errors.UserError: see `inspect`.
    """
    findings = inspect(source, split, with_pillow=with_pillow)
    return next((finding for finding in findings if finding.unreadable), None)


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
    source: sources.Source,
    split: str,
    threads: futures.Executor,
    inspect_one: Callable[[dict], Finding],
) -> Iterator[Finding]:
    count = 0
    examples = iterators.without_tuning(source.examples(split)).as_numpy_iterator()
    try:
        for chunk in _chunks(examples):
            for finding in threads.map(inspect_one, chunk):
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


def _inspect_file(
    access: folder.RandomAccess, inspect_one: Callable[[dict], Finding], index: int
) -> Finding:
    try:
        example = access.read(tf.constant(index, tf.int32))
    except tf.errors.OpError as error:
        why = f"cannot be read ({reason_of_system(error)})"
        one_each = access.labels is not None and access.labels.ndim == 1
        label = int(access.labels[index]) if access.labels is not None and one_each else -1
        return Finding(access.name(index), label, why, ())
    return inspect_one({name: value.numpy() for name, value in example.items()})


def inspect_example(
    example: dict,
    *,
    with_pillow: bool = True,
    pixels: pixel_format.PixelFormat = pixel_format.RGB,
) -> Finding:
    """Decodes an example and reports what is wrong with its image.

    Args:
        example: {"image": bytes, encoded; "label": int, or (c,) of several; "name": bytes}.
        with_pillow: as for `decode.decode_image`.
        pixels: how images are decoded.
    """
    name, encoded = example["name"].decode(), example["image"]
    label = int(example["label"]) if np.ndim(example["label"]) == 0 else -1
    if not pixels.is_rgb:
        return _inspect_stored(name, label, encoded, pixels, with_python=with_pillow)
    try:
        image = decode.decode_image(tf.constant(encoded), with_pillow=with_pillow)
    except tf.errors.OpError as error:
        return Finding(name, label, why_unreadable(error, encoded, with_pillow=with_pillow), ())
    unusual = tuple(_unusual(encoded, image.shape[0], image.shape[1]))
    return Finding(name, label, None, unusual, depth.range_of(name, encoded))


def _inspect_stored(
    name: str,
    label: int,
    encoded: bytes,
    pixels: pixel_format.PixelFormat,
    *,
    with_python: bool,
) -> Finding:
    """Decodes an image as it is stored, and reports why that is impossible."""
    try:
        stored.decode_stored(tf.constant(encoded), pixels, with_python=with_python)
    except tf.errors.OpError:
        if array_files.is_array(encoded) and not with_python:
            return Finding(name, label, kinds.refusal(encoded, "a remote worker"), ())
        return Finding(name, label, stored.problem(encoded, pixels), ())
    return Finding(name, label, None, ())


def reason_of_system(error: tf.errors.OpError) -> str:
    """Returns why the system could not read a file, without the path."""
    return array_records.why_unread(error) or text.reason(error).rpartition("; ")[2]


def why_unreadable(
    error: tf.errors.OpError,
    encoded: bytes,
    *,
    with_pillow: bool = True,
    pixels: pixel_format.PixelFormat = pixel_format.RGB,
) -> str:
    """Returns why an image could not be decoded, as the rest of a sentence.

    Args:
        error: raised by `decode.decode_image`, or `stored.decode_stored` for other pixels.
        encoded: the content of the file.
        with_pillow: as for `decode.decode_image`.
        pixels: how the image was decoded.
    """
    if not pixels.is_rgb:
        return stored.problem(encoded, pixels)
    if decode.needs_pillow(tf.constant(encoded)):
        if with_pillow:
            return array_files.decode_picture(encoded, decode.MAX_PIXELS)[1]
        return kinds.refusal(encoded, "a remote worker")
    message = str(error.message)
    if "more than" in message and "pixels" in message:
        return f"has more than {decode.MAX_PIXELS:,} pixels"
    return "is corrupt or truncated"


def _unusual(encoded: bytes, height: int, width: int) -> Iterator[str]:
    kind = kinds.kind_of(encoded)
    if min(height, width) < _TINY:
        yield f"less than {_TINY} pixels wide or high"
    if decode.needs_pillow(tf.constant(encoded)):
        yield f"{kind}, which is decoded by Pillow, more slowly"
    try:
        # Reads the header only. Decompression bombs are refused before this, by size.
        with Image.open(io.BytesIO(encoded)) as image:
            mode, frames = image.mode, getattr(image, "n_frames", 1)
            transparent = mode in ("RGBA", "LA") or "transparency" in image.info
            orientation = image.getexif().get(exif.TAG, 1)
    except Exception:  # Pillow may raise anything on files of which only the pixels are intact.
        return  # The image is decoded, so there is nothing more to report.
    if frames > 1:
        yield "an animation or several pages, of which the first is used"
    if mode.startswith("I") or (kind == kinds.PNG and encoded[24:25] == b"\x10"):
        yield "16 bits per sample, of which the upper 8 are used"
    if transparent:
        yield "transparency, which is ignored"
    if mode == "CMYK":
        yield "CMYK, which is converted to RGB"
    if kind == kinds.JPEG:
        orientation = exif.jpeg_orientation(tf.constant(encoded))
    elif kind == kinds.PNG:
        orientation = exif.png_orientation(tf.constant(encoded))
    if orientation in range(2, 9):
        yield "turned upright by its EXIF orientation"
