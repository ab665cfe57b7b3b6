"""Losses of classifiers: cross-entropy of one label or of several, and distillation."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, *, label_smoothing: float = 0.0
) -> tf.Tensor:
    """Computes cross-entropy with label smoothing (Szegedy et al. 2016, sec. 7).

    Args:
        logits: (n, c).
        labels: (n,) int.
        label_smoothing: e; the target is 1 - e + e / c for the label and e / c for the others.

    Returns:
        (n,) in nats.

    Raises:
        ValueError: if `label_smoothing` is not in [0, 1).
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}.")
    label_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if not label_smoothing:
        return label_losses
    # (n,) the mean of the cross-entropies with each class.
    mean_losses = tf.reduce_logsumexp(logits, 1) - tf.reduce_mean(logits, 1)
    return (1 - label_smoothing) * label_losses + label_smoothing * mean_losses


def class_balanced_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """Returns the weights of classes by their effective numbers of images.

    A class of n images has the weight (1 - beta) / (1 - beta^n), and the weights have the mean 1
    (Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", and their code).

    Args:
        counts: (..., k) numbers of images, at least 1, of k classes that exclude each other.
        beta: from 0, all weights equal, to below 1, where they approach 1 / n.

    Returns:
        (..., k) float32.

    Raises:
        ValueError: if beta is not in [0, 1), or a class has no image.
    """
    if not 0 <= beta < 1 or np.any(np.asarray(counts) < 1):
        raise ValueError(f"beta must be in [0, 1) and counts at least 1, got {beta} and {counts}.")
    with np.errstate(divide="ignore"):  # The logarithm of 0 is -inf, whose weights are 1.
        # 1 - beta^n, precisely for a beta near 1.
        effective = -np.expm1(np.asarray(counts, np.float64) * np.log(beta))
    weights = (1 - beta) / effective
    return (weights / np.mean(weights, -1, keepdims=True)).astype(np.float32)


def binary_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, weights: np.ndarray | None = None
) -> tf.Tensor:
    """Computes the cross-entropy of images that may have several labels.

    It is the sum of the cross-entropies of the classes, each with the probability sigmoid(logit),
    and so the negative log likelihood of the labels if classes are independent given the image. A
    mean over classes would divide the gradient of each class by their number.

    Args:
        logits: (n, c).
        labels: (n, c) int, see `data.indicators`; a class with -1 adds nothing.
        weights: (c, 2) weights of images that show each class, and of those that do not; None for
            equal ones.

    Returns:
        (n,) in nats.

    Raises:
        ValueError: if the shapes differ.
    """
    if logits.shape != labels.shape:
        raise ValueError(
            f"logits and labels must have one shape, got {logits.shape} and {labels.shape}."
        )
    targets = tf.cast(labels > 0, logits.dtype)
    of_classes = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    if weights is not None:
        of_classes *= tf.where(labels > 0, weights[:, 0], weights[:, 1])
    return tf.reduce_sum(tf.where(labels >= 0, of_classes, 0), 1)


def distillation(student: tf.Tensor, teacher: tf.Tensor, *, temperature: float) -> tf.Tensor:
    """Computes SimCLRv2's distillation loss (Chen et al. 2020b, eq. 2).

    The teacher's class probabilities are the soft labels of the student:

        -sum_y P_teacher(y | x; tau) log P_student(y | x; tau),  P = softmax(logits / tau)

    Args:
        student: (n, c) logits, through which the gradient flows.
        teacher: (n, c) logits of a trained network.
        temperature: tau; greater than 0. The paper uses 0.1 for a student of the teacher's
            architecture and 1 for a smaller one. (The published notebook multiplies by tau^2, the
            paper does not.)

    Returns:
        () mean over the n examples, in nats.

    Raises:
        ValueError: if `temperature` is not positive or the shapes differ.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}.")
    if student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher must have the same classes, got logits of {student.shape} and "
            f"{teacher.shape}."
        )
    targets = tf.stop_gradient(tf.nn.softmax(teacher / temperature))
    return tf.reduce_mean(
        tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=student / temperature)
    )
