"""How large the gradient of a contrastive loss is at easy and at hard positives (SupCon, 3.2.3)."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.losses import contrastive


def norms(
    cosine: float, *, images: int, dimensions: int, temperature: float, seed: int
) -> tf.Tensor:
    """Returns the norms of the gradients of NT-Xent at random anchors with equal positives.

    The gradient is with respect to the projections before their normalisation, of length 1 here.
    For an anchor z with the positive p it contains p - (z.p) z, so it vanishes at easy positives,
    p = z, however uncertain the loss is.

    Args:
        cosine: similarity of every anchor and its positive, from -1 to 1.
        images: number of images in the batch; there are two views of each.
        dimensions: of the projections.
        temperature: that of the loss.
        seed: seed of the projections, uniform on the sphere.

    Returns:
        (images,) float32, for the first views; the loss is the sum over them, not the mean.
    """
    drawn = tf.random.stateless_normal([2, images, dimensions], [seed, 0])
    first = tf.math.l2_normalize(drawn[0], 1)
    across = drawn[1] - first * tf.reduce_sum(drawn[1] * first, 1, keepdims=True)
    across = tf.math.l2_normalize(across, 1)
    second = cosine * first + (1 - cosine**2) ** 0.5 * across
    with tf.GradientTape() as tape:
        tape.watch(first)
        loss = 2 * images * contrastive.nt_xent([first, second], temperature=temperature)
    return tf.norm(tape.gradient(loss, first), axis=1)
