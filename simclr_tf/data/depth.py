"""Finds 16-bit images that use only low values, which the upper 8 bits show as black."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from simclr_tf.data import decode, first_images, kinds, pillow, sources

_HIGHEST = 65_535
# Fractions of the range below which images are dark, and nearly black.
_DARK, _NEARLY_BLACK = 1 / 2, 1 / 8


class Range(NamedTuple):
    """The values that 16-bit images use.

    Attributes:
        lowest: lowest sample.
        highest: highest sample.
        images: number of images.
        example: name of one of them.
    """

    lowest: int
    highest: int
    images: int
    example: str

    def joined(self, other: Range | None) -> Range:
        """Returns the range of these images and those of another range."""
        if other is None:
            return self
        return Range(
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            self.images + other.images,
            self.example,
        )

    def warning(self) -> str | None:
        """Returns a sentence about images that are too dark; None if they are not."""
        fraction = self.highest / _HIGHEST
        if fraction > _DARK:
            return None
        plural = "s" if self.images > 1 else ""
        darkness = "nearly black" if fraction < _NEARLY_BLACK else "dark"
        return (
            f"{self.images:,} 16-bit image{plural}, such as {self.example}, use only the values "
            f"{self.lowest:,} to {self.highest:,} of {_HIGHEST:,} ({100 * fraction:.2g}% of the "
            f"range), so they will be {darkness}; take them as they are stored (--channels=auto, "
            "where all images have 16 bits), or rescale them to the whole range."
        )


def range_of(name: str, encoded: bytes) -> Range | None:
    """Returns the values of a 16-bit image without its alpha channel.

    Args:
        name: the image, for messages.
        encoded: the content of its file.

    Returns:
        None if it does not have 16 bits, or cannot be decoded.
    """
    kind = kinds.kind_of(encoded)
    samples = None
    if kind == kinds.PNG and encoded[24:25] == b"\x10":
        samples = _png_samples(encoded)
    elif kind in (kinds.TIFF, kinds.JPEG_2000):
        samples = pillow.sixteen_bit_samples(encoded, decode.MAX_PIXELS)
    if samples is None or not samples.size:
        return None
    return Range(int(samples.min()), int(samples.max()), 1, name)


def _png_samples(encoded: bytes) -> np.ndarray | None:
    try:
        decode.image_size(tf.constant(encoded))  # Refuses what is too large.
        samples = tf.io.decode_png(encoded, dtype=tf.uint16).numpy()
    except tf.errors.OpError:
        return None
    has_alpha = samples.shape[2] in (2, 4)
    return samples[:, :, :-1] if has_alpha else samples


def sampled_range(source: sources.Source, split: str) -> Range | None:
    """Returns the values of the 16-bit images among the first ones of a split, as stored.

    Only the headers are looked at, unless an image has 16 bits. Stops at what cannot be read, which
    training then reports.
    """
    found = None
    try:
        for name, encoded in first_images.first_files(source, split):
            one = range_of(name, encoded)
            found = one.joined(found) if one else found
    except tf.errors.OpError:
        pass
    return found
