"""Which images of a batch an operation changes: a selection for many, a branch for a lone one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

_Tensors = TypeVar("_Tensors")


def where(flags: tf.Tensor, changed: Callable[[], tf.Tensor], images: tf.Tensor) -> tf.Tensor:
    """Return what `changed` makes of the images whose flag is True, and the others as they are.

    Of several images all are changed and some are chosen, which a batch does best. A lone one is
    changed only if need be: so the host's cores, which take views one by one, save that work.

    Args:
        flags: (b,) bool; b must be known to be 1 for a branch.
        changed: returns what the operation makes of all the images.
        images: (b, ...).

    Returns:
        (b, ...).
    """
    if flags.shape[0] == 1:
        return tf.cond(flags[0], changed, lambda: images)
    return choose(flags, changed(), images)


def unless_idle(flags: tf.Tensor, changed: Callable[[], _Tensors], images: _Tensors) -> _Tensors:
    """Return what `changed` makes, which leaves the images whose flag is False as they are.

    As `where`, for operations whose parameters already tell one image from another.
    """
    if flags.shape[0] == 1:
        return tf.cond(flags[0], changed, lambda: images)
    return changed()


def choose(flags: tf.Tensor, images: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """Take image i from `images` where flag i is True, else from `others`; shapes are equal."""
    # Version 1 copies whole images, where version 2 broadcasts the flags: three times as fast.
    return tf.compat.v1.where(flags, images, others)
