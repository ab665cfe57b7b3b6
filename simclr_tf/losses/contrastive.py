"""Contrastive losses over the global batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from simclr_tf import distribute


class Contrast(NamedTuple):
    """A contrastive loss and what it says of the batch.

    Attributes:
        loss: () mean over this replica's 2b views.
        accuracy: () share of first views whose most similar second view is their own.
        entropy: () mean entropy, in nats, of the similarities of a first view to all B second
            views; at most ln B.
    """

    loss: tf.Tensor
    accuracy: tf.Tensor
    entropy: tf.Tensor


def nt_xent(
    za: tf.Tensor, zb: tf.Tensor, *, temperature: float, l2_normalize: bool = True
) -> Contrast:
    """NT-Xent, the loss of SimCLR (Chen et al. 2020, Algorithm 1).

    Row i of `za` and of `zb` are the two views of image i. A view's positive is the other view
    of its image; its negatives are the 2B - 2 views of the other images of the *global* batch.
    A view is never compared with itself. All arithmetic is float32, or float64 if given that.

    Args:
        za: (b, d) projections of the first views, of any length.
        zb: (b, d) projections of the second views, in the same order.
        temperature: divides the similarities; greater than 0.
        l2_normalize: takes cosine similarities, as the paper does; else plain products.

    Returns:
        The loss, a mean over this replica's 2b views. Its mean over replicas is the paper's
        loss. (google-research/simclr adds the two sides: twice this value.)

    Raises:
        ValueError: if `temperature` is not positive or the shapes are not one static (b, d).
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}.")
    if za.shape != zb.shape or not za.shape.is_fully_defined() or len(za.shape) != 2:
        raise ValueError(f"views must both be of one static (b, d), got {za.shape} and {zb.shape}.")
    if za.dtype != tf.float64:
        za, zb = tf.cast(za, tf.float32), tf.cast(zb, tf.float32)
    if l2_normalize:
        za, zb = tf.math.l2_normalize(za, -1), tf.math.l2_normalize(zb, -1)
    all_views = distribute.gather(tf.stack([za, zb], 1))  # (B, 2, d)
    all_a, all_b = all_views[:, 0], all_views[:, 1]  # (B, d) each

    local, total = za.shape[0], all_a.shape[0]  # b, B
    me = distribute.replica_index() * local + tf.range(local)  # (b,) my rows in B
    is_me = tf.one_hot(me, total, on_value=True, off_value=False)  # (b, B)

    def one_side(
        z: tf.Tensor, same_side: tf.Tensor, other_side: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        across = tf.matmul(z, other_side, transpose_b=True) / temperature  # (b, B) positive at me
        within = tf.matmul(z, same_side, transpose_b=True) / temperature  # (b, B) itself at me
        # -inf, not a large number: exact in every dtype.
        within = tf.where(is_me, tf.constant(-np.inf, within.dtype), within)
        positive = tf.reduce_sum(tf.where(is_me, across, 0), 1)  # (b,)
        return tf.reduce_logsumexp(tf.concat([across, within], 1), 1) - positive, across

    side_a, across = one_side(za, all_a, all_b)
    side_b, _ = one_side(zb, all_b, all_a)
    loss = tf.reduce_mean((side_a + side_b) / 2)
    across = tf.stop_gradient(across)
    hits = tf.equal(tf.argmax(across, 1, output_type=tf.int32), me)
    shares = tf.nn.softmax(across)  # (b, B)
    entropy = -tf.reduce_sum(shares * tf.math.log(shares + 1e-30), 1)  # (b,)
    return Contrast(loss, tf.reduce_mean(tf.cast(hits, tf.float32)), tf.reduce_mean(entropy))


def chance_level(global_batch: int) -> float:
    """Returns ln(2B - 1), the NT-Xent of projections that tell nothing apart."""
    return float(np.log(2 * global_batch - 1))
