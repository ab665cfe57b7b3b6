"""From encoded examples to the batches that training and evaluation read.

    examples (bytes, label, name) -> decode -> views -> {"views": (b, v, s, s, 3), "label": (b,)}

The training stream is endless and a function of (seed, position): epoch e shuffles with
(seed, e), the example at position i of the stream draws its crop from (seed, i), and the batch of
step k draws the rest from (seed, k). So a run that resumes at step k goes on exactly where the
killed one would have gone.

What follows the decoding can be done here, on the host, or inside the training step, on the
device: then batches hold what `views_of_batch` makes views of.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from simclr_tf.data import balanced, crops, decode, policies, sources, views

# Images of which the views are made in one go, at most: enough that a call costs nothing.
_AT_ONCE = 256
# Images are decoded and prepared by as many threads as tf.data finds useful.
_AUTOTUNE = tf.data.AUTOTUNE
# Keeps the seeds of order, crops and distortions apart.
_ORDER, _CROPS, _DISTORTIONS, _SERVED_DISTORTIONS, _CLASSES = 0, 1, 2, 3, 4


def train_batches(
    source: sources.Source,
    split: str,
    policy: policies.Policy,
    *,
    batch_size: int,
    num_views: int,
    seed: int,
    start_step: int = 0,
    num_shards: int = 1,
    shard: int = 0,
    cache: bool = False,
    augment_on: str = "host",
    data_service: str | None = None,
    by_class: balanced.ByClass | None = None,
    samples_per_class: int = 0,
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
        cache: keeps the images in memory after the first pass: decoded where all have one size,
            encoded otherwise; see `cached_bytes`.
        augment_on: "host", or "device" to leave the views to `views_of_batch`.
        data_service: address of a tf.data service, grpc://HOST:PORT, whose workers do the work.
            Each worker takes whole epochs, so that epochs overlap, in an order set by timing.
        by_class: the images of the split by class, for class-balanced batches.
        samples_per_class: m, images of each class of such a batch; see `balanced.batch_of`.

    Returns:
        A data set of {"views": (b, v, s, s, 3) float32 in [0, 1], "label": (b,) int32}; for the
        device, in place of "views", what `views_of_batch` reads.
    """
    if by_class is None:
        stream = _stream(source, split, seed=seed, skip=start_step * batch_size, cache=cache)
    else:
        stream = _balanced(by_class, samples_per_class, batch_size, seed=seed, skip=start_step)
    if num_shards > 1:
        stream = stream.shard(num_shards, shard)
    host = _Host(seed, batch_size, num_shards, shard, served=data_service is not None)
    height, width = source.image_shape
    if height is None or width is None:
        decode_crops = _decode_crops(policy, num_views, seed)
        stream = stream.map(decode_crops, num_parallel_calls=_AUTOTUNE)
    stream = stream.batch(host.part, drop_remainder=True)

    def finish(positions: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        batch = {**_kept(batch), **host.draws(positions[0])}
        if height is not None and width is not None and not cache:
            shape = (height, width)
            batch["image"] = decode.decode_batch(batch["image"], shape, source.kind)
        if augment_on == "device":
            return batch
        return views_of_batch(batch, policy, num_views=num_views, total=host.local, one_by_one=True)

    stream = stream.map(finish, num_parallel_calls=_AUTOTUNE, deterministic=True)
    if host.part < host.local:
        stream = stream.rebatch(host.local, drop_remainder=True)
    if data_service:
        stream = stream.apply(
            tf.data.experimental.service.distribute(
                tf.data.experimental.service.ShardingPolicy.DYNAMIC, data_service
            )
        )
    return stream.prefetch(_AUTOTUNE)


@dataclasses.dataclass(frozen=True)
class _Host:
    """The share that a host has of every batch, and what its views are drawn from.

    Attributes:
        seed: of the run.
        batch_size: B.
        num_shards: hosts.
        shard: which of them this is.
        served: whether a tf.data service makes the batches, which then begin anywhere.
    """

    seed: int
    batch_size: int
    num_shards: int
    shard: int
    served: bool

    @property
    def local(self) -> int:
        """Images of a batch on this host."""
        return self.batch_size // self.num_shards

    @property
    def part(self) -> int:
        """Images of which the views are made together.

        A large batch is made in parts, so that it takes little more memory than itself; parts
        that begin anywhere would not fit together.
        """
        if self.served or self.local <= _AT_ONCE:
            return self.local
        return max(k for k in range(1, _AT_ONCE + 1) if self.local % k == 0)

    def draws(self, first: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what the part whose first example has this position is drawn from.

        "seed" (part, 2) is the same for every image of the batch, so that it can be dealt out to
        replicas; "place" (part,) is that of each image in the host's batch.
        """
        if self.served:
            seed = _fold(self.seed, _SERVED_DISTORTIONS, first * self.num_shards + self.shard)
            start = tf.constant(0)
        else:
            number = first // self.batch_size * self.num_shards + self.shard
            seed = _fold(self.seed, _DISTORTIONS, number)
            start = tf.cast(first // self.num_shards % self.local, tf.int32)
        return {
            "seed": tf.tile(seed[tf.newaxis], [self.part, 1]),
            "place": start + tf.range(self.part),
        }


def views_of_batch(
    batch: dict[str, tf.Tensor],
    policy: policies.Policy,
    *,
    num_views: int,
    total: int,
    one_by_one: bool = False,
) -> dict[str, tf.Tensor]:
    """Makes the views of a batch, or of a replica's part of it; the same on host and device.

    Args:
        batch: {"image": (b, h, w, 3) uint8 or "crops": (b, v, s, s, 3) float32, "seed": (b, 2)
            int32, all rows equal, "place": (b,) int32 of each image in the host's batch, "label"}.
        policy: how views are made.
        num_views: v.
        total: images in the host's batch.
        one_by_one: whether views go through their operations one after another, as a CPU wants it.

    Returns:
        {"views": (b, v, s, s, 3) float32 in [0, 1], "label": (b,) int32}.
    """
    seed = batch["seed"][0]
    part = None if batch["place"].shape[0] == total else views.Part(batch["place"], total)
    if "crops" in batch:
        made = views.distort_views(batch["crops"], seed, policy, part=part, one_by_one=one_by_one)
    else:
        made = views.make_views(
            batch["image"], seed, policy, num_views=num_views, part=part, one_by_one=one_by_one
        )
    return {"views": made, "label": batch["label"]}


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
        image = decode.decode_image(example["image"])
        image = crops.evaluation_image(image, image_size)  # (s, s, 3)
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


def _decode_crops(policy: policies.Policy, num_views: int, seed: int):  # type: ignore[no-untyped-def]
    """Returns the function that decodes the crops of an image of any size."""

    def prepare(
        position: tf.Tensor, example: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        for_crops = _fold(seed, _CROPS, position)
        cropped = crops.crop_encoded(example["image"], for_crops, policy, num_views=num_views)
        return position, {"crops": cropped, "label": example["label"]}

    return prepare


def _kept(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Leaves out names, and makes labels small."""
    kept = {name: value for name, value in batch.items() if name != "name"}
    return {**kept, "label": tf.cast(batch["label"], tf.int32)}


def _stream(
    source: sources.Source, split: str, *, seed: int, skip: int, cache: bool
) -> tf.data.Dataset:
    """Streams (position, example), epoch after epoch, each in its own order, from a position on.

    Its only source is the range of epochs, which a tf.data service deals out to its workers.
    """
    count = source.num_examples(split)
    first_epoch, within = divmod(skip, count)
    if cache:
        kept = _decoded(source, source.examples(split)).cache()

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = _fold(seed, _ORDER, epoch)
        if cache:
            seed_of_epoch = tf.cast(order[0], tf.int64)
            examples = kept.shuffle(count, seed=seed_of_epoch, reshuffle_each_iteration=False)
        else:
            examples = source.examples(split, order_seed=order)
        skipped = tf.where(epoch == first_epoch, tf.constant(within, tf.int64), 0)
        return examples.enumerate(epoch * count).skip(skipped)

    return tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(one_epoch)


def _balanced(
    images: balanced.ByClass, samples_per_class: int, batch_size: int, *, seed: int, skip: int
) -> tf.data.Dataset:
    """Streams (position, example) of class-balanced batches, from a step on."""

    def one_batch(step: tf.Tensor) -> tf.data.Dataset:
        numbers = balanced.batch_of(
            images,
            _fold(seed, _CLASSES, step),
            batch_size=batch_size,
            samples_per_class=samples_per_class,
        )
        return tf.data.Dataset.from_tensor_slices(numbers).enumerate(step * batch_size)

    def read(position: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        return position, images.read(number)

    numbered = tf.data.Dataset.range(skip, tf.int64.max).flat_map(one_batch)
    return numbered.map(read, num_parallel_calls=_AUTOTUNE, deterministic=True)


def cached_bytes(source: sources.Source, split: str) -> int:
    """Estimates what `cache` keeps of a split in memory."""
    height, width = source.image_shape
    if height is None or width is None:
        return source.num_bytes(split)
    return source.num_examples(split) * height * width * 3


def _decoded(source: sources.Source, examples: tf.data.Dataset) -> tf.data.Dataset:
    """Decodes examples whose images have one size; leaves others as they are."""
    if None in source.image_shape:
        return examples

    def decode_one(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        pixels = decode.decode_image(example["image"])
        return {**example, "image": tf.ensure_shape(pixels, [*source.image_shape, 3])}

    return examples.map(decode_one, num_parallel_calls=_AUTOTUNE, deterministic=True)


def _fold(seed: int, purpose: int, number: tf.Tensor) -> tf.Tensor:
    """Returns a (2,) int32 seed that is a function of all three."""
    root = tf.random.experimental.stateless_fold_in(tf.constant([seed, purpose]), 0)
    number = tf.cast(number, tf.int64)
    low = tf.cast(number % 2**31, tf.int32)
    high = tf.cast(number // 2**31, tf.int32)
    folded = tf.random.experimental.stateless_fold_in(root, low)
    return tf.random.experimental.stateless_fold_in(folded, high)
