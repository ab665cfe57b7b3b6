"""Checks, casts, normalises and compares projections: the first steps of every contrastive loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from simclr_tf import distribute

# Where the negatives of a view come from.
NEGATIVES = ("both", "one")


def stacked(views: Sequence[tf.Tensor], *, l2_normalize: bool) -> tf.Tensor:
    """Concatenates the views of a batch, ready to be compared.

    All arithmetic of the losses is float32, or float64 for float64 inputs.

    Args:
        views: v of (b, d), projections of the first views, of the second, ...
        l2_normalize: whether to scale every projection to length 1.

    Returns:
        (v * b, d).

    Raises:
        ValueError: if the views do not have one static shape (b, d).
    """
    views = [tf.convert_to_tensor(view) for view in views]
    shape = views[0].shape
    if len(shape) != 2 or not shape.is_fully_defined() or any(v.shape != shape for v in views):
        shapes = " and ".join(str(view.shape) for view in views)
        raise ValueError(f"views must all have one static shape (b, d), got {shapes}.")
    z = tf.concat(views, 0)
    if z.dtype != tf.float64:
        z = tf.cast(z, tf.float32)
    return tf.math.l2_normalize(z, -1) if l2_normalize else z


def check_temperature(temperature: float) -> None:
    """Raises ValueError unless the temperature is positive."""
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}.")


def log_sum_exp(similarities: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns (n,) the log of the masked sum of exp of each row; 0 if the mask is empty.

    Args:
        similarities: (n, m).
        mask: (n, m) bool, True for the values to sum.
    """
    nonempty = tf.reduce_any(mask, 1)
    # -inf, not a large number: exact in every dtype. A row that holds nothing else would give NaN
    # gradients, so an empty row is summed without the mask and its result replaced.
    kept = mask | ~nonempty[:, tf.newaxis]
    masked = tf.where(kept, similarities, tf.constant(-np.inf, similarities.dtype))
    return tf.where(nonempty, tf.reduce_logsumexp(masked, 1), 0)


class Pairs(NamedTuple):
    """The first and the second views, each compared with all views of the global batch.

    Attributes:
        similarities: (2b, 2B) similarities of this replica's views, first views first, to all
            views.
        positives: (2b,) similarity to the other view of the same image.
        negatives: (2b, 2B) bool, True for the negatives: views of other images.
        partners: (2b, 2B) bool, True for the other view of the same image.
    """

    similarities: tf.Tensor
    positives: tf.Tensor
    negatives: tf.Tensor
    partners: tf.Tensor


def pairs(
    za: tf.Tensor,
    zb: tf.Tensor,
    *,
    temperature: float = 1.0,
    l2_normalize: bool = True,
    negatives: str = "both",
) -> Pairs:
    """Compares each view with every view.

    Args:
        za: (b, d) this replica's projections of the first views.
        zb: (b, d) projections of the second views, in the same order.
        temperature: divisor of the similarities.
        l2_normalize: whether to take cosine similarities.
        negatives: "both": views of other images from both sides, which are the first and the
            second views; "one": only from the side opposite to the view's (Chen et al. 2020,
            appendix B.10).

    Returns:
        The similarities and which of them are positives and negatives.

    Raises:
        ValueError: if `temperature` is not positive, `negatives` is neither of the two, or as
            `stacked`.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives must be one of {', '.join(NEGATIVES)}, got {negatives!r}.")
    check_temperature(temperature)
    z = stacked([za, zb], l2_normalize=l2_normalize)
    global_z = distribute.gather(z)  # (2B, d), replica by replica
    b = za.shape[0]
    columns = tf.range(global_z.shape[0])
    images, sides = columns // (2 * b) * b + columns % b, columns // b % 2  # (2B,) each
    local_rows = distribute.replica_index() * 2 * b + tf.range(2 * b)  # (2b,)
    same_image = tf.gather(images, local_rows)[:, tf.newaxis] == images
    other_side = tf.gather(sides, local_rows)[:, tf.newaxis] != sides
    first, second = tf.split(z, 2)
    positives = tf.tile(tf.reduce_sum(first * second, 1) / temperature, [2])
    return Pairs(
        tf.matmul(z / temperature, global_z, transpose_b=True),
        positives,
        ~same_image & other_side if negatives == "one" else ~same_image,
        same_image & other_side,
    )
