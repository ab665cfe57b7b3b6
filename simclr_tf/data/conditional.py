"""Applies operations to some images of a batch, or in rare branches of a graph."""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import TypeVar

import tensorflow as tf

_Tensors = TypeVar("_Tensors")


def where(flags: tf.Tensor, changed: Callable[[], tf.Tensor], images: tf.Tensor) -> tf.Tensor:
    """Replaces the images whose flag is True by those that `changed` returns.

    For several images `changed` is computed for all, and some are selected, which is fastest in a
    batch. For a single image it is computed only if needed, which saves work on a CPU that
    processes one view at a time.

    Args:
        flags: (b,) bool; a static b of 1 makes a branch.
        changed: function that returns the result of the operation on all images.
        images: (b, ...).

    Returns:
        (b, ...).
    """
    if flags.shape[0] == 1:
        return tf.cond(flags[0], changed, lambda: images)
    return choose(flags, changed(), images)


def apply_if_any(flags: tf.Tensor, changed: Callable[[], _Tensors], images: _Tensors) -> _Tensors:
    """Returns the result of `changed`, which must not change images whose flag is False.

    Like `where`, for operations whose parameters already depend on the flag: a single image skips
    the operation if its flag is False.
    """
    if flags.shape[0] == 1:
        return tf.cond(flags[0], changed, lambda: images)
    return changed()


def choose(flags: tf.Tensor, images: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Selects image i from `images` if flag i is True, else from `others`; shapes are equal."""
    # Version 1 copies whole images, while version 2 broadcasts the flags: three times as fast.
    return tf.compat.v1.where(flags, images, others)


def in_one_op(function: Callable[..., tf.Tensor], *args: tf.Tensor) -> tf.Tensor:
    """Calls a function in such a way that it is one op of the graph.

    A branch that is not taken still costs time for each of its ops, so a rare one should have few.
    The function is traced once for all graphs, which saves most of the time to build the input; so
    it must be one of a module, not one that a call defines.
    """
    if tf.executing_eagerly():
        return function(*args)
    return _op_of(function)(*args)


@functools.cache
def _op_of(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    attributes = {"_noinline": True}
    return tf.function(function, autograph=False, experimental_attributes=attributes)
