"""How a classifier learns from labels: of images with one label each, and of those with several."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import numpy as np
import tensorflow as tf

from simclr_tf.losses import classification


@dataclasses.dataclass(frozen=True)
class LabelTerm:
    """The loss of a classifier, and how often it is right.

    Attributes:
        losses: function: logits (n, c), labels (n,) or (n, c) -> (n,) losses. Labels below 0 are
            not known; the losses of images without any are finite.
        scores: function: the same -> (n,) float32, how right each image is, from 0 to 1.
        metrics: names of the means of both.
    """

    losses: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    scores: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    metrics: tuple[str, str]


def one_label(label_smoothing: float = 0.0, weights: np.ndarray | None = None) -> LabelTerm:
    """Returns the term of images with one label: cross-entropy, and accuracy.

    Args:
        label_smoothing: see `classification.cross_entropy`.
        weights: (c,) weights of the classes; None for equal ones.
    """

    def losses(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        classes = tf.maximum(labels, 0)
        found = classification.cross_entropy(logits, classes, label_smoothing=label_smoothing)
        return found if weights is None else found * tf.gather(weights, classes)

    return LabelTerm(losses, hits, ("train/supervised_loss", "train/supervised_acc"))


def several_labels(weights: np.ndarray | None = None) -> LabelTerm:
    """Returns the term of images that may have several: binary cross-entropies, and overlap.

    Args:
        weights: see `classification.binary_cross_entropy`.
    """

    def losses(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return classification.binary_cross_entropy(logits, labels, weights)

    return LabelTerm(losses, jaccard, ("train/supervised_loss", "train/supervised_jaccard"))


def hits(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns (n,) float32, 1 where the largest entry of logits (n, c) is at the label."""
    return tf.cast(tf.equal(tf.argmax(logits, 1, output_type=labels.dtype), labels), tf.float32)


def jaccard(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns (n,) float32 overlap of the predicted labels and those of each image.

    That is the number of classes in both, divided by the number in one of them. Its mean is often
    called the accuracy of several labels. A class is predicted if it is more probable than not.
    Classes that are not known do not count. It is 1 if both have none.

    Args:
        logits: (n, c).
        labels: (n, c) int, see `data.indicators`.
    """
    predicted, shown = (logits > 0) & (labels >= 0), labels > 0
    both, either = (
        tf.reduce_sum(tf.cast(one, tf.float32), 1) for one in (predicted & shown, predicted | shown)
    )
    return tf.where(either > 0, both / tf.maximum(either, 1), 1.0)


def are_known(labels: tf.Tensor) -> tf.Tensor:
    """Returns (n,) bool, which images have labels (n,), or any of (n, c)."""
    return labels >= 0 if labels.shape.rank == 1 else tf.reduce_any(labels >= 0, 1)
