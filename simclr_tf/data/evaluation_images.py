"""From encoded examples to the images that evaluations read, each example once."""

from __future__ import annotations

import math

import tensorflow as tf

from simclr_tf import pixel_format
from simclr_tf.data import crops, decode, in_memory, iterators, sources

_LARGEST = 2**63 - 1
_SMALL = 128  # pixels of a side


@tf.autograph.experimental.do_not_convert
def batches(
    source: sources.Source,
    split: str,
    *,
    batch_size: int,
    image_size: int,
    labelled_only: bool = False,
    with_content: bool = False,
    num_shards: int = 1,
    shard: int = 0,
) -> tf.data.Dataset:
    """Streams a split once, every example exactly once; the last batch is padded and masked.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.
        batch_size: images per batch over all hosts.
        image_size: side of the images that the encoder sees.
        labelled_only: leaves out the examples without a label.
        with_content: whether to add a fingerprint of the encoded images.
        num_shards: number of hosts; each makes its rows of every batch, and all of them make the
            same number of batches.
        shard: index of this host.

    Returns:
        A data set of {"image": (b, s, s, c) float32 in [0, 1], "label": (b,) int32, or (b, c) of
        several, "position": (b,) int32 in the stored order of the split, "mask": (b,) bool}, with
        mask False on padding, and if requested "content" (b,) int64, equal for equal encoded
        images.
    """
    in_chunks = _are_small_pngs(source)

    def prepare(position: tf.Tensor, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        if in_chunks:
            pixels = in_memory.decode_chunk(source, example["image"])
            images = crops.evaluation_image(pixels, image_size)
        else:
            images = decoded(example["image"], image_size, source.pixels)
        prepared = {
            "image": images,
            "label": tf.cast(example["label"], tf.int32),
            "position": tf.cast(position, tf.int32),
            "mask": position >= 0,
        }
        if with_content:
            prepared["content"] = tf.strings.to_hash_bucket_fast(example["image"], _LARGEST)
        return prepared

    label_shape = [len(source.class_names or ())] if source.several_labels else []
    blank = {
        "image": tf.zeros([image_size, image_size, source.pixels.channels]),
        "label": tf.constant(-1, shape=label_shape),
        "position": tf.constant(-1),
        "mask": False,
    }
    if with_content:
        blank["content"] = tf.constant(0, tf.int64)
    padding = tf.data.Dataset.from_tensors(blank)
    examples = source.examples(split).enumerate()
    if labelled_only:
        examples = examples.filter(lambda position, example: tf.reduce_any(example["label"] >= 0))
    if num_shards > 1:
        examples = _rows_of_host(examples, batch_size, num_shards, shard)
    examples = examples.batch(in_memory.CHUNK) if in_chunks else examples
    examples = examples.map(prepare, num_parallel_calls=iterators.CORES)
    examples = examples.unbatch() if in_chunks else examples
    batch_size //= num_shards
    # Of more padding than it takes to fill the last batch, the rest is dropped.
    examples = examples.concatenate(padding.repeat(batch_size - 1))
    made = examples.batch(batch_size, drop_remainder=True)
    if not labelled_only:
        count = math.ceil(source.num_examples(split) / (batch_size * num_shards))
        made = made.apply(tf.data.experimental.assert_cardinality(count))
    return iterators.without_tuning(made.prefetch(tf.data.AUTOTUNE))


@tf.autograph.experimental.do_not_convert
def spread(
    source: sources.Source, split: str, *, images: int, batch_size: int, image_size: int
) -> tf.data.Dataset:
    """Streams some images of a split, at equal distances in its stored order.

    Of images that are stored class after class, these are of all classes; only they are decoded.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.
        images: number of images; all if there are fewer.
        batch_size: images per batch; the last batch may have fewer.
        image_size: side of the images that the encoder sees.

    Returns:
        A data set of {"image": (b, s, s, c) float32 in [0, 1], "label": (b,) int32, "position":
        (b,) int32 in the stored order of the split}.
    """
    count = source.num_examples(split)
    wanted = min(images, count)

    def chosen(position: tf.Tensor, example: dict[str, tf.Tensor]) -> tf.Tensor:
        del example
        return (position + 1) * wanted // count > position * wanted // count

    def prepare(position: tf.Tensor, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {
            "image": decoded(example["image"], image_size, source.pixels),
            "label": tf.cast(example["label"], tf.int32),
            "position": tf.cast(position, tf.int32),
        }

    examples = source.examples(split).enumerate().filter(chosen)
    made = examples.map(prepare, num_parallel_calls=iterators.CORES).batch(batch_size)
    return iterators.without_tuning(made.prefetch(tf.data.AUTOTUNE))


def _are_small_pngs(source: sources.Source) -> bool:
    """Returns whether many images are decoded at a time, which takes half of the time.

    Of larger images, a call would need much memory.
    """
    small = all(side is not None and side <= _SMALL for side in source.image_shape)
    return small and source.kind == "png" and source.pixels.is_rgb


def _rows_of_host(
    examples: tf.data.Dataset, batch_size: int, num_shards: int, shard: int
) -> tf.data.Dataset:
    """Returns the (position, example) of a host: its rows of every batch, none of them decoded.

    The last batch is filled with copies of the first example, whose position is -1.
    """
    padding = examples.take(1).map(lambda _, example: (tf.constant(-1, tf.int64), example))
    rows = batch_size // num_shards
    padded = examples.concatenate(padding.repeat(batch_size - 1))
    own = padded.batch(batch_size, drop_remainder=True).map(
        lambda *batch: tf.nest.map_structure(lambda x: x[shard * rows : (shard + 1) * rows], batch)
    )
    return own.unbatch()


def decoded(
    encoded: tf.Tensor, image_size: int, pixels: pixel_format.PixelFormat = pixel_format.RGB
) -> tf.Tensor:
    """Returns an encoded image () as evaluation sees it, (s, s, c) float32 in [0, 1]."""
    image = decode.decode_image(encoded) if pixels.is_rgb else crops.unit_image(encoded, pixels)
    image = crops.evaluation_image(image, image_size)
    return tf.ensure_shape(image, [image_size, image_size, pixels.channels])
