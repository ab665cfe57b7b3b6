"""The supervised contrastive loss of images that may show several classes (Zhang and Wu 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.losses import blocked, projections


def several_supcon(
    views: Sequence[tf.Tensor],
    labels: tf.Tensor,
    *,
    temperature: float,
    l2_normalize: bool = True,
    scale_by_temperature: bool = False,
    tile: int | None = None,
) -> tf.Tensor:
    """Computes MulSupCon (Zhang and Wu, AAAI 2024), weighted as by default in their code.

    Every class of a view is an anchor of its own, whose positives are the other views that show the
    class. For a view i of the classes Y(i), the other views P(i, y) that show y, and all other
    views A(i):

        sum_{y in Y(i)} -1/|P(i, y)| sum_{p in P(i, y)} log( exp(z_i.z_p / tau) /
                                                             sum_{a in A(i)} exp(z_i.z_a / tau) )

    So a positive has the weight sum_{y in Y(i) and Y(p)} 1/|P(i, y)|: the more classes it shares,
    and the rarer they are in the batch, the more it counts. The loss is the mean over all pairs of
    a view and one of its classes. With one class per image it is `supcon.supcon`. Their code
    compares views with a queue of a momentum encoder's; this does so with those of the batch.

    An image that shows none of the classes, or of which no label is known, has the other views of
    itself as its only positives, as one without a label has in `supcon`; in their code it is no
    anchor. A class that is not known (-1) is not shared.

    Args:
        views: v of (b, d), this replica's projections of the first views, the second, ...; v > 1.
        labels: (b, c) int, see `data.indicators`.
        temperature: tau, the divisor of the similarities; greater than 0.
        l2_normalize: whether to take cosine similarities.
        scale_by_temperature: whether to multiply the loss by tau, see `supcon.supcon`.
        tile: largest number of views in a tile of similarities; None computes all at once.

    Returns:
        () this replica's loss; its mean over replicas is the mean over the global batch.

    Raises:
        ValueError: if `temperature` is not positive or the shapes do not fit.
    """
    projections.check_temperature(temperature)
    if len(labels.shape) != 2 or labels.shape[0] != views[0].shape[0] or len(views) < 2:
        raise ValueError(
            f"labels must be ({views[0].shape[0]}, c), one row for each image of two or more views,"
            f" got {labels.shape} and {len(views)} views."
        )
    z = projections.stacked(views, l2_normalize=l2_normalize)  # (v * b, d)
    shown = tf.tile(tf.cast(labels > 0, z.dtype), [len(views), 1])  # (v * b, c)
    anchors = tf.maximum(tf.reduce_sum(shown, 1), 1)  # (v * b,) Of an image of none it is itself.
    log_denominators = _log_denominators(z, temperature, unit=l2_normalize, tile=tile)
    positives = _of_classes(z, shown) + _of_image(z, shown, len(views))
    losses = anchors * log_denominators - positives / temperature
    total = distribute.all_reduce_sum(tf.reduce_sum(anchors))
    loss = tf.reduce_sum(losses) * distribute.num_replicas() / total
    return loss * temperature if scale_by_temperature else loss


def _of_classes(z: tf.Tensor, shown: tf.Tensor) -> tf.Tensor:
    """Returns (v * b,) the sum over classes of the mean similarity to the positives of each.

    The similarities to all views of a class are one to the sum of these.

    Args:
        z: (v * b, d) this replica's views.
        shown: (v * b, c) 1 for the classes of each, else 0.
    """
    global_z, global_shown = distribute.gather(z), distribute.gather(shown)
    others = tf.reduce_sum(global_shown, 0) - 1  # (c,) |P(i, y)| of every view i that shows y.
    sums = tf.matmul(global_shown, global_z, transpose_a=True)  # (c, d)
    to_class = tf.matmul(z, sums, transpose_b=True)  # (v * b, c)
    to_itself = tf.reduce_sum(z * z, 1, keepdims=True)
    return tf.reduce_sum(shown * (to_class - to_itself) / tf.maximum(others, 1), 1)


def _of_image(z: tf.Tensor, shown: tf.Tensor, num_views: int) -> tf.Tensor:
    """Returns (v * b,) the mean similarity to the other views of an image that shows no class."""
    by_view = tf.reshape(z, [num_views, -1, z.shape[1]])
    others = (tf.reduce_sum(by_view, 0) - by_view) / (num_views - 1)  # (v, b, d)
    means = tf.reshape(tf.reduce_sum(by_view * others, 2), [-1])
    return tf.where(tf.reduce_any(shown > 0, 1), tf.zeros_like(means), means)


def _log_denominators(
    z: tf.Tensor, temperature: float, *, unit: bool, tile: int | None
) -> tf.Tensor:
    """Returns (v * b,) log of the sum of exp(similarity / tau) to all other views."""
    if tile is not None:
        return blocked.log_sum_exp(z, temperature=temperature, unit=unit, tile=tile)
    similarities = tf.matmul(z / temperature, distribute.gather(z), transpose_b=True)
    count = z.shape[0]
    rows = distribute.replica_index() * count + tf.range(count)
    is_itself = rows[:, tf.newaxis] == tf.range(similarities.shape[1])
    return projections.log_sum_exp(similarities, ~is_itself)
