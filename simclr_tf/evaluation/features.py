"""Runs a frozen network over a split, each example exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses
import hashlib
import math
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import console, multi_worker
from simclr_tf.data import evaluation_images, pipeline, policies, sources
from simclr_tf.evaluation import label_free
from simclr_tf.evaluation import thumbnails as thumbnails_lib
from simclr_tf.keras_api import keras
from simclr_tf.models import simclr


@dataclasses.dataclass(frozen=True)
class Extracted:
    """Outputs of the network for a split.

    Attributes:
        features: (n, f) float32.
        logits: (n, c) float32 of the linear head, or None without one.
        labels: (n,) int32, -1 where there is none; (n, c), see `data.indicators`, of images that
            may have several.
        positions: (n,) int32, of the examples in the stored order of the split.
        pixels: (n, s * s * 3) float32, the images at `MAX_PIXEL_SIDE` or smaller; None unless
            requested.
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


# Changes images (b, s, s, 3), given their positions (b,).
Change = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# Runs the network on a batch, on all replicas.
Compiled = Callable[[dict[str, tf.Tensor]], dict[str, Any]]
# Largest side of images in the linear evaluation of raw pixels, which is slow for larger ones.
MAX_PIXEL_SIDE = 32
# Images whose views are made at a time, if the replicas divide it.
_VIEWED_AT_ONCE = 32


def fingerprint(model: keras.Model) -> str:
    """Returns a hash over every bit of every variable, moving averages included."""
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


