"""Reads every image of a split and tells what is wrong with it, or odd."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
import io
import os
from typing import NamedTuple

from PIL import Image
import tensorflow as tf

from simclr_tf import errors
from simclr_tf.data import decode, sources

# Images in hand at a time: enough for every core, few enough for memory.
_AT_ONCE = 4 * (os.cpu_count() or 1)
_TINY = 8  # pixels; below, there is little to crop


class Finding(NamedTuple):
    """What reading one image found.

    Attributes:
        name: the file or record.
        damage: why it cannot be used, None if it can.
        oddities: what is done to it or lost of it, each a few words that many images share.
    """

    name: str
    damage: str | None
    oddities: tuple[str, ...]


def inspect(source: sources.Source, split: str) -> Iterator[Finding]:
    """Reads the images of a split one after another, several at a time.

    Args:
        source: the opened data set.
        split: of it, in tensorflow-datasets syntax.

    Yields:
        A finding for every image, in the stored order, with or without anything found.

    Raises:
        tf.errors.OpError: if a file of the data set cannot be read at all.
    """
    with futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        for chunk in _chunks(source.examples(split).as_numpy_iterator()):
            yield from threads.map(_inspect_one, chunk)


def findings(source: sources.Source, split: str) -> Iterator[Finding]:
    """Does the same as `inspect`, for a person.

    Raises:
        errors.UserError: if a file of the data set cannot be read at all.
    """
    read = 0
    try:
        for finding in inspect(source, split):
            yield finding
            read += 1
    except tf.errors.OpError as error:
        raise errors.UserError(
            f"{source.example_name(split, read)} of the split {split!r} of {source.name!r} cannot "
            f"be read ({str(error.message).splitlines()[0]}); mend that, or take it out."
        ) from error


def _chunks(examples: Iterator[dict]) -> Iterator[list[dict]]:
    chunk: list[dict] = []
    try:
        for example in examples:
            chunk.append(example)
            if len(chunk) == _AT_ONCE:
                yield chunk
                chunk = []
    except tf.errors.OpError:
        yield chunk  # What was read before.
        raise
    yield chunk


def first_damaged(source: sources.Source, split: str) -> Finding | None:
    """Finds the first image that cannot be used; reads the whole split if there is none."""
    good = 0
    try:
        for finding in inspect(source, split):
            if finding.damage:
                return finding
            good += 1
    except tf.errors.OpError:
        return Finding(source.example_name(split, good), "cannot be read", ())
    return None


def _inspect_one(example: dict) -> Finding:
    name, encoded = example["name"].decode(), example["image"]
    try:
        shape = decode.decode_image(tf.constant(encoded)).shape
    except tf.errors.OpError as error:
        return Finding(name, reason_of(error), ())
    return Finding(name, None, tuple(_oddities(encoded, shape[0], shape[1])))


def reason_of(error: tf.errors.OpError) -> str:
    """Returns why an image could not be decoded, as a part of a sentence."""
    text = " ".join(str(error.message).split())
    if "more than" in text and "pixels" in text:
        return f"has more than {decode.MAX_PIXELS:,} pixels"
    if "no JPEG, PNG, BMP or GIF" in text or "Unknown image file format" in text:
        return "is no JPEG, PNG, BMP or GIF"
    return "is damaged or cut short"


def _oddities(encoded: bytes, height: int, width: int) -> Iterator[str]:
    if min(height, width) < _TINY:
        yield f"less than {_TINY} pixels wide or high"
    try:
        # Reads the head only. Decompression bombs are refused before this, by size.
        with Image.open(io.BytesIO(encoded)) as image:
            mode, frames = image.mode, getattr(image, "n_frames", 1)
            transparent = mode in ("RGBA", "LA") or "transparency" in image.info
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return  # TensorFlow reads it, so there is nothing more to say.
    if frames > 1:
        yield "an animation, of which the first frame is used"
    if mode.startswith("I"):
        yield "16 bits a sample, of which the upper 8 are used"
    if transparent:
        yield "transparency, which is left out"
    if mode == "CMYK":
        yield "CMYK, which becomes RGB"
