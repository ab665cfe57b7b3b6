"""Mixtures of two images, which the supervised baselines of SupCon learn from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats
import tensorflow as tf

# Shares are drawn from this many equally likely values: finer than any batch can tell.
_QUANTILES = 4096


class Mixed(NamedTuple):
    """Images, each mixed with another of its batch.

    Attributes:
        images: (n, h, w, 3).
        others: (n,) int, the labels of what was mixed in.
        share: () float32 in [0, 1], how much of each image is left of itself.
    """

    images: tf.Tensor
    others: tf.Tensor
    share: tf.Tensor


def mixup(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, *, alpha: float) -> Mixed:
    """Mixup (Zhang et al. 2018): averages each image with the next of the batch.

    Args:
        images: (n, h, w, 3).
        labels: (n,) int.
        seed: (2,) int32; draws the share, one for the batch, from Beta(alpha, alpha).
        alpha: greater than 0; ImageNet's usual value is 0.2, 1 makes all shares equally likely.
    """
    share = _draw_share(seed, alpha)
    others = tf.roll(images, 1, 0)
    mixed = share * tf.cast(images, tf.float32) + (1 - share) * tf.cast(others, tf.float32)
    return Mixed(tf.cast(mixed, images.dtype), tf.roll(labels, 1, 0), share)


def cutmix(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, *, alpha: float) -> Mixed:
    """CutMix (Yun et al. 2019): pastes a box of the next image of the batch into each image.

    The box has the proportions of the image and a centre anywhere in it, so that it may be cut at
    the border; the share is what is left.

    Args:
        images: (n, h, w, 3), sizes known.
        labels: (n,) int.
        seed: (2,) int32; draws the area of the box, one for the batch, from Beta(alpha, alpha).
        alpha: greater than 0; the paper: 1.
    """
    for_share, for_centre = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    side = tf.sqrt(1 - _draw_share(for_share, alpha))  # As a share of the image's sides.
    centre = tf.random.stateless_uniform([2], for_centre)
    inside = [
        tf.abs((tf.range(length, dtype=tf.float32) + 0.5) / length - centre[axis]) < side / 2
        for axis, length in enumerate(images.shape[1:3])
    ]
    box = inside[0][:, tf.newaxis] & inside[1]  # (h, w)
    mixed = tf.where(box[:, :, tf.newaxis], tf.roll(images, 1, 0), images)
    share = 1 - tf.reduce_mean(tf.cast(box, tf.float32))
    return Mixed(mixed, tf.roll(labels, 1, 0), share)


def _draw_share(seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """Draws () from Beta(alpha, alpha), by a table of quantiles, which works on every device."""
    if not alpha > 0:
        raise ValueError(f"alpha must be > 0, got {alpha}.")
    quantiles = stats.beta.ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES, alpha, alpha)
    index = tf.random.stateless_uniform([], seed, 0, _QUANTILES, tf.int32)
    return tf.gather(tf.constant(quantiles, tf.float32), index)
