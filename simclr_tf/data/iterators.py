"""How the iterators of this package run: on how many threads, and without tf.data's tuning."""

from __future__ import annotations

import os

import tensorflow as tf

# Single images are decoded on every core. Without a number, untuned data sets use 16 threads at
# most, which is enough for calls that make the views of many images.
CORES = os.cpu_count() or 1


def without_tuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a data set whose iterators do not tune themselves in a thread of their own.

    TensorFlow waits for this thread when an iterator is deleted. The thread may miss the signal to
    stop, and then sleeps for about as long as it has lived, up to a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
