"""Checks, casts, normalises and compares projections: the first steps of every contrastive loss."""

from __future__ import annotations

from collections.abc import Sequence
import itertools
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


def image_indices(images: int, num_views: int) -> tf.Tensor:
    """Returns (v * b,) int32, for each view of this replica the index of its image.

    Args:
        images: b, this replica's number of images.
        num_views: v. All first views come first, then all second ones, and so on.
    """
    return tf.tile(distribute.replica_index() * images + tf.range(images), [num_views])


def positive_products(z: tf.Tensor, num_views: int) -> dict[tuple[int, int], tf.Tensor]:
    """Returns the products of each two views of an image.

    Args:
        z: (v * b, d), the result of `stacked`.
        num_views: v.

    Returns:
        (b,) products for each two view indices, the smaller one first.
    """
    views = tf.split(z, num_views)
    return {
        (one, other): tf.reduce_sum(views[one] * views[other], 1)
        for one, other in itertools.combinations(range(num_views), 2)
    }


def _mean_positives(z: tf.Tensor, num_views: int) -> tf.Tensor:
    """Returns (v * b,) the mean product of each view with the other views of its image."""
    products = positive_products(z, num_views)
    sums = [
        tf.add_n([product for views, product in products.items() if view in views])
        for view in range(num_views)
    ]
    return tf.concat(sums, 0) / (num_views - 1)


class Pairs(NamedTuple):
    """The views of this replica, each compared with all views of the global batch.

    Attributes:
        similarities: (v * b, v * B) similarities of this replica's views, first views first, to
            all views.
        positives: (v * b,) mean similarity to the other views of the same image.
        negatives: (v * b, v * B) bool, True for the negatives: views of other images.
        partners: (v * b, v * B) bool, True for the other views of the same image.
    """

    similarities: tf.Tensor
    positives: tf.Tensor
    negatives: tf.Tensor
    partners: tf.Tensor


def pairs(
    views: Sequence[tf.Tensor],
    *,
    temperature: float = 1.0,
    l2_normalize: bool = True,
    negatives: str = "both",
) -> Pairs:
    """Compares each view with every view.

    Args:
        views: v of (b, d), this replica's projections of the first views, the second, ...; two
            at least.
        temperature: divisor of the similarities.
        l2_normalize: whether to take cosine similarities.
        negatives: "both": all views of other images; "one": of two views, which are two sides,
            only those of the side opposite to the view's (Chen et al. 2020, appendix B.10).

    Returns:
        The similarities and which of them are positives and negatives.

    Raises:
        ValueError: if `temperature` is not positive, `negatives` is neither of the two, or "one"
            of more than two views, or as `stacked`.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives must be one of {', '.join(NEGATIVES)}, got {negatives!r}.")
    v = len(views)
    if negatives == "one" and v > 2:
        raise ValueError(f"negatives='one' needs two views, the two sides, got {v}.")
    check_temperature(temperature)
    z = stacked(views, l2_normalize=l2_normalize)
    global_z = distribute.gather(z)  # (v * B, d), replica by replica
    b = views[0].shape[0]
    columns = tf.range(global_z.shape[0])
    images, sides = columns // (v * b) * b + columns % b, columns // b % v  # (v * B,) each
    same_image = image_indices(b, v)[:, tf.newaxis] == images
    other_side = tf.repeat(tf.range(v), b)[:, tf.newaxis] != sides
    return Pairs(
        tf.matmul(z / temperature, global_z, transpose_b=True),
        _mean_positives(z, v) / temperature,
        ~same_image & other_side if negatives == "one" else ~same_image,
        same_image & other_side,
    )
