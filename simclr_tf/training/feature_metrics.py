"""How the features of a batch are spread; no gradient flows through these functions."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# The most features that `rank` compares.
_MOST_ROWS = 256
# The length of what rounding in float32 may add to a vector of length 1.
_ROUNDING = 16 * float(np.finfo(np.float32).eps)


def spread(features: tf.Tensor) -> tf.Tensor:
    """Returns () how much features (n, f) differ between images: 0 collapsed, 1 isotropic.

    It is the standard deviation over images of the l2-normalized features, averaged over
    dimensions and multiplied by sqrt(f) (Chen and He 2021, sec. 4.1).
    """
    unit = tf.math.l2_normalize(tf.stop_gradient(features), -1)
    deviation = tf.math.reduce_std(unit, 0)  # (f,)
    return tf.reduce_mean(deviation) * features.shape[-1] ** 0.5


def rank(features: tf.Tensor) -> tf.Tensor:
    """Returns () the number of directions in which features (n, f) differ.

    It is the participation ratio of the variances of the l2-normalized features along their
    principal axes, (sum v)^2 / sum v^2: k if they are equal in k directions and 0 in all others.
    It takes two matrix products where the effective rank takes a decomposition. At most 256 rows
    are read, so that the matrices are small. It is 0 if the features are equal.
    """
    unit = tf.math.l2_normalize(tf.stop_gradient(features)[:_MOST_ROWS], -1)
    centred = unit - tf.reduce_mean(unit, 0)
    total = tf.reduce_sum(tf.square(centred))
    # A difference that is only the rounding of the mean is none.
    differ = total > centred.shape[0] * _ROUNDING**2
    scale = tf.math.rsqrt(tf.maximum(total, np.finfo(np.float32).tiny))
    centred *= tf.where(differ, scale, 0.0)  # The variances sum to 1.
    wide = centred.shape[0] <= centred.shape[1]
    # Both products have the same eigenvalues beside zeros.
    product = tf.matmul(centred, centred, transpose_a=not wide, transpose_b=wide)
    return tf.math.divide_no_nan(1.0, tf.reduce_sum(tf.square(product)))
