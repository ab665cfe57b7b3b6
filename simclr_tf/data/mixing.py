"""Mixup and CutMix, for the supervised baselines of SupCon."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy
import tensorflow as tf

from simclr_tf import errors
from simclr_tf.data import random

# Weights are drawn from this many equally likely values, fine enough for any batch.
_QUANTILES = 4096


class Mixed(NamedTuple):
    """Images, each mixed with another of its batch.

    Attributes:
        images: (n, h, w, 3).
        other_labels: (n,) int, the labels of the images that were mixed in.
        weight: () float32 in [0, 1], weight of each image itself; the papers' lambda.
    """

    images: tf.Tensor
    other_labels: tf.Tensor
    weight: tf.Tensor


def mixup(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, *, alpha: float) -> Mixed:
    """Averages each image with the previous one of the batch: mixup (Zhang et al. 2018).

    The first image is averaged with the last.

    Args:
        images: (n, h, w, 3).
        labels: (n,) int.
        seed: (2,) int32, seed of the weight: one for the batch, from Beta(alpha, alpha).
        alpha: parameter of the beta distribution, greater than 0; usually 0.2 on ImageNet; 1 makes
            all weights equally likely.
    """
    weight = _draw_weight(seed, alpha)
    others = tf.roll(images, 1, 0)
    mixed = weight * tf.cast(images, tf.float32) + (1 - weight) * tf.cast(others, tf.float32)
    return Mixed(tf.cast(mixed, images.dtype), tf.roll(labels, 1, 0), weight)


def cutmix(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, *, alpha: float) -> Mixed:
    """Pastes a box of the previous image of the batch into each image: CutMix (Yun et al. 2019).

    The first image receives a box of the last. The box has the aspect ratio of the image and its
    centre anywhere in the image, so it may be cut off at the border; the weight is the fraction of
    the image that remains.

    Args:
        images: (n, h, w, 3), h and w static.
        labels: (n,) int.
        seed: (2,) int32, seed of the box: one for the batch, its area from Beta(alpha, alpha).
        alpha: parameter of the beta distribution, greater than 0; the paper uses 1.
    """
    for_area, for_centre = random.split_seed(seed, 2)
    side = tf.sqrt(1 - _draw_weight(for_area, alpha))  # As a fraction of the image's sides.
    centre = tf.random.stateless_uniform([2], for_centre, alg=random.PHILOX)
    inside = [
        tf.abs((tf.range(length, dtype=tf.float32) + 0.5) / length - centre[axis]) < side / 2
        for axis, length in enumerate(images.shape[1:3])
    ]
    box = inside[0][:, tf.newaxis] & inside[1]  # (h, w)
    mixed = tf.where(box[:, :, tf.newaxis], tf.roll(images, 1, 0), images)
    weight = 1 - tf.reduce_mean(tf.cast(box, tf.float32))
    return Mixed(mixed, tf.roll(labels, 1, 0), weight)


def _draw_weight(seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """Draws () from Beta(alpha, alpha) by a table of quantiles, which works on every device."""
    if not alpha > 0:
        raise errors.ArgumentError("alpha", alpha, "must be greater than 0.")
    quantiles = scipy.stats.beta.ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES, alpha, alpha)
    index = tf.random.stateless_uniform([], seed, 0, _QUANTILES, tf.int32, alg=random.PHILOX)
    return tf.gather(tf.constant(quantiles, tf.float32), index)
