"""Runs a frozen network over a split, each example exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses
import hashlib
import math

import numpy as np
import tensorflow as tf

from simclr_tf import console, multi_worker
from simclr_tf.data import evaluation_images, pipeline, policies, sources
from simclr_tf.evaluation import forward as forward_lib
from simclr_tf.evaluation import label_free
from simclr_tf.evaluation import thumbnails as thumbnails_lib
from simclr_tf.keras_api import keras


@dataclasses.dataclass(frozen=True)
class Extracted:
    """Outputs of the network for a split.

    Attributes:
        features: (n, f) float32.
        logits: (n, c) float32 of the linear head, or None without one.
        labels: (n,) int32, -1 where there is none; (n, c), see `data.indicators`, of images that
            may have several.
        positions: (n,) int32, of the examples in the stored order of the split.
        pixels: (n, s * s * 3) float32, the images at `forward.MAX_PIXEL_SIDE` or smaller; None
            unless requested.
        projection: (n, d) float32 of the projection head; None unless requested.
        content: (n,) int64, equal for equal encoded images; None unless requested.
        thumbnails: small copies of some of the images; None unless requested.
    """

    features: np.ndarray
    logits: np.ndarray | None
    labels: np.ndarray
    positions: np.ndarray
    pixels: np.ndarray | None
    projection: np.ndarray | None = None
    content: np.ndarray | None = None
    thumbnails: thumbnails_lib.Thumbnails | None = None


# Images whose views are made at a time, if the replicas divide it.
_VIEWED_AT_ONCE = 32


def fingerprint(model: keras.Model) -> str:
    """Returns a hash over every bit of every variable, moving averages included."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


def extract(
    forward: forward_lib.Forward,
    source: sources.Source,
    split: str,
    *,
    batch_size: int,
    limit: int | None = None,
    labelled_only: bool = False,
    progress: str | None = "features",
) -> Extracted:
    """Runs a network in inference mode over a split, in its stored order.

    Args:
        forward: the network and what to extract; its variables must not change, which is checked.
        source: the opened data set.
        split: name of a split of the data set.
        batch_size: images at a time, over all replicas.
        limit: stops after this many examples; None takes all.
        labelled_only: leaves out the examples without a label.
        progress: name of the work in the progress line; None shows no progress.

    Returns:
        One row per example.

    Raises:
        RuntimeError: if a variable of the network changed, which would be a bug in this package.
    """
    before = fingerprint(forward.model)
    count = source.num_examples(split)
    limit = count if limit is None else min(limit, count)
    batches = _batches(forward, source, split, batch_size, limit, labelled_only=labelled_only)
    seed = forward.outputs.thumbnail_seed
    collector = thumbnails_lib.Collector(count, seed or 0)
    parts: list[dict[str, np.ndarray]] = []
    done = 0
    with console.Progress(f"{progress} of {split}", limit, shown=progress is not None) as bar:
        for rows in _rows_of_batches(forward, batches):
            if "thumbnail" in rows:
                collector.add(rows["position"], rows.pop("thumbnail"))
            parts.append(rows)
            done = min(limit, done + len(rows["features"]))
            bar.update(done)
    if fingerprint(forward.model) != before:
        raise RuntimeError("The network changed while features were extracted from it.")
    joined = {name: np.concatenate([rows[name] for rows in parts])[:limit] for name in parts[0]}
    optional = {name: joined.get(name) for name in ("logits", "pixels", "projection", "content")}
    return Extracted(
        features=joined["features"],
        labels=joined["label"],
        positions=joined["position"],
        thumbnails=None if seed is None else collector.collected(limit, forward.shown_channels()),
        **optional,
    )


def _batches(
    forward: forward_lib.Forward,
    source: sources.Source,
    split: str,
    batch_size: int,
    limit: int,
    *,
    labelled_only: bool,
) -> tf.data.Dataset:
    """Returns the batches that hold the first `limit` examples of a split."""
    replicas = forward.strategy.num_replicas_in_sync
    # The last batch is padded: a larger one wastes memory.
    batch_size = replicas * math.ceil(min(batch_size, source.num_examples(split)) / replicas)
    batches = evaluation_images.batches(
        source.with_pixels(forward.model.architecture.pixels),
        split,
        batch_size=batch_size,
        image_size=forward.model.architecture.image_size,
        labelled_only=labelled_only,
        with_content=forward.outputs.content,
        num_shards=multi_worker.num_workers(forward.strategy),
        shard=multi_worker.worker_index(forward.strategy),
    )
    return batches.take(math.ceil(limit / batch_size))


def extract_views(
    forward: forward_lib.Forward,
    source: sources.Source,
    split: str,
    policy: policies.Policy,
    *,
    images: int,
    num_views: int,
    seed: int,
    shown: bool = True,
) -> label_free.Views | None:
    """Runs a network in inference mode over random views of images that a seed draws.

    Args:
        forward: the network, whose projection is extracted.
        source: the opened data set.
        split: name of a split of the data set.
        policy: the operations that make the views.
        images: number of images, of all if the split has fewer.
        num_views: v.
        seed: seed of the images and of their views.
        shown: whether to show the progress.

    Returns:
        The outputs, each image once; None if there are fewer than two images.
    """
    images = min(images, source.num_examples(split))
    if images < 2:
        return None
    replicas = forward.strategy.num_replicas_in_sync
    # Views depend on the batch. After the first epoch images come again, which are cut off.
    batch = replicas * math.ceil(_VIEWED_AT_ONCE / replicas)
    batches = pipeline.train_batches(
        source, split, policy, batch_size=batch, num_views=num_views, seed=seed
    ).take(math.ceil(images / batch))
    parts: list[dict[str, np.ndarray]] = []
    with console.Progress(f"views of {split}", images, shown=shown) as progress:
        for rows in _rows_of_batches(forward, batches.map(_one_after_another(forward))):
            parts.append(rows)
            progress.update(min(len(parts) * batch, images))
    features, projection = (
        np.concatenate([rows[name] for rows in parts]).reshape(
            len(parts) * batch, num_views, parts[0][name].shape[1]
        )[:images]
        for name in ("features", "projection")
    )
    return label_free.Views(features, projection)


def _one_after_another(
    forward: forward_lib.Forward,
) -> Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]:
    """Returns a function from a batch of views to the images of this worker, view after view."""
    side = forward.model.architecture.image_size
    channels = forward.model.architecture.pixels.channels
    workers = multi_worker.num_workers(forward.strategy)
    worker = multi_worker.worker_index(forward.strategy)

    @tf.autograph.experimental.do_not_convert
    def images_of(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        of_worker = tf.split(batch["views"], workers)[worker]
        return {"image": tf.reshape(of_worker, [-1, side, side, channels])}

    return images_of


def _rows_of_batches(
    forward: forward_lib.Forward, batches: tf.data.Dataset
) -> Iterator[dict[str, np.ndarray]]:
    """Yields what is extracted from each batch, whose size the replicas divide.

    Rows whose "mask" is False are removed. Of several workers, each is given its rows of every
    batch, and yields those of all.
    """
    for batch in multi_worker.distributed(batches, forward.strategy):
        rows = multi_worker.local_rows(forward.strategy, forward(batch))
        mask = rows.pop("mask", None)
        yield rows if mask is None else {name: x[mask] for name, x in rows.items()}
