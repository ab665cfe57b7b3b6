"""From encoded examples to the batches that training reads; `evaluation_images` has the others.

    examples (bytes, label, name) -> decode -> views -> {"views": (b, v, s, s, c), "label": (b,)}

The training stream is endless and a function of (seed, position): epoch e shuffles with
(seed, e), the example at position i of the stream draws its crop from (seed, i), and the batch of
step k draws the rest from (seed, k). So a run that resumes at step k sees the same batches as one
that was never interrupted.

What follows the decoding can be done here, on the host, or inside the training step, on the
device: then batches hold the input of `views_of_batch`.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import tensorflow as tf

from simclr_tf.data import (
    balanced,
    crops,
    in_memory,
    iterators,
    policies,
    random,
    sources,
    streams,
    views,
)

# The most images whose views are made by one call: enough to make its fixed cost negligible.
_MAX_CHUNK = 256
_AUTOTUNE = tf.data.AUTOTUNE
# Constants for `random.derive_seed`: each gives an independent random stream. `streams` has the
# others.
_CROPS, _DISTORTIONS, _SERVED_DISTORTIONS = 1, 2, 3


# AutoGraph has nothing to convert in this package, and looking for it takes seconds.
@tf.autograph.experimental.do_not_convert
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
    table: tf.data.Dataset | None = None,
    augment_on: str = "host",
    data_service: str | None = None,
    with_pillow: bool = True,
    by_class: balanced.ByClass | None = None,
    samples_per_class: int = 0,
) -> tf.data.Dataset:
    """Streams batches of random views without end.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.
        policy: the operations that make the views, and their settings.
        batch_size: B, images per step over all hosts.
        num_views: v, views per image.
        seed: seed of the order and of the views.
        start_step: the first step to make, as after a resume.
        num_shards: number of hosts; each makes B / num_shards images of every batch, one after
            another in the order of the batch. The views do not depend on it.
        shard: index of this host.
        cache: whether to keep the images in memory, see `in_memory`. The batches are the same.
        table: the images that are kept, the result of `in_memory.table`; None reads them again.
        augment_on: "host", or "device" to leave the views to `views_of_batch`.
        data_service: address of a tf.data service, grpc://HOST:PORT, whose workers do the work.
            Each worker takes whole epochs, so epochs overlap, in an order set by timing.
        with_pillow: as for `decode.decode_image`; False if the input is made on other machines.
        by_class: the images of the split by class, for class-balanced batches.
        samples_per_class: m, images of each class of such a batch; see `balanced.batch_of`.

    Returns:
        A data set of {"views": (b, v, s, s, c) float32 in [0, 1], "label": (b,) int32}; for the
        device, the input of `views_of_batch`.
    """
    source = source.with_pixels(policy.pixels)
    host = _Host(seed, batch_size, num_shards, shard, served=data_service is not None)
    if by_class is not None:
        stream = streams.balanced_batches(
            by_class, samples_per_class, batch_size, seed=seed, skip=start_step
        )
    else:
        in_order = streams.positions if cache else streams.epochs
        stream = in_order(source, split, seed=seed, skip=start_step * batch_size)
    if num_shards > 1:
        stream = stream.filter(lambda position, _: host.makes(position))
    if cache:
        if table is None:
            table = in_memory.table(source, split, with_pillow=with_pillow)
        stream = in_memory.look_up(stream.batch(host.chunk_size, drop_remainder=True), table)
    one_size = in_memory.has_one_size(source)
    if not one_size:
        decode_crops = _decode_crops(policy, num_views, seed, with_pillow=with_pillow)
        # The workers of a tf.data service have their own number of cores, and tune it.
        stream = (stream.unbatch() if cache else stream).map(
            decode_crops, num_parallel_calls=_AUTOTUNE if data_service else iterators.CORES
        )
    if not (cache and one_size):
        stream = stream.batch(host.chunk_size, drop_remainder=True)

    def finish(positions: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        batch = {**_without_names(batch), **host.draws(positions[0])}
        if one_size and not cache:
            batch["image"] = in_memory.decode_images(
                source, batch["image"], with_pillow=with_pillow
            )
        if augment_on == "device":
            return batch
        return views_of_batch(batch, policy, num_views=num_views, total=host.total, one_by_one=True)

    stream = stream.map(finish, num_parallel_calls=_AUTOTUNE, deterministic=True)
    if host.chunk_size < host.batch_size_per_host:
        stream = stream.rebatch(host.batch_size_per_host, drop_remainder=True)
    if data_service:
        stream = stream.apply(_served_by(data_service))
    return iterators.without_tuning(stream.prefetch(_AUTOTUNE))


@dataclasses.dataclass(frozen=True)
class _Host:
    """The images of every batch that a host makes, and the seeds of their views.

    Attributes:
        seed: seed of the run.
        batch_size: B.
        num_shards: number of hosts.
        shard: index of this host.
        served: whether a tf.data service makes the batches, which then begin at any position.
    """

    seed: int
    batch_size: int
    num_shards: int
    shard: int
    served: bool

    @property
    def batch_size_per_host(self) -> int:
        """Images of a batch on this host."""
        return self.batch_size // self.num_shards

    @property
    def total(self) -> int:
        """Images for which the views are drawn together, see `draws`."""
        return self.batch_size_per_host if self.served else self.batch_size

    def makes(self, position: tf.Tensor) -> tf.Tensor:
        """Returns () bool, whether this host makes the views of the example at a position ()."""
        return position % self.batch_size // self.batch_size_per_host == self.shard

    @property
    def chunk_size(self) -> int:
        """Images whose views are made by one call.

        A large batch is made in chunks, so that it takes little more memory than its result.
        Chunks that begin at any position would not fit together.
        """
        size = self.batch_size_per_host
        if self.served or size <= _MAX_CHUNK:
            return size
        return max(k for k in range(1, _MAX_CHUNK + 1) if size % k == 0)

    def draws(self, first: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what the views of a chunk are drawn from.

        Args:
            first: () int64, position of its first example.

        Returns:
            {"seed": (chunk, 2) int32, the same for every image of the batch, so that it can be
            split between hosts and replicas; "index": (chunk,) int32, of each image in the global
            batch, or in the host's if it is served}.
        """
        if self.served:
            number = first * self.num_shards + self.shard
            seed = random.derive_seed(self.seed, _SERVED_DISTORTIONS, number)
            start = tf.constant(0)
        else:
            seed = random.derive_seed(self.seed, _DISTORTIONS, first // self.batch_size)
            start = tf.cast(first % self.batch_size, tf.int32)
        return {
            "seed": tf.tile(seed[tf.newaxis], [self.chunk_size, 1]),
            "index": start + tf.range(self.chunk_size),
        }


def views_of_batch(
    batch: dict[str, tf.Tensor],
    policy: policies.Policy,
    *,
    num_views: int,
    total: int,
    one_by_one: bool = False,
) -> dict[str, tf.Tensor]:
    """Makes the views of a batch, or of a replica's images of it; the same on host and device.

    Args:
        batch: {"image": (b, h, w, c) as stored or "crops": (b, v, s, s, c) float32, "seed": (b, 2)
            int32, all rows equal, "index": (b,) int32 of each image in the whole batch, "label"}.
        policy: the operations that make the views, and their settings.
        num_views: v.
        total: images in the whole batch.
        one_by_one: whether each image passes through all operations before the next, which is
            fastest on a CPU.

    Returns:
        {"views": (b, v, s, s, c) float32 in [0, 1], "label": (b,) int32}.
    """
    seed = batch["seed"][0]
    subset = None if batch["index"].shape[0] == total else views.Subset(batch["index"], total)
    if "crops" in batch:
        made = views.distort_views(
            batch["crops"], seed, policy, subset=subset, one_by_one=one_by_one
        )
    else:
        made = views.make_views(
            batch["image"],
            seed,
            policy,
            num_views=num_views,
            subset=subset,
            one_by_one=one_by_one,
        )
    return {"views": made, "label": batch["label"]}


def _served_by(address: str) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Returns the transformation that lets a tf.data service make a data set."""
    dynamic = tf.data.experimental.service.ShardingPolicy.DYNAMIC
    return tf.data.experimental.service.distribute(dynamic, address)


def _decode_crops(  # type: ignore[no-untyped-def]
    policy: policies.Policy, num_views: int, seed: int, *, with_pillow: bool
):
    """Returns the function that decodes the crops of an image of any size."""

    def prepare(
        position: tf.Tensor, example: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        seed_of_crops = random.derive_seed(seed, _CROPS, position)
        cropped = crops.crop_encoded(
            example["image"],
            seed_of_crops,
            policy,
            num_views=num_views,
            with_pillow=with_pillow,
        )
        return position, {"crops": cropped, "label": example["label"]}

    return prepare


def _without_names(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Drops the names, and casts the labels to int32."""
    rest = {key: value for key, value in batch.items() if key != "name"}
    return {**rest, "label": tf.cast(batch["label"], tf.int32)}
