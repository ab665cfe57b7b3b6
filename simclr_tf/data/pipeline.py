"""From encoded examples to the batches that training and evaluation read.

    examples (bytes, label, name) -> decode -> views -> {"views": (b, v, s, s, 3), "label": (b,)}

The training stream is endless and a function of (seed, position): epoch e shuffles with
(seed, e), the example at position i of the stream draws its crop from (seed, i), and the batch of
step k draws the rest from (seed, k). So a run that resumes at step k goes on exactly where the
killed one would have gone.
"""

from __future__ import annotations

import math

import tensorflow as tf

from simclr_tf.data import decode, sources, views

# Images are decoded and prepared by as many threads as tf.data finds useful.
_AUTOTUNE = tf.data.AUTOTUNE
# Keeps the seeds of order, crops and distortions apart.
_ORDER, _CROPS, _DISTORTIONS = 0, 1, 2


def train_batches(
    source: sources.Source,
    split: str,
    policy: views.Policy,
    *,
    batch_size: int,
    num_views: int,
    seed: int,
    start_step: int = 0,
    num_shards: int = 1,
    shard: int = 0,
    cache: bool = False,
) -> tf.data.Dataset:
    """Streams batches of random views without end.

    Args:
        source: the opened data set.
        split: of it, in tensorflow-datasets syntax.
        policy: how views are made.
        batch_size: B, images per step over all hosts.
        num_views: v, views per image.
        seed: of order and views.
        start_step: the first step to make, as after a resume.
        num_shards: hosts that share the work; each makes B / num_shards images of every batch.
        shard: which of them this is.
        cache: keeps the encoded images in memory after the first pass.

    Returns:
        A data set of {"views": (b, v, s, s, 3) float32 in [0, 1], "label": (b,) int32}.
    """
    stream = _stream(source, split, seed=seed, skip=start_step * batch_size, cache=cache)
    stream = stream.enumerate(start_step * batch_size).shard(num_shards, shard)
    local = batch_size // num_shards
    if None in source.image_shape:
        make, distort = _views_one_by_one(policy, num_views, seed), _tail_of_policy(policy)
        stream = stream.map(make, num_parallel_calls=_AUTOTUNE).batch(local, drop_remainder=True)
    else:
        stream = stream.map(_decode_one, num_parallel_calls=_AUTOTUNE)
        stream = stream.map(_with_shape(source.image_shape)).batch(local, drop_remainder=True)
        distort = _views_of_batch(policy, num_views)

    def finish(step: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        made = distort(batch["image"], _fold(seed, _DISTORTIONS, step * num_shards + shard))
        return {"views": made, "label": batch["label"]}

    stream = stream.enumerate(start_step).map(
        finish, num_parallel_calls=_AUTOTUNE, deterministic=True
    )
    return stream.prefetch(_AUTOTUNE)


def evaluation_batches(
    source: sources.Source, split: str, *, batch_size: int, image_size: int
) -> tf.data.Dataset:
    """Streams a split once, every example exactly once; the last batch is padded and masked.

    Args:
        source: the opened data set.
        split: of it, in tensorflow-datasets syntax.
        batch_size: images per batch.
        image_size: side of the images that the encoder sees.

    Returns:
        A data set of {"image": (b, s, s, 3) float32 in [0, 1], "label": (b,) int32,
        "mask": (b,) bool}, with mask False on padding.
    """

    def prepare(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image = tf.image.convert_image_dtype(decode.decode_image(example["image"]), tf.float32)
        image = views.evaluation_image(image, image_size)  # (s, s, 3)
        image = tf.ensure_shape(image, [image_size, image_size, 3])
        return {"image": image, "label": tf.cast(example["label"], tf.int32), "mask": True}

    padding = tf.data.Dataset.from_tensors(
        {
            "image": tf.zeros([image_size, image_size, 3]),
            "label": tf.constant(-1),
            "mask": False,
        }
    )
    count = source.num_examples(split)
    examples = source.examples(split).map(prepare, num_parallel_calls=_AUTOTUNE)
    examples = examples.concatenate(padding.repeat(-count % batch_size))
    return (
        examples.batch(batch_size, drop_remainder=True)
        .apply(tf.data.experimental.assert_cardinality(math.ceil(count / batch_size)))
        .prefetch(_AUTOTUNE)
    )


def _tail_of_policy(policy: views.Policy):  # type: ignore[no-untyped-def]
    """Returns the function of (crops, seed) that does what is left of a policy in the batch."""

    def distort(crops: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return views.distort_views(crops, seed, policy)

    return distort


def _views_of_batch(policy: views.Policy, num_views: int):  # type: ignore[no-untyped-def]
    def make(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        images = tf.image.convert_image_dtype(images, tf.float32)
        return views.make_views(images, seed, policy, num_views=num_views)

    return make


def _views_one_by_one(policy: views.Policy, num_views: int, seed: int):  # type: ignore[no-untyped-def]
    def make(position: tf.Tensor, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image = tf.image.convert_image_dtype(decode.decode_image(example["image"]), tf.float32)
        crops = views.crop_views(image, _fold(seed, _CROPS, position), policy, num_views=num_views)
        crops = tf.ensure_shape(crops, [num_views, policy.image_size, policy.image_size, 3])
        return {"image": crops, "label": tf.cast(example["label"], tf.int32)}

    return make


def _decode_one(position: tf.Tensor, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    del position  # Images of equal size draw their crops by the batch.
    image = decode.decode_image(example["image"])
    return {"image": image, "label": tf.cast(example["label"], tf.int32)}


def _with_shape(shape: tuple[int | None, int | None]):  # type: ignore[no-untyped-def]
    def pin(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**example, "image": tf.ensure_shape(example["image"], [*shape, 3])}

    return pin


def _stream(
    source: sources.Source, split: str, *, seed: int, skip: int, cache: bool
) -> tf.data.Dataset:
    """Streams epoch after epoch, each in its own order, from a position on."""
    count = source.num_examples(split)
    first_epoch, within = divmod(skip, count)
    if cache:
        kept = source.examples(split).cache()

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = _fold(seed, _ORDER, epoch)
        if cache:
            seed_of_epoch = tf.cast(order[0], tf.int64)
            return kept.shuffle(count, seed=seed_of_epoch, reshuffle_each_iteration=False)
        return source.examples(split, order_seed=order)

    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
    return epochs.flat_map(one_epoch).skip(within)


def _fold(seed: int, purpose: int, number: tf.Tensor) -> tf.Tensor:
    """Returns a (2,) int32 seed that is a function of all three."""
    root = tf.random.experimental.stateless_fold_in(tf.constant([seed, purpose]), 0)
    number = tf.cast(number, tf.int64)
    low = tf.cast(number % 2**31, tf.int32)
    high = tf.cast(number // 2**31, tf.int32)
    folded = tf.random.experimental.stateless_fold_in(root, low)
    return tf.random.experimental.stateless_fold_in(folded, high)
