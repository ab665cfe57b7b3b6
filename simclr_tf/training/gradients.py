"""The norm of a gradient over all variables, and clipping by it (Pascanu et al. 2013)."""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

# What a GradientTape returns for a variable: a tensor, IndexedSlices, or None.
Gradient: TypeAlias = Any


def global_norm(gradients: list[Gradient]) -> tf.Tensor:
    """Returns () float32, the square root of the sum of squares of all gradients.

    It is not finite if a gradient is not, and if the sum is above the range of float32.
    """
    dense = [tf.cast(tf.convert_to_tensor(g), tf.float32) for g in gradients if g is not None]
    return tf.sqrt(2 * tf.add_n([tf.nn.l2_loss(g) for g in dense]))


def clip(gradients: list[Gradient], norm: tf.Tensor, most: float) -> list[Gradient]:
    """Scales gradients down to a norm.

    Args:
        gradients: gradients of all variables.
        norm: () their norm.
        most: the largest norm; gradients below it are returned unchanged, bit for bit.
    """
    scale = tf.where(norm > most, most / norm, 1.0)
    return [None if g is None else _scaled(g, scale) for g in gradients]


def _scaled(gradient: Gradient, scale: tf.Tensor) -> Gradient:
    if isinstance(gradient, tf.IndexedSlices):
        values = gradient.values * tf.cast(scale, gradient.dtype)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(scale, gradient.dtype)
