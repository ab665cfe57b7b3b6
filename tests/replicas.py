"""Runs a loss of views on one replica and on several, dealt out: what tests of losses share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simclr_tf import distribute

# (views (v, b, d), labels (b,)) of one replica -> (), whose mean over replicas is the loss.
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def strategy(replicas: int) -> tf.distribute.Strategy:
    """Returns a strategy over so many virtual CPUs."""
    if replicas == 1:
        return tf.distribute.OneDeviceStrategy("/cpu:0")
    return distribute.virtual_cpu_strategy(replicas)


def value_and_gradient(
    loss: Loss, views: np.ndarray, labels: np.ndarray, *, replicas: int = 1
) -> tuple[float, np.ndarray]:
    """Returns the mean loss and its gradient by all views (v, B, d), as a training step has it."""
    on = strategy(replicas)
    parts = np.split(views, replicas, axis=1), np.split(labels, replicas)
    dealt = [
        on.experimental_distribute_values_from_function(
            lambda context, of=of: tf.constant(of[context.replica_id_in_sync_group])
        )
        for of in parts
    ]

    def of_replica(views: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(views)
            share = loss(views, labels) / replicas
        return share, tape.gradient(share, views)

    shares, gradients = tf.function(lambda: on.run(of_replica, tuple(dealt)))()
    local = on.experimental_local_results
    return float(sum(local(shares))), np.concatenate(local(gradients), axis=1)


def slopes(value: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Returns the gradient of a float64 function by central differences."""
    found = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        nudge = np.zeros_like(x)
        nudge[index] = step
        found[index] = (value(x + nudge) - value(x - nudge)) / (2 * step)
    return found
