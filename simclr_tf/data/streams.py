"""Endless streams of training examples in an order that a seed decides."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.data import balanced, decode, random, sources

# Constants for `random.derive_seed`: each gives an independent random stream. `pipeline` has the
# others.
_ORDER, _CLASSES = 0, 4
_AUTOTUNE = tf.data.AUTOTUNE


def epochs(
    source: sources.Source,
    split: str,
    *,
    seed: int,
    skip: int,
    cache: bool,
    with_pillow: bool = True,
) -> tf.data.Dataset:
    """Streams (position, example), epoch after epoch, each in its own order.

    The range of epochs is the only source of the stream: a tf.data service splits it between its
    workers.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.
        seed: seed of the run.
        skip: the position to start from.
        cache: whether to keep the images in memory after the first pass; see `cached_bytes`.
        with_pillow: as for `decode.decode_image`.
    """
    count = source.num_examples(split)
    first_epoch, within = divmod(skip, count)
    if cache:
        cached = _decoded(source, source.examples(split), with_pillow).cache()

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = random.derive_seed(seed, _ORDER, epoch)
        if cache:
            seed_of_epoch = tf.cast(order[0], tf.int64)
            examples = cached.shuffle(count, seed=seed_of_epoch, reshuffle_each_iteration=False)
        else:
            examples = source.examples(split, order_seed=order)
        skipped = tf.where(epoch == first_epoch, tf.constant(within, tf.int64), 0)
        return examples.enumerate(epoch * count).skip(skipped)

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


def cached_bytes(source: sources.Source, split: str) -> int:
    """Estimates the memory that a cached split takes."""
    height, width = source.image_shape
    if height is None or width is None:
        return source.num_bytes(split)
    return source.num_examples(split) * height * width * 3


def _decoded(
    source: sources.Source, examples: tf.data.Dataset, with_pillow: bool
) -> tf.data.Dataset:
    """Decodes examples whose images have one size; leaves others encoded."""
    if None in source.image_shape:
        return examples

    def decode_one(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        pixels = decode.decode_image(example["image"], with_pillow=with_pillow)
        return {**example, "image": tf.ensure_shape(pixels, [*source.image_shape, 3])}

    return examples.map(decode_one, num_parallel_calls=_AUTOTUNE, deterministic=True)
