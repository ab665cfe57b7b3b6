"""Endless streams of training examples in an order that a seed decides."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from simclr_tf.data import balanced, random, sources

# Constants for `random.derive_seed`: each gives an independent random stream. `pipeline` has the
# others.
_ORDER, _CLASSES = 0, 4
_AUTOTUNE = tf.data.AUTOTUNE


def epochs(source: sources.Source, split: str, *, seed: int, skip: int) -> tf.data.Dataset:
    """Streams (position, example), epoch after epoch, each in its own order.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.
        seed: seed of the run.
        skip: the position to start from.
    """

    def examples(order: tf.Tensor) -> tf.data.Dataset:
        return source.examples(split, order_seed=order)

    return _epochs(examples, source.num_examples(split), seed=seed, skip=skip)


def positions(source: sources.Source, split: str, *, seed: int, skip: int) -> tf.data.Dataset:
    """Streams (position, position in the stored order) of the examples that `epochs` has."""

    def positions_of(order: tf.Tensor) -> tf.data.Dataset:
        return source.positions(split, order_seed=order)

    return _epochs(positions_of, source.num_examples(split), seed=seed, skip=skip)


def _epochs(
    in_order: Callable[[tf.Tensor], tf.data.Dataset], count: int, *, seed: int, skip: int
) -> tf.data.Dataset:
    """Streams (position, element), epoch after epoch.

    The range of epochs is the only source of the stream: a tf.data service splits it between its
    workers.

    Args:
        in_order: function: seed (2,) -> the elements of an epoch in the order of that seed.
        count: elements of an epoch.
        seed: seed of the run.
        skip: the position to start from.
    """
    first_epoch, within = divmod(skip, count)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        elements = in_order(random.derive_seed(seed, _ORDER, epoch))
        skipped = tf.where(epoch == first_epoch, tf.constant(within, tf.int64), 0)
        return elements.enumerate(epoch * count).skip(skipped)

    return tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(one_epoch)


def balanced_batches(
    images: balanced.ByClass, samples_per_class: int, batch_size: int, *, seed: int, skip: int
) -> tf.data.Dataset:
    """Streams (position, example) of one class-balanced batch after another.

    Args:
        images: images of the training split.
        samples_per_class: m; see `balanced.batch_of`.
        batch_size: B.
        seed: seed of the run.
        skip: the step to start from.
    """

    def one_batch(step: tf.Tensor) -> tf.data.Dataset:
        indices = balanced.batch_of(
            images,
            random.derive_seed(seed, _CLASSES, step),
            batch_size=batch_size,
            samples_per_class=samples_per_class,
        )
        return tf.data.Dataset.from_tensor_slices(indices).enumerate(step * batch_size)

    def read(position: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        return position, images.read(index)

    batches = tf.data.Dataset.range(skip, tf.int64.max).flat_map(one_batch)
    return batches.map(read, num_parallel_calls=_AUTOTUNE, deterministic=True)
