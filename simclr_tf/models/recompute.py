"""Recomputes activations in the backward pass, which saves memory and costs time."""

from __future__ import annotations

from collections.abc import Callable
import itertools

import tensorflow as tf

from simclr_tf.models import batch_norm

Function = Callable[[tf.Tensor], tf.Tensor]


def recomputed(function: Function) -> Function:
    """Returns the same function, keeping only its input and output in memory (Chen et al. 2016).

    The backward pass runs it a second time on the same batch, so batch norm computes the same
    statistics; only the first run updates the moving averages.

    Args:
        function: function of one tensor; its variables must exist.

    Returns:
        The function to call, for one forward pass only.
    """
    runs = itertools.count()

    def run(x: tf.Tensor) -> tf.Tensor:
        if next(runs) == 0:
            return function(x)
        with batch_norm.moving_average_scale(0.0):
            return function(x)

    return tf.recompute_grad(run)
