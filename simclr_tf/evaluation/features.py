"""Running a frozen network over a split, each example exactly once."""

from __future__ import annotations

import dataclasses
import hashlib
import math

import numpy as np
import tensorflow as tf

from simclr_tf import console
from simclr_tf.data import pipeline, sources
from simclr_tf.keras_api import keras
from simclr_tf.models import simclr


@dataclasses.dataclass(frozen=True)
class Extracted:
    """A split as the network sees it.

    Attributes:
        features: (n, f) float32.
        logits: (n, c) float32 of the linear head, or None without one.
        labels: (n,) int32, -1 where there is none.
        pixels: (n, s * s * 3) float32, the images at `RAW_SIDE` or smaller; None unless asked for.
    """

    features: np.ndarray
    logits: np.ndarray | None
    labels: np.ndarray
    pixels: np.ndarray | None


# Side of the images whose raw pixels are probed; more would only be slower.
RAW_SIDE = 32


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
    limit: int | None = None,
    with_pixels: bool = False,
    what: str = "features",
) -> Extracted:
    """Runs the network in inference mode over a split, in its stored order.

    Args:
        model: whose encoder and linear head; not changed by a bit, which is checked.
        source: the opened data set.
        split: of it.
        batch_size: images at a time.
        limit: stops after this many examples; None takes all.
        with_pixels: keeps the images too, for the probe on raw pixels.
        what: names the work in the progress line.

    Returns:
        One row per example.

    Raises:
        RuntimeError: if the network changed, which would be a fault of ours.
    """
    before = fingerprint(model)
    forward = _forward(model)
    batches = pipeline.evaluation_batches(
        source, split, batch_size=batch_size, image_size=model.architecture.image_size
    )
    count = source.num_examples(split)
    if limit is not None and limit < count:
        batches, count = batches.take(math.ceil(limit / batch_size)), limit
    parts: list[dict[str, np.ndarray]] = []
    done = 0
    with console.Progress(f"{what} of {split}", count) as progress:
        for batch in batches:
            mask = batch["mask"].numpy()
            outputs = {name: x.numpy()[mask] for name, x in forward(batch["image"]).items()}
            outputs["labels"] = batch["label"].numpy()[mask]
            if with_pixels:
                outputs["pixels"] = _raw(batch["image"]).numpy()[mask]
            parts.append(outputs)
            done = min(count, done + int(mask.sum()))
            progress.update(done)
    if fingerprint(model) != before:
        raise RuntimeError("The network changed while features were extracted from it.")
    rows = {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}
    return Extracted(rows["features"], rows.get("logits"), rows["labels"], rows.get("pixels"))


def _forward(model: simclr.SimCLR):  # type: ignore[no-untyped-def]
    @tf.function(reduce_retracing=True)
    def forward(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return model.infer(images)

    return forward


def _raw(images: tf.Tensor) -> tf.Tensor:
    """Returns (b, s * s * 3) pixels of images (b, h, w, 3), at `RAW_SIDE` or smaller."""
    if images.shape[1] > RAW_SIDE:
        images = tf.image.resize(images, [RAW_SIDE, RAW_SIDE], "area")
    return tf.reshape(images, [images.shape[0], -1])
