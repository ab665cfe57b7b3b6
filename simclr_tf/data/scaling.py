"""Turns values as images store them into the values from 0 to 1 that networks see."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf import pixel_format


def to_unit(images: tf.Tensor, pixels: pixel_format.PixelFormat) -> tf.Tensor:
    """Scales each channel so that its `low` becomes 0 and its `high` 1, and clips the rest.

    Called before images are resized, so that values far out of range, such as dead pixels, do not
    spread.

    Args:
        images: (..., c) of any type.
        pixels: the format of the pixels.

    Returns:
        (..., c) float32 in [0, 1].
    """
    low = tf.constant(pixels.low, tf.float32)
    span = tf.constant(pixels.high, tf.float32) - low
    return tf.clip_by_value((tf.cast(images, tf.float32) - low) / span, 0.0, 1.0)
