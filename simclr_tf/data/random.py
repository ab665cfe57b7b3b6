"""Stateless random numbers: equal seeds give equal numbers on every device."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# Unlike TensorFlow's default, this generator draws the same bits on every device.
PHILOX = "philox"


def split_seed(seed: tf.Tensor, num: int) -> list[tf.Tensor]:
    """Derives `num` independent seeds, each (2,) int32, from one of (2,) int32."""
    return tf.unstack(tf.random.experimental.stateless_split(seed, num, alg=PHILOX), num)


def derive_seed(seed: int, purpose: int, number: tf.Tensor) -> tf.Tensor:
    """Returns a (2,) int32 seed that is a function of all three.

    Args:
        seed: seed of the run.
        purpose: constant of one use of the numbers; each gives an independent random stream.
        number: () integer, such as a step or an epoch.
    """
    root = tf.random.experimental.stateless_fold_in(tf.constant([seed, purpose]), 0)
    number = tf.cast(number, tf.int64)
    low = tf.cast(number % 2**31, tf.int32)
    high = tf.cast(number // 2**31, tf.int32)
    folded = tf.random.experimental.stateless_fold_in(root, low)
    return tf.random.experimental.stateless_fold_in(folded, high)


def uniform(seed: tf.Tensor, shape: tuple, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """Draws float32 of `shape` from [low, high), the same on every device."""
    # XLA and the CPU kernel draw the same bits but convert them to different floats.
    bits = tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg=PHILOX)
    fraction = tf.cast(tf.cast(tf.bitwise.right_shift(bits, 8), tf.int32), tf.float32) / 2.0**24
    return low + (high - low) * fraction


def normal(seed: tf.Tensor, shape: tuple) -> tf.Tensor:
    """Draws float32 of `shape` from the standard normal; equal on every device, to rounding."""
    for_length, for_angle = split_seed(seed, 2)
    length = tf.sqrt(-2.0 * tf.math.log(1.0 - uniform(for_length, shape)))  # Box and Muller
    return length * tf.cos(2.0 * np.pi * uniform(for_angle, shape))


def permutation(seed: tf.Tensor, length: int) -> tf.Tensor:
    """Returns (length,) int32, the numbers below `length` in random order."""
    keys = tf.random.stateless_uniform([length], seed, None, None, tf.int64, alg=PHILOX)
    return tf.argsort(keys, stable=True)
