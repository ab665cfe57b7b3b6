"""Contrastive losses of views of each image (Chen et al. 2020, table 2)."""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.losses import blocked, projections


def nt_xent(
    views: Sequence[tf.Tensor],
    *,
    temperature: float,
    l2_normalize: bool = True,
    negatives: str = "both",
    decoupled: bool = False,
    tile: int | None = None,
) -> tf.Tensor:
    """Computes NT-Xent, the loss of SimCLR (Chen et al. 2020, Algorithm 1), of two views or more.

    Row i of each of the `views` is of image i. The positives of a view are the others of its image,
    its negatives the v (B - 1) views of other images of the *global* batch. The loss of a view is
    the mean over its positives of

        -log( exp(u.p / tau) / sum over all other views a of exp(u.a / tau) )

    For more than two views that is SupCon's eq. 2 without labels (Khosla et al. 2020). All
    arithmetic is float32, or float64 for float64 inputs.

    Args:
        views: v >= 2 of (b, d), projections of the first views, the second, ..., of any length.
        temperature: tau, the divisor of the similarities; greater than 0.
        l2_normalize: whether to take cosine similarities, as the paper does; else plain products.
        negatives: "both", or of two views "one": only the B - 1 of the other side (B.10).
        decoupled: whether the denominator is of the negatives only (Yeh et al. 2022, eq. 6).
        tile: largest number of views in a tile, to compute the similarities tile by tile; None
            computes and keeps all of them.

    Returns:
        () mean over this replica's v * b views. Its mean over replicas is the papers' loss.
        (google-research/simclr adds the two sides: twice this value.)

    Raises:
        ValueError: if `temperature` is not positive, the views do not have one static shape
            (b, d), or `negatives` is "one" with more than two views or with `tile`.
    """
    if tile is None:
        compared = projections.pairs(
            views, temperature=temperature, l2_normalize=l2_normalize, negatives=negatives
        )
        candidates = compared.negatives
        if not decoupled:
            candidates |= compared.partners
        denominators = projections.log_sum_exp(compared.similarities, candidates)
        return tf.reduce_mean(denominators - compared.positives)
    if negatives != "both":
        raise ValueError(f"tiles need negatives from both sides, got negatives={negatives!r}.")
    projections.check_temperature(temperature)
    z = projections.stacked(views, l2_normalize=l2_normalize)
    # Each product is a positive of both of its views, so the means over products and views agree.
    products = projections.positive_products(z, len(views))
    positives = tf.concat(list(products.values()), 0) / temperature
    denominators = _tiled_denominators(
        z, len(views), temperature=temperature, unit=l2_normalize, decoupled=decoupled, tile=tile
    )
    return tf.reduce_mean(denominators) - tf.reduce_mean(positives)


