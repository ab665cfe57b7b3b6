"""Operations on images of any number of channels: batched, stateless.

Shapes as in `augment`: images are (b, c, h, w) float32 in [0, 1], channels first. All results are
in [0, 1].
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.data import augment, random

# As SimCLR's colour jitter: the share of views that change, and the range of factors at strength 1.
_PROBABILITY, _RANGE = 0.8, 0.8
# The share of views that lose channels, and of the channels that they lose.
_DROP_PROBABILITY, _DROPPED = 0.5, 0.2


def sample_factors(
    seed: tf.Tensor, batch: augment.Size, channels: int, *, strength: float
) -> tf.Tensor:
    """Draws factors of brightness or contrast, from [max(1 - 0.8 s, 0), 1 + 0.8 s).

    Args:
        seed: (2,) int32.
        batch: b, number of images.
        channels: c, number of channels with a factor of their own; 1 for one factor for all.
        strength: s, at least 0.

    Returns:
        (b, c, 1, 1); 1 in a fifth of the images, which do not change.
    """
    for_apply, for_factor = random.split_seed(seed, 2)
    apply = augment.sample_flags(for_apply, batch, probability=_PROBABILITY)
    low, high = max(1 - _RANGE * strength, 0.0), 1 + _RANGE * strength
    factors = random.uniform(for_factor, (batch, channels, 1, 1), low, high)
    return tf.where(apply[:, tf.newaxis, tf.newaxis, tf.newaxis], factors, 1.0)


def brightness(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Multiplies by (b, c or 1, 1, 1), and clips."""
    return tf.clip_by_value(images * factors, 0.0, 1.0)


def contrast(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Scales the distance to each channel's mean by (b, c or 1, 1, 1), and clips."""
    mean = tf.reduce_mean(images, axis=[2, 3], keepdims=True)
    return tf.clip_by_value(mean + factors * (images - mean), 0.0, 1.0)


def sample_drop(seed: tf.Tensor, batch: augment.Size, channels: int) -> tf.Tensor:
    """Draws which channels are kept.

    Half of the images lose each channel with a probability of 0.2, but never the channel that was
    drawn with the largest number, so that one is left.

    Returns:
        (b, c, 1, 1) float32, 0 for channels that are dropped and 1 for others.
    """
    for_apply, for_drop = random.split_seed(seed, 2)
    apply = augment.sample_flags(for_apply, batch, probability=_DROP_PROBABILITY)
    drawn = random.uniform(for_drop, (batch, channels))
    kept = (drawn >= _DROPPED) | (drawn == tf.reduce_max(drawn, axis=1, keepdims=True))
    kept |= ~apply[:, tf.newaxis]
    return tf.cast(kept, tf.float32)[..., tf.newaxis, tf.newaxis]


def drop(images: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Sets the channels with a 0 in (b, c, 1, 1) to 0."""
    return images * kept
