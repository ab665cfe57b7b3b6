"""Checks in a graph whose errors are sentences for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def asserted(result: tf.Tensor, condition: tf.Tensor, message: Sequence[Any]) -> tf.Tensor:
    """Returns a tensor if a condition holds, and raises an error otherwise.

    Args:
        result: the tensor.
        condition: () bool.
        message: what the error says, texts and tensors.

    Raises:
        tf.errors.InvalidArgumentError: when the op runs, if the condition does not hold.
    """
    # tf.debugging.Assert adds a branch, which takes longer than the message.
    checked = tf.raw_ops.Assert(condition=condition, data=list(message), summarize=3)
    with tf.control_dependencies([] if checked is None else [checked]):
        return tf.identity(result)
