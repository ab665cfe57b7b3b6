"""Runs a frozen network over a split, each example exactly once."""

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
    """Outputs of the network for a split.

    Attributes:
        features: (n, f) float32.
        logits: (n, c) float32 of the linear head, or None without one.
        labels: (n,) int32, -1 where there is none.
        pixels: (n, s * s * 3) float32, the images at `MAX_PIXEL_SIDE` or smaller; None unless
            requested.
    """

    features: np.ndarray
    logits: np.ndarray | None
    labels: np.ndarray
    pixels: np.ndarray | None


# Largest side of images in the linear evaluation of raw pixels, which is slow for larger ones.
MAX_PIXEL_SIDE = 32


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
    labelled_only: bool = False,
    with_pixels: bool = False,
    what: str = "features",
) -> Extracted:
    """Runs the network in inference mode over a split, in its stored order.

    Args:
        model: the network; its variables must not change, which is checked.
        source: the opened data set.
        split: name of a split of the data set.
        batch_size: images at a time.
        limit: stops after this many examples; None takes all.
        labelled_only: leaves out the examples without a label.
        with_pixels: whether to return the pixels too, for the linear evaluation of raw pixels.
        what: name of the work in the progress line.

    Returns:
        One row per example.

    Raises:
        RuntimeError: if a variable of the network changed, which would be a bug in this package.
    """
    before = fingerprint(model)
    forward = tf.function(model.infer, reduce_retracing=True, autograph=model.needs_autograph)
    count = source.num_examples(split)
    batch_size = min(batch_size, count)  # The last batch is padded: a larger one wastes memory.
    batches = pipeline.evaluation_batches(
        source,
        split,
        batch_size=batch_size,
        image_size=model.architecture.image_size,
        labelled_only=labelled_only,
    )
    count = count if limit is None else min(limit, count)
    batches = batches.take(math.ceil(count / batch_size))
    batches_of_rows: list[dict[str, np.ndarray]] = []
    done = 0
    with console.Progress(f"{what} of {split}", count) as progress:
        for batch in batches:
            mask = batch["mask"].numpy()
            outputs = {name: x.numpy()[mask] for name, x in forward(batch["image"]).items()}
            outputs["labels"] = batch["label"].numpy()[mask]
            if with_pixels:
                outputs["pixels"] = _raw(batch["image"]).numpy()[mask]
            batches_of_rows.append(outputs)
            done = min(count, done + int(mask.sum()))
            progress.update(done)
    if fingerprint(model) != before:
        raise RuntimeError("The network changed while features were extracted from it.")
    joined = {
        name: np.concatenate([rows[name] for rows in batches_of_rows])[:count]
        for name in batches_of_rows[0]
    }
    return Extracted(
        joined["features"], joined.get("logits"), joined["labels"], joined.get("pixels")
    )


def _raw(images: tf.Tensor) -> tf.Tensor:
    """Returns (b, s * s * 3) pixels of images (b, h, w, 3), at `MAX_PIXEL_SIDE` or smaller."""
    if images.shape[1] > MAX_PIXEL_SIDE:
        images = tf.image.resize(images, [MAX_PIXEL_SIDE, MAX_PIXEL_SIDE], "area")
    return tf.reshape(images, [images.shape[0], -1])
