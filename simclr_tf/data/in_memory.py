"""Keeps the images of a split in memory: decoded if all have one size, encoded otherwise.

They are looked up by their position in the stored order, so that the order of an epoch is the one
in which its images would be read from the files.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.data import decode, iterators, sources, stored

# Images that are decoded by one call.
CHUNK = 64


def num_bytes(source: sources.Source, split: str) -> int:
    """Estimates the memory that keeping the images of a split takes at its peak.

    `table` reads them in parts and then copies these into one, so there are two copies meanwhile.
    """
    if not has_one_size(source):
        return 2 * source.num_bytes(split)
    height, width = source.image_shape
    assert height is not None and width is not None
    pixel = source.pixels.channels * tf.as_dtype(source.pixels.dtype).size
    return 2 * source.num_examples(split) * height * width * pixel


def has_one_size(source: sources.Source) -> bool:
    """Returns whether all images are known to have one size, so that they are kept decoded."""
    return None not in source.image_shape


def decode_images(
    source: sources.Source, encoded: tf.Tensor, *, with_pillow: bool = True
) -> tf.Tensor:
    """Decodes (b,) images of a data set whose images have one size; returns (b, h, w, c)."""
    height, width = source.image_shape
    assert height is not None and width is not None
    if not source.pixels.is_rgb:
        return stored.decode_batch(encoded, (height, width), source.pixels, with_python=with_pillow)
    return decode.decode_batch(encoded, (height, width), source.kind, with_pillow=with_pillow)


@tf.autograph.experimental.do_not_convert
def table(source: sources.Source, split: str, *, with_pillow: bool = True) -> tf.data.Dataset:
    """Returns a data set whose only element holds all examples of a split.

    They are read when it is first used, and stay in memory as long as it exists.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.
        with_pillow: as for `decode.decode_image`.

    Returns:
        A data set of {"image": (n, h, w, c), or (n,) string, encoded, if the sizes are
        unknown; "label": (n,) or (n, c) int64}, in the stored order.
    """
    examples = source.examples(split).map(
        lambda example: {"image": example["image"], "label": example["label"]}
    )
    chunks = examples.batch(CHUNK)
    if has_one_size(source):

        def decoded(chunk: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            images = decode_chunk(source, chunk["image"], with_pillow=with_pillow)
            return {**chunk, "image": images}

        chunks = chunks.map(decoded, num_parallel_calls=iterators.CORES, deterministic=True)
    return chunks.rebatch(source.num_examples(split)).cache()


def decode_chunk(
    source: sources.Source, encoded: tf.Tensor, *, with_pillow: bool = True
) -> tf.Tensor:
    """Decodes at most `CHUNK` images (b,) of one size; returns (b, h, w, c)."""
    # A number that is known lets several be decoded in one iteration; copies of the first fill up.
    count = tf.shape(encoded)[0]
    filled = tf.concat([encoded, tf.repeat(encoded[:1], CHUNK - count)], axis=0)
    filled = tf.ensure_shape(filled, [CHUNK])
    return decode_images(source, filled, with_pillow=with_pillow)[:count]  # (count, h, w, c)


def look_up(chunks: tf.data.Dataset, kept: tf.data.Dataset) -> tf.data.Dataset:
    """Replaces the positions of images in the stored order by the images.

    Args:
        chunks: data set of (positions (k,) in the stream, positions (k,) in the stored order).
        kept: the result of `table`.

    Returns:
        A data set of (positions (k,) in the stream, examples), as `table` holds them.
    """

    # Not a zip: a tf.data service would divide the images, too, between its workers.
    def looked_up(positions: tf.Tensor, indices: tf.Tensor) -> tf.data.Dataset:
        def rows(columns: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
            return positions, {name: tf.gather(all_, indices) for name, all_ in columns.items()}

        return kept.map(rows)

    return chunks.flat_map(looked_up)