def _tiled_denominators(
    z: tf.Tensor, num_views: int, *, temperature: float, unit: bool, decoupled: bool, tile: int
) -> tf.Tensor:
    """Returns (v * b,) logarithms of the denominators of NT-Xent, computed tile by tile."""
    if not decoupled:
        return blocked.log_sum_exp(z, temperature=temperature, unit=unit, tile=tile)
    images = projections.image_indices(z.shape[0] // num_views, num_views)
    return blocked.log_sum_exp(
        z,
        temperature=temperature,
        unit=unit,
        row_attributes=images[:, tf.newaxis],
        mask_fn=lambda rows, columns: rows != tf.transpose(columns),
        tile=tile,
    )


def nt_logistic(
    za: tf.Tensor,
    zb: tf.Tensor,
    *,
    temperature: float,
    l2_normalize: bool = True,
    negatives: str = "both",
    semi_hard: bool = False,
) -> tf.Tensor:
    """Computes NT-Logistic, a binary classification of each pair: same image or not (table 2).

        -log sigmoid(u.v+ / tau) - mean over negatives of log sigmoid(-u.v- / tau)

    The paper does not say how the negatives of a view are weighted; their mean keeps them from
    outweighing the one positive.

    Args:
        za: (b, d) projections of the first views.
        zb: (b, d) projections of the second views, in the same order.
        temperature: tau; greater than 0.
        l2_normalize: whether to take cosine similarities.
        negatives: "both" or "one", as for `nt_xent`.
        semi_hard: whether each view has one negative, by `semi_hard_negatives`, in place of all.

    Returns:
        () mean over this replica's 2b views.

    Raises:
        ValueError: as `nt_xent`.
    """
    compared = projections.pairs(
        [za, zb], temperature=temperature, l2_normalize=l2_normalize, negatives=negatives
    )
    if semi_hard:
        negative_losses = tf.math.softplus(semi_hard_negatives(compared))
    else:
        negative_losses = _mean_over(compared.negatives, tf.math.softplus(compared.similarities))
    return tf.reduce_mean(tf.math.softplus(-compared.positives) + negative_losses)


def margin_triplet(
    za: tf.Tensor,
    zb: tf.Tensor,
    *,
    margin: float,
    l2_normalize: bool = True,
    negatives: str = "both",
    semi_hard: bool = False,
) -> tf.Tensor:
    """Computes the margin triplet loss (table 2).

        mean over negatives of max(u.v- - u.v+ + margin, 0)

    Args:
        za: (b, d) projections of the first views.
        zb: (b, d) projections of the second views, in the same order.
        margin: by how much a positive should be more similar than a negative; at least 0. The
            paper tried 0, 0.4, 0.8 and 1.6 (B.10).
        l2_normalize: whether to take cosine similarities.
        negatives: "both" or "one", as for `nt_xent`.
        semi_hard: whether each view has one negative, by `semi_hard_negatives`, in place of all.

    Returns:
        () mean over this replica's 2b views.

    Raises:
        ValueError: if the margin is negative, or as `nt_xent`.
    """
    if not margin >= 0:
        raise ValueError(f"margin must be >= 0, got {margin}.")
    compared = projections.pairs([za, zb], l2_normalize=l2_normalize, negatives=negatives)
    positives = compared.positives[:, tf.newaxis]  # (2b, 1)
    if semi_hard:
        chosen = semi_hard_negatives(compared)[:, tf.newaxis]
        return tf.reduce_mean(tf.nn.relu(chosen - positives + margin))
    violations = tf.nn.relu(compared.similarities - positives + margin)  # (2b, 2B)
    return tf.reduce_mean(_mean_over(compared.negatives, violations))


def semi_hard_negatives(compared: projections.Pairs) -> tf.Tensor:
    """Returns (2b,) similarity of each view to its semi-hard negative (Schroff et al. 2015).

    That is the most similar negative that is less similar than the positive. If every negative is
    more similar than the positive, it is the least similar negative, as in FaceNet's code and
    tensorflow-addons, because the hardest negatives lead to collapse.
    """
    s, negatives = compared.similarities, compared.negatives
    farther = negatives & (s < compared.positives[:, tf.newaxis])
    infinite = tf.constant(np.inf, s.dtype)
    nearest_of_farther = tf.reduce_max(tf.where(farther, s, -infinite), 1)
    farthest = tf.reduce_min(tf.where(negatives, s, infinite), 1)
    return tf.where(tf.reduce_any(farther, 1), nearest_of_farther, farthest)


def _mean_over(mask: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns (n,) the mean of the masked values (n, m) of each row; 0 if the mask is empty."""
    count = tf.reduce_sum(tf.cast(mask, values.dtype), 1)
    return tf.reduce_sum(tf.where(mask, values, 0), 1) / tf.maximum(count, 1)


class Agreement(NamedTuple):
    """How similar the views of an image are, and those of different images of the global batch.

    Attributes:
        accuracy: () fraction of first views whose most similar second view is of the same image.
        entropy: () mean entropy, in nats, of the similarities of a first view to all B second
            views; at most ln B.
        positive_cosine: () mean cosine of the two views of an image.
        negative_cosine: () mean cosine of a first view and a second view of another image.
        uniformity: () log of the mean of exp(-2 d^2) over the latter pairs, whose distance on the
            unit sphere is d (Wang and Isola 2020); the same on all replicas.
    """

    accuracy: tf.Tensor
    entropy: tf.Tensor
    positive_cosine: tf.Tensor
    negative_cosine: tf.Tensor
    uniformity: tf.Tensor


def agreement(
    za: tf.Tensor, zb: tf.Tensor, *, temperature: float, l2_normalize: bool, tile: int | None = None
) -> Agreement:
    """Measures the agreement of views; no gradient flows through it.

    Args:
        za: (b, d) projections of the first views.
        zb: (b, d) projections of the second views, in the same order.
        temperature: divisor of the similarities.
        l2_normalize: whether to take cosine similarities for the accuracy and the entropy.
        tile: number of first views to compare at a time; None compares all at once.

    Returns:
        The means over this replica's first views.
    """
    projections.check_temperature(temperature)
    z = projections.stacked([za, zb], l2_normalize=l2_normalize)
    first, second = tf.split(tf.stop_gradient(z), 2)
    global_second = distribute.gather(second)  # (B, d)
    total = global_second.shape[0]
    lengths = None if l2_normalize else tf.norm(global_second, axis=1)  # (B,)
    b = za.shape[0]
    targets = distribute.replica_index() * b + tf.range(b)  # (b,) local rows of global_second

    def compare(rows: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        anchors, targets = rows
        s = tf.matmul(anchors / temperature, global_second, transpose_b=True)  # (t, B)
        hits = tf.equal(tf.argmax(s, 1, output_type=tf.int32), targets)
        probabilities = tf.nn.softmax(s)
        # sum p (log sum exp s - s), whose terms need no guard against log 0.
        entropy = tf.reduce_logsumexp(s, 1) - tf.reduce_sum(probabilities * s, 1)
        cosines = s * temperature
        if lengths is not None:
            product = tf.norm(anchors, axis=1, keepdims=True) * lengths
            cosines = tf.math.divide_no_nan(cosines, product)
        positive = tf.gather(cosines, targets, batch_dims=1)
        close = tf.exp(4 * cosines - 4)  # exp(-2 d^2), because d^2 is 2 - 2 cos.
        negatives = max(total - 1, 1)
        negative = (tf.reduce_sum(cosines, 1) - positive) / negatives
        near = (tf.reduce_sum(close, 1) - tf.exp(4 * positive - 4)) / negatives
        values = (hits, entropy, positive, negative, near)
        return tuple(tf.cast(value, tf.float32) for value in values)

    if tile is None or b <= tile:
        values = compare((first, targets))
    else:
        count = math.ceil(b / tile)
        tile = math.ceil(b / count)
        missing = count * tile - b
        padded = tf.pad(first, [[0, missing], [0, 0]]), tf.pad(targets, [[0, missing]])
        in_tiles = tuple(tf.reshape(x, [count, tile, *x.shape[1:]]) for x in padded)
        signature = (tf.TensorSpec([tile]),) * 5
        results = tf.map_fn(compare, in_tiles, fn_output_signature=signature, parallel_iterations=1)
        values = tuple(tf.reshape(x, [-1])[:b] for x in results)
    hits, entropy, positive, negative, near = (tf.reduce_mean(value) for value in values)
    near = distribute.all_reduce_sum(near) / distribute.num_replicas()
    # Rounding of the differences above may give 0 or less.
    uniformity = tf.math.log(tf.maximum(near, np.exp(-8.0)))
    return Agreement(hits, entropy, positive, negative, uniformity)


def num_negatives(global_batch: int, *, num_views: int = 2, negatives: str = "both") -> int:
    """Returns the number of negatives of a view: v (B - 1), or B - 1 of one side.

    Args:
        global_batch: B.
        num_views: v.
        negatives: as for `nt_xent`.
    """
    return (num_views if negatives == "both" else 1) * (global_batch - 1)


def chance_level(
    global_batch: int, *, num_views: int = 2, negatives: str = "both", decoupled: bool = False
) -> float:
    """Returns the NT-Xent of projections that are all equal.

    It is the logarithm of the number of views in a denominator: the negatives, and the v - 1
    positives unless they are decoupled. Arguments are those of `num_negatives` and `nt_xent`.
    """
    count = num_negatives(global_batch, num_views=num_views, negatives=negatives)
    return float(np.log(count if decoupled else count + num_views - 1))
