"""Helpers for tests of losses: values and gradients on one or several replicas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simclr_tf import distribute

# (views (v, b, d), labels (b,)) of one replica -> (); the loss is its mean over replicas.
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def strategy(replicas: int) -> tf.distribute.Strategy:
    """Returns a strategy over this many virtual CPUs."""
    if replicas == 1:
        return tf.distribute.OneDeviceStrategy("/cpu:0")
    return distribute.virtual_cpu_strategy(replicas)


def value_and_gradient(
    loss: Loss, views: np.ndarray, labels: np.ndarray, *, replicas: int = 1
) -> tuple[float, np.ndarray]:
    """Computes the mean loss and its gradient as a training step does.

    Args:
        loss: of one replica.
        views: (v, B, d), split among the replicas.
        labels: (B,), split among the replicas.
        replicas: number of replicas.

    Returns:
        The mean loss, and its gradient with respect to all views (v, B, d).
    """
    distribution = strategy(replicas)
    inputs = [
        distribution.experimental_distribute_values_from_function(
            lambda context, slices=slices: tf.constant(slices[context.replica_id_in_sync_group])
        )
        for slices in (np.split(views, replicas, axis=1), np.split(labels, replicas))
    ]

    def on_replica(views: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(views)
            scaled = loss(views, labels) / replicas
        return scaled, tape.gradient(scaled, views)

    run = tf.function(lambda: distribution.run(on_replica, tuple(inputs)), autograph=False)
    losses, gradients = run()
    local = distribution.experimental_local_results
    return float(sum(local(losses))), np.concatenate(local(gradients), axis=1)


def numerical_gradient(
    value: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-6
) -> np.ndarray:
    """Returns the gradient of a float64 function by central differences."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        offset = np.zeros_like(x)
        offset[index] = step
        gradient[index] = (value(x + offset) - value(x - offset)) / (2 * step)
    return gradient
