"""Recognises the examples of a stream that are left out, by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def is_not_one_of(names: Sequence[str]) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """Returns a function: an example -> whether its name is not among these.

    Hashes are compared, by binary search: there may be a million names.
    """

    def hash_of(name: Any) -> tf.Tensor:
        return tf.strings.to_hash_bucket_fast(name, 2**63 - 1)

    with tf.init_scope():  # Captured from outside; as a constant it would enlarge the graph.
        hashes = tf.sort(hash_of(tf.constant(list(names))))

    def is_not_one(example: dict[str, tf.Tensor]) -> tf.Tensor:
        own = hash_of(example["name"])
        index = tf.searchsorted(hashes, own[tf.newaxis])[0]
        return hashes[tf.minimum(index, len(names) - 1)] != own

    return is_not_one
