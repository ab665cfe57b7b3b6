"""Colour operations of AutoAugment, RandAugment and SimCLR's broader policy: batched, stateless.

Shapes as in `augment`: images are (b, 3, h, w) float32 in [0, 1], channels first. All results are
in [0, 1]. The papers' own code works on 8-bit images. Here `posterize` and `equalize`, which are
defined on 256 levels only, round to them; the others do not round.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from simclr_tf.data import jitter


def invert(images: tf.Tensor) -> tf.Tensor:
    """Returns the negatives."""
    return 1.0 - images


def solarize(images: tf.Tensor, thresholds: tf.Tensor) -> tf.Tensor:
    """Inverts every channel value at or above the image's threshold (b,), in [0, 256 / 255]."""
    return tf.where(images < _per_image(thresholds), images, 1.0 - images)


def solarize_add(
    images: tf.Tensor, additions: tf.Tensor, *, threshold: float = 128 / 255
) -> tf.Tensor:
    """Adds (b,) to every channel value below the threshold, and clips."""
    brighter = tf.clip_by_value(images + _per_image(additions), 0.0, 1.0)
    return tf.where(images < threshold, brighter, images)


def posterize(images: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the upper (b,) bits, 0 to 8, of the eight of each channel value."""
    step = _per_image(tf.pow(2.0, 8.0 - tf.cast(bits, tf.float32)))
    return tf.floor(_levels(images) / step) * step / 255.0


def equalize(images: tf.Tensor) -> tf.Tensor:
    """Spreads each channel's values so that all are equally frequent, as Pillow does.

    A channel with a single value is only rounded to 256 levels.
    """
    shape = tf.shape(images)
    planes = tf.reshape(
        tf.cast(_levels(images), tf.int32), [shape[0] * shape[1], -1]
    )  # (b * c, h * w)
    channel = tf.range(tf.shape(planes)[0])[:, tf.newaxis]
    counts = tf.math.unsorted_segment_sum(
        tf.ones_like(planes), channel * 256 + planes, tf.shape(planes)[0] * 256
    )
    counts = tf.reshape(counts, [-1, 256])
    last = tf.reduce_max(planes, axis=1, keepdims=True)
    count_of_last = tf.gather(counts, last, batch_dims=1)  # (b * c, 1)
    step = (tf.shape(planes)[1] - count_of_last) // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    # Pillow adds half a step to the running sum before it divides.
    table = tf.clip_by_value((below + step // 2) // tf.maximum(step, 1), 0, 255)
    table = tf.where(step == 0, tf.range(256)[tf.newaxis], table)
    equal = tf.cast(tf.gather(table, planes, batch_dims=1), tf.float32) / 255.0
    return tf.reshape(equal, shape)


def autocontrast(images: tf.Tensor) -> tf.Tensor:
    """Stretches each channel so that its darkest value is 0 and its lightest 1, if they differ."""
    low = tf.reduce_min(images, axis=[2, 3], keepdims=True)
    span = tf.reduce_max(images, axis=[2, 3], keepdims=True) - low
    return tf.where(span > 0, (images - low) / tf.where(span > 0, span, 1.0), images)


def brightness(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Multiplies by (b,), and clips."""
    return _blend(tf.zeros_like(images), images, factors)


def contrast(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Scales by (b,) the distance to the mean of the grey image, and clips (Pillow's Contrast)."""
    mean = tf.reduce_mean(jitter.grey(images), axis=[2, 3], keepdims=True)
    return _blend(mean, images, factors)


def color(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Scales by (b,) the distance to the grey image, and clips (Pillow's Color)."""
    return _blend(jitter.grey(images), images, factors)


def sharpness(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Scales by (b,) the distance to a smoothed image, and clips (Pillow's Sharpness).

    The smoothing kernel is 3 by 3, ones around a five; border pixels do not change.
    """
    around = sum(_shifted(images, dy, dx) for dy in range(3) for dx in range(3))
    smooth = (around + 4.0 * _shifted(images, 1, 1)) / 13.0
    smooth = tf.concat([images[:, :, 1:-1, :1], smooth, images[:, :, 1:-1, -1:]], axis=3)
    smooth = tf.concat([images[:, :, :1], smooth, images[:, :, -1:]], axis=2)
    return _blend(smooth, images, factors)


def sobel(images: tf.Tensor) -> tf.Tensor:
    """Returns the length of each channel's Sobel gradient, clipped (SimCLR, figure 4).

    The gradient is that of `tf.image.sobel_edges`: the border is mirrored.
    """
    padded = tf.pad(images, [[0, 0], [0, 0], [1, 1], [1, 1]], "REFLECT")
    columns = padded[:, :, :-2] + 2.0 * padded[:, :, 1:-1] + padded[:, :, 2:]
    along_x = columns[..., 2:] - columns[..., :-2]
    rows = padded[..., :-2] + 2.0 * padded[..., 1:-1] + padded[..., 2:]
    along_y = rows[:, :, 2:] - rows[:, :, :-2]
    return tf.clip_by_value(tf.sqrt(tf.square(along_x) + tf.square(along_y)), 0.0, 1.0)


def add_noise(images: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Adds (b, 3, h, w), and clips (SimCLR, figure 4)."""
    return tf.clip_by_value(images + noise, 0.0, 1.0)


def _shifted(images: tf.Tensor, dy: int, dx: int) -> tf.Tensor:
    """Returns the (h - 2, w - 2) window of the images that begins at (dy, dx)."""
    height, width = tf.shape(images)[2], tf.shape(images)[3]
    return images[:, :, dy : dy + height - 2, dx : dx + width - 2]


def _blend(start: tf.Tensor, end: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Interpolates from `start` (factor 0) to `end` (1), or extrapolates, by (b,), and clips."""
    return tf.clip_by_value(start + _per_image(factors) * (end - start), 0.0, 1.0)


def _levels(images: tf.Tensor) -> tf.Tensor:
    """Rounds to whole numbers from 0 to 255, as float32."""
    return tf.floor(images * 255.0 + 0.5)


def _per_image(values: tf.Tensor) -> tf.Tensor:
    return tf.convert_to_tensor(values)[:, np.newaxis, np.newaxis, np.newaxis]  # (b, 1, 1, 1)
