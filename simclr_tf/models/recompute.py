"""Trading time for memory: activations that are made again when the gradient needs them."""

from __future__ import annotations

from collections.abc import Callable
import itertools

import tensorflow as tf

from simclr_tf.models import batch_norm

Function = Callable[[tf.Tensor], tf.Tensor]


def recomputed(function: Function) -> Function:
    """Returns the same function, of which only input and output stay in memory (Chen et al. 2016).

    The backward pass runs it a second time, on the same batch, so batch norm finds the same
    statistics; its moving averages follow in the first run alone.

    Args:
        function: of one tensor; its variables must exist. Good for one forward pass: take a new
            one for the next.
    """
    runs = itertools.count()

    def run(x: tf.Tensor) -> tf.Tensor:
        if next(runs) == 0:
            return function(x)
        with batch_norm.averages_following(0.0):
            return function(x)

    return tf.recompute_grad(run)
