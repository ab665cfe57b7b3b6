"""The training batches of a run: shuffled, augmented, and distributed to the replicas."""

from __future__ import annotations

import dataclasses
import functools

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, multi_worker, pixel_format
from simclr_tf.data import balanced, labels, pipeline
from simclr_tf.runs import builders, dataset, opening

Batch = dict[str, tf.Tensor]
_UNLABELLED = "an image of the batch has no label"


def open_by_class(config: config_lib.Config, data: dataset.Data) -> balanced.ByClass | None:
    """Opens the training images by class; None unless batches are balanced by class.

    Raises:
        UserError: if the images do not fit in memory, or there are too few of them.
    """
    if not config.samples_per_class:
        return None
    needed = balanced.needed_bytes(data.source, data.train_split)
    if needed:
        dataset.check_memory("samples_per_class", data.train_split, needed)
    with console.working("Listing the images by class"):
        images = balanced.open_by_class(data.source, data.train_split)
    note = balanced.check(
        images, batch_size=config.train_batch_size, samples_per_class=config.samples_per_class
    )
    if note:
        console.say(note)
    return images


@dataclasses.dataclass(frozen=True)
class Batches:
    """The endless stream of the training batches of a run.

    An element is {"views": (b, v, s, s, c), "label": (b,)}; see `pipeline.train_batches`. If the
    objective learns from labels, an image without one raises an error, see `is_unlabelled_error`.

    Attributes:
        run: the run.
        by_class: the result of `open_by_class`.
        start_step: step of the first batch.
        kept: how the images are kept in memory, see `kept_images.choose`; None if they are not.
        table: the images that are kept, see `in_memory.table`, if one host reads them.
    """

    run: opening.Run
    by_class: balanced.ByClass | None
    start_step: int
    kept: str | None = None
    table: tf.data.Dataset | None = None

    @functools.cached_property
    def whole(self) -> tf.data.Dataset:
        """Batches that one host makes alone. It takes seconds to build, so all readers share it."""
        return self._of_host(1, 0, self.table)

    def distributed(self) -> tf.distribute.DistributedDataset:
        """Returns the batches of all hosts, split among their replicas."""
        strategy = self.run.strategy
        per_replica = self.run.config.train_batch_size // strategy.num_replicas_in_sync
        # The host of a TPU may be another machine than this one, on which `whole` is.
        is_shared = not isinstance(strategy, tf.distribute.TPUStrategy)

        def host_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
            hosts = context.num_input_pipelines
            if hosts == 1 and is_shared:
                batches = self.whole
            else:
                batches = self._of_host(hosts, context.input_pipeline_id)
            if context.num_replicas_in_sync > hosts:
                # Views are made for the whole host and then split, so that they do not depend on
                # the number of replicas.
                batches = batches.rebatch(per_replica).prefetch(2 * context.num_replicas_in_sync)
            if hosts == 1:
                return batches
            # Otherwise the hosts would ask each other before each batch whether all have one, and
            # batches would have no static shape.
            return batches.apply(
                tf.data.experimental.assert_cardinality(tf.data.experimental.INFINITE_CARDINALITY)
            )

        return strategy.distribute_datasets_from_function(host_batches)

    def _of_host(
        self, num_shards: int, shard: int, table: tf.data.Dataset | None = None
    ) -> tf.data.Dataset:
        """Returns the part of each batch that a host makes."""
        run, config = self.run, self.run.config
        batches = pipeline.train_batches(
            run.data.source,
            run.data.train_split,
            builders.policy_of(config, run.architecture.pixels),
            batch_size=config.train_batch_size,
            num_views=run.num_views,
            seed=config.seed,
            start_step=self.start_step,
            num_shards=num_shards,
            shard=shard,
            cache=self.kept is not None,
            table=table,
            augment_on=config.resolved_augment_on,
            data_service=config.data_service,
            with_pillow=dataset.has_pillow(config),
            by_class=self.by_class,
            samples_per_class=config.samples_per_class,
        )
        checked = labels.known(run.data.source, run.data.train_split) is not None  # At the start.
        # An image that shows none of several classes is an example of none.
        if checked or not config.reads_labels or run.data.source.several_labels:
            return batches
        return batches.map(_check_labels)


@tf.autograph.experimental.do_not_convert
def _check_labels(batch: Batch) -> Batch:
    """Returns a batch, and fails if an image of it has no label."""
    check = tf.debugging.assert_non_negative(batch["label"], _UNLABELLED)
    with tf.control_dependencies([check]):
        return {name: tf.identity(value) for name, value in batch.items()}


def is_unlabelled_error(error: Exception) -> bool:
    """Returns whether an error is about an image without a label."""
    return _UNLABELLED in str(error)


def make_views(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    batch: Batch,
    pixels: pixel_format.PixelFormat = pixel_format.RGB,
) -> Batch:
    """Makes the views of a batch, or of some of its images, inside the training step."""
    total = config.train_batch_size
    if config.data_service is not None:
        total //= multi_worker.num_input_hosts(strategy)
    policy = builders.policy_of(config, pixels)
    return pipeline.views_of_batch(batch, policy, num_views=config.resolved_num_views, total=total)
