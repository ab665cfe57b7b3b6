"""Reads every image of a split and reports which are unreadable and which are unusual."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
import io
from typing import NamedTuple

from PIL import Image
import tensorflow as tf

from simclr_tf import errors, text
from simclr_tf.data import decode, iterators, sources

# Images in memory at a time: enough for every core.
_CHUNK = 4 * iterators.CORES
_TINY = 8  # pixels; a smaller image leaves little to crop


class Finding(NamedTuple):
    """The result of reading one image.

    Attributes:
        name: the file or record.
        unreadable: why it cannot be used, as the rest of a sentence; None if it can.
        unusual: what is done to the image or lost from it, in words that many images share.
    """

    name: str
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
        errors.UserError: if a file of the data set cannot be read at all.
    """
    count = 0
    try:
        for finding in _inspect(source, split):
            yield finding
            count += 1
    except tf.errors.OpError as error:
        raise errors.UserError(
            f"{source.example_name(split, count)} of the split {split!r} of {source.name!r} cannot "
            f"be read ({text.reason(error)}); repair or remove it."
        ) from error


def first_unreadable(source: sources.Source, split: str) -> Finding | None:
    """Returns the first image that cannot be used, or None after reading the whole split."""
    count = 0
    try:
        for finding in _inspect(source, split):
            if finding.unreadable:
                return finding
            count += 1
    except tf.errors.OpError:
        return Finding(source.example_name(split, count), "cannot be read", ())
    return None


def _inspect(source: sources.Source, split: str) -> Iterator[Finding]:
    """Yields findings; raises tf.errors.OpError at a file that cannot be read."""
    with futures.ThreadPoolExecutor(iterators.CORES) as threads:
        examples = iterators.without_tuning(source.examples(split))
        for chunk in _chunks(examples.as_numpy_iterator()):
            yield from threads.map(_inspect_one, chunk)


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


def _inspect_one(example: dict) -> Finding:
    name, encoded = example["name"].decode(), example["image"]
    try:
        shape = decode.decode_image(tf.constant(encoded)).shape
    except tf.errors.OpError as error:
        return Finding(name, why_unreadable(error), ())
    return Finding(name, None, tuple(_unusual(encoded, shape[0], shape[1])))


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