def extract(
    model: simclr.SimCLR,
    source: sources.Source,
    split: str,
    *,
    batch_size: int,
    strategy: tf.distribute.Strategy | None = None,
    limit: int | None = None,
    labelled_only: bool = False,
    with_pixels: bool = False,
    with_projection: bool = False,
    change: Change | None = None,
    with_content: bool = False,
    thumbnail_seed: int | None = None,
    compiled: Compiled | None = None,
    what: str = "features",
    shown: bool = True,
) -> Extracted:
    """Runs the network in inference mode over a split, in its stored order.

    Args:
        model: the network; its variables must not change, which is checked.
        source: the opened data set.
        split: name of a split of the data set.
        batch_size: images at a time, over all replicas.
        strategy: the strategy of the network, whose replicas split each batch; None for one device.
        limit: stops after this many examples; None takes all.
        labelled_only: leaves out the examples without a label.
        with_pixels: whether to return the pixels too, for the linear evaluation of raw pixels.
        with_projection: whether to return the output of the projection head too.
        change: changes the images before the network sees them. It is given images (b, s, s, 3) and
            their positions (b,) in the stored order of the split, which are -1 for padding.
        with_content: whether to return a fingerprint of the encoded images too.
        thumbnail_seed: returns thumbnails too, of images that this seed draws if there are many;
            None for none.
        compiled: what `compile_forward` returned for the same network, strategy, outputs and
            change, if several splits are extracted; None compiles it, which is slow.
        what: name of the work in the progress line.
        shown: whether to show the progress.

    Returns:
        One row per example.

    Raises:
        RuntimeError: if a variable of the network changed, which would be a bug in this package.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    before = fingerprint(model)
    count = source.num_examples(split)
    # The last batch is padded: a larger one wastes memory.
    batch_size = replicas * math.ceil(min(batch_size, count) / replicas)
    batches = evaluation_images.batches(
        source,
        split,
        batch_size=batch_size,
        image_size=model.architecture.image_size,
        labelled_only=labelled_only,
        with_content=with_content,
        num_shards=multi_worker.num_workers(strategy),
        shard=multi_worker.worker_index(strategy),
    )
    count = count if limit is None else min(limit, count)
    batches = batches.take(math.ceil(count / batch_size))
    compiled = compiled or compile_forward(
        model,
        strategy,
        with_pixels=with_pixels,
        with_projection=with_projection,
        with_thumbnails=thumbnail_seed is not None,
        change=change,
    )
    collector = thumbnails_lib.Collector(source.num_examples(split), thumbnail_seed or 0)
    parts: list[dict[str, np.ndarray]] = []
    done = 0
    with console.Progress(f"{what} of {split}", count, shown=shown) as progress:
        for rows in _rows_of_batches(compiled, batches, strategy):
            if "thumbnail" in rows:
                collector.add(rows["position"], rows.pop("thumbnail"))
            parts.append(rows)
            done = min(count, done + len(rows["features"]))
            progress.update(done)
    if fingerprint(model) != before:
        raise RuntimeError("The network changed while features were extracted from it.")
    joined = {name: np.concatenate([rows[name] for rows in parts])[:count] for name in parts[0]}
    optional = {name: joined.get(name) for name in ("logits", "pixels", "projection", "content")}
    return Extracted(
        features=joined["features"],
        labels=joined["label"],
        positions=joined["position"],
        thumbnails=None if thumbnail_seed is None else collector.collected(count),
        **optional,
    )


def compile_forward(
    model: simclr.SimCLR,
    strategy: tf.distribute.Strategy,
    *,
    with_pixels: bool = False,
    with_projection: bool = False,
    with_thumbnails: bool = False,
    change: Change | None = None,
) -> Compiled:
    """Returns the function from a batch to all that is extracted from it, see `extract`.

    The replicas split the batch, whose "image" (b, s, s, 3) becomes the outputs of the network.
    What else it holds is returned as it is. Of several workers, each gets what all of them extract.
    """

    def forward(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = dict(model.infer(images))
        if with_projection:
            outputs["projection"] = model.projection_head(outputs["features"], training=False)[-1]
        if with_pixels:
            outputs["pixels"] = _raw(images)
        if with_thumbnails:
            outputs["thumbnail"] = thumbnails_lib.of_batch(images)
        return outputs

    def on_replica(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        rest = {name: x for name, x in batch.items() if name != "image"}
        images = batch["image"]
        if change is not None:
            images = change(images, batch["position"])
        return multi_worker.gather({**forward(images), **rest})

    return tf.function(
        lambda batch: strategy.run(on_replica, (batch,)),
        reduce_retracing=True,
        autograph=model.needs_autograph,
    )


def extract_views(
    model: simclr.SimCLR,
    source: sources.Source,
    split: str,
    policy: policies.Policy,
    *,
    images: int,
    num_views: int,
    seed: int,
    strategy: tf.distribute.Strategy | None = None,
    compiled: Compiled | None = None,
    shown: bool = True,
) -> label_free.Views | None:
    """Runs the network in inference mode over random views of images that a seed draws.

    Args:
        model: the network.
        source: the opened data set.
        split: name of a split of the data set.
        policy: the operations that make the views.
        images: number of images, of all if the split has fewer.
        num_views: v.
        seed: seed of the images and of their views.
        strategy: the strategy of the network; None for one device.
        compiled: what `compile_forward` returned with `with_projection`; None compiles it.
        shown: whether to show the progress.

    Returns:
        The outputs, each image once; None if there are fewer than two images.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    images = min(images, source.num_examples(split))
    if images < 2:
        return None
    # Views depend on the batch. After the first epoch images come again, which are cut off.
    batch = replicas * math.ceil(_VIEWED_AT_ONCE / replicas)
    batches = pipeline.train_batches(
        source, split, policy, batch_size=batch, num_views=num_views, seed=seed
    ).take(math.ceil(images / batch))
    side = model.architecture.image_size

    workers, worker = multi_worker.num_workers(strategy), multi_worker.worker_index(strategy)

    @tf.autograph.experimental.do_not_convert
    def one_after_another(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        of_worker = tf.split(batch["views"], workers)[worker]
        return {"image": tf.reshape(of_worker, [-1, side, side, 3])}

    compiled = compiled or compile_forward(model, strategy, with_projection=True)
    parts: list[dict[str, np.ndarray]] = []
    with console.Progress(f"views of {split}", images, shown=shown) as progress:
        for rows in _rows_of_batches(compiled, batches.map(one_after_another), strategy):
            parts.append(rows)
            progress.update(min(len(parts) * batch, images))
    widths = {name: parts[0][name].shape[1] for name in ("features", "projection")}
    features, projection = (
        np.concatenate([rows[name] for rows in parts]).reshape(len(parts) * batch, num_views, -1)[
            :images
        ]
        for name, width in widths.items()
    )
    return label_free.Views(features, projection)


def _rows_of_batches(
    compiled: Compiled, batches: tf.data.Dataset, strategy: tf.distribute.Strategy
) -> Iterator[dict[str, np.ndarray]]:
    """Yields what `compile_forward` extracts from each batch, whose size the replicas divide.

    Rows whose "mask" is False are removed. Of several workers, each is given its rows of every
    batch, and yields those of all.
    """
    for batch in multi_worker.distributed(batches, strategy):
        rows = multi_worker.local_rows(strategy, compiled(batch))
        mask = rows.pop("mask", None)
        yield rows if mask is None else {name: x[mask] for name, x in rows.items()}


def _raw(images: tf.Tensor) -> tf.Tensor:
    """Returns (b, s * s * 3) pixels of images (b, h, w, 3), at `MAX_PIXEL_SIDE` or smaller."""
    if images.shape[1] > MAX_PIXEL_SIDE:
        images = tf.image.resize(images, [MAX_PIXEL_SIDE, MAX_PIXEL_SIDE], "area")
    return tf.reshape(images, [images.shape[0], -1])
