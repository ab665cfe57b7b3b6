"""Whether a name is among many others, as a function for graphs."""

from __future__ import annotations

from collections.abc import Callable, Collection

import tensorflow as tf

_BUCKETS = 2**63 - 1


def is_among(names: Collection[str]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function: name () string -> () bool, whether it is one of some names.

    The names are sorted by a hash, so that looking one up takes log n steps. It needs no resource
    of TensorFlow, such as a table, so the workers of a tf.data service can run it.

    Args:
        names: the names; at least one.
    """
    with tf.init_scope():  # Captured from outside; as constants they would enlarge the graph.
        unsorted = tf.constant(sorted(names))
        hashes = tf.strings.to_hash_bucket_fast(unsorted, _BUCKETS)
        order = tf.argsort(hashes)
        known, sorted_hashes = tf.gather(unsorted, order), tf.gather(hashes, order)
    last = len(names) - 1

    def contains(name: tf.Tensor) -> tf.Tensor:
        wanted = tf.strings.to_hash_bucket_fast(name, _BUCKETS)
        position = tf.searchsorted(sorted_hashes, wanted[tf.newaxis])[0]
        return known[tf.minimum(position, last)] == name

    return contains
