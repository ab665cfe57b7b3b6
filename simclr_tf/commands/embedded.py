"""What embed, search and audit read of a folder of embeddings, its network and its images."""

from __future__ import annotations

from collections.abc import Iterable
import contextlib
import dataclasses
import os

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, pixel_format, text
from simclr_tf.data import evaluation_images, shown, sources
from simclr_tf.data import parts as parts_lib
from simclr_tf.embeddings import manifest as manifest_lib
from simclr_tf.embeddings import reading
from simclr_tf.evaluation import features
from simclr_tf.models import simclr
from simclr_tf.runs import arithmetic, directory, initialization
from simclr_tf.runs import weights as weights_lib


def with_arithmetic(
    config: config_lib.Config, strategy: tf.distribute.Strategy
) -> config_lib.Config:
    """Returns the settings to embed with, in which --mixed_precision is not "auto".

    All embeddings of a folder are of one arithmetic, so what it was begun in is kept.

    Args:
        config: the settings.
        strategy: the strategy whose replicas run the network.

    Raises:
        UserError: if the manifest of the folder is damaged.
    """
    assert config.embeddings is not None
    chosen = arithmetic.choose(config.mixed_precision, strategy)
    precision = chosen.mixed_precision
    stored = manifest_lib.read(config.embeddings)
    if config.mixed_precision == arithmetic.AUTO and stored is not None:
        precision = stored.mixed_precision
        if precision != chosen.mixed_precision:
            kept = arithmetic.Arithmetic(precision)
            console.say(f"{config.embeddings} was begun in {kept}, which is kept; here: {chosen}.")
    return dataclasses.replace(config, mixed_precision=precision)


def network(found: reading.Embeddings, weights: weights_lib.Weights | None) -> simclr.SimCLR:
    """Returns the network that embeddings were made with.

    Args:
        found: the embeddings.
        weights: the weights of --checkpoint; None opens those that the manifest names.

    Raises:
        UserError: if there are no such weights, or they are other ones.
    """
    manifest = found.manifest
    if weights is None:
        if not _exists(manifest.checkpoint):
            raise errors.UserError(
                f"The weights that {found.folder} was made with, {manifest.checkpoint}, are not "
                "there; set --checkpoint to where they are now."
            )
        weights = weights_lib.open_weights(manifest.checkpoint)
    stored = dict(manifest.architecture)
    names = stored["class_names"]
    stored["class_names"] = None if names is None else tuple(names)
    stored["pixels"] = pixels_of(found)
    architecture = simclr.Architecture(**stored)
    if weights.architecture is not None and not weights.from_reference:
        directory.check_same(architecture, weights.architecture, found.folder, flag="embeddings")
    model, _ = initialization.build(weights, architecture, mixed_precision=manifest.mixed_precision)
    fingerprint = features.fingerprint(model)
    if fingerprint != manifest.weights:
        raise errors.UserError(
            f"--embeddings={found.folder} was made with other weights than {weights.origin} "
            f"(fingerprint {manifest.weights[:16]} there, {fingerprint[:16]} here); set "
            f"--checkpoint to those, which were at {manifest.checkpoint}."
        )
    return model


def pixels_of(found: reading.Embeddings) -> pixel_format.PixelFormat:
    """Returns the pixels of the images that embeddings were made of."""
    stored = found.manifest.architecture.get("pixels")
    return pixel_format.RGB if stored is None else pixel_format.from_json(stored)


def _exists(checkpoint: str) -> bool:
    """Returns whether there is a checkpoint of a prefix, or a folder with weights."""
    return tf.io.gfile.exists(f"{checkpoint}.index") or tf.io.gfile.exists(checkpoint)


def features_of(model: simclr.SimCLR, images: Iterable[np.ndarray], batch_size: int) -> np.ndarray:
    """Returns the features (n, f) of images (s, s, c), in batches of one size."""
    step = tf.function(model.infer, autograph=model.needs_autograph, reduce_retracing=True)
    stacked = np.stack(list(images))
    batch_size = min(batch_size, len(stacked))
    parts = []
    for start in range(0, len(stacked), batch_size):
        batch = stacked[start : start + batch_size]
        padding = np.zeros((batch_size - len(batch), *stacked.shape[1:]), np.float32)
        outputs = step(tf.constant(np.concatenate([batch, padding])))
        parts.append(outputs["features"].numpy()[: len(batch)])
    return np.concatenate(parts)


def encoded_images(
    found: reading.Embeddings, config: config_lib.Config, rows: np.ndarray
) -> dict[int, tf.Tensor]:
    """Reads images of the embedded data set.

    Args:
        found: the embeddings.
        config: the settings; its data directory is used if it is set.
        rows: numbers of images.

    Returns:
        Number -> the encoded image, () string; without images that are no longer there.

    Raises:
        UserError: if the data set cannot be opened.
    """
    source = open_source(found, config)
    images: dict[int, tf.Tensor] = {}
    for split in dict.fromkeys(found.splits[rows]):
        here = [int(row) for row in rows if found.splits[row] == split]
        of_name = parts_lib.images(source, split, [found.names[row] for row in here])
        images.update({row: of_name[name] for row in here if (name := found.names[row]) in of_name})
    return images


def open_source(found: reading.Embeddings, config: config_lib.Config) -> sources.Source:
    """Opens the data set that was embedded.

    Raises:
        UserError: if it cannot be opened.
    """
    data = dict(found.manifest.data)
    if config.data_dir is not None:
        data["data_dir"] = config.data_dir
    return sources.open_source(**data)  # type: ignore[arg-type]


def shown_channels(found: reading.Embeddings, config: config_lib.Config) -> tuple[int, ...]:
    """Returns the channels to draw: those of --show_channels, or else of the run of the weights.

    Raises:
        ArgumentError: if there are no such channels.
    """
    wanted = config.show_channels
    if wanted is None:
        with contextlib.suppress(errors.UserError):  # Pictures do not need the run.
            run = directory.read_config(os.path.dirname(found.manifest.checkpoint))
            wanted = None if run is None else run.show_channels
    return shown.choose(pixels_of(found), wanted)


def drawn_images(
    found: reading.Embeddings, config: config_lib.Config, rows: Iterable[int]
) -> dict[int, np.ndarray]:
    """Returns images of the embedded data set as the encoder saw them, drawn as (s, s, 3).

    Returns:
        Number -> the image; without those that cannot be read, which a warning reports.
    """
    wanted = np.array(sorted(set(rows)), np.int64)
    pixels = pixels_of(found)
    channels = shown_channels(found, config)
    images: dict[int, np.ndarray] = {}
    try:
        for row, content in encoded_images(found, config, wanted).items():
            image = evaluation_images.decoded(content, found.manifest.image_size, pixels)
            images[row] = shown.as_rgb(image.numpy(), channels)
    except (errors.UserError, tf.errors.OpError) as error:
        console.warn(f"Images of {found.manifest.dataset} cannot be drawn ({text.reason(error)}).")
        return images
    if len(images) < len(wanted):
        console.warn(
            f"{len(wanted) - len(images):,} images of {found.manifest.dataset} are no longer there "
            "and are drawn grey; set --data_dir to where they are now."
        )
    return images


def grey(found: reading.Embeddings) -> np.ndarray:
    """Returns what is drawn for an image that cannot be read."""
    side = found.manifest.image_size
    return np.full((side, side, 3), 0.8, np.float32)


def output_folder(config: config_lib.Config, name: str) -> str:
    """Returns the folder to write to, --model_dir or one in --embeddings, which is made.

    Raises:
        UserError: if it cannot be written to.
    """
    if config.model_dir is not None:
        directory.ensure_writable(config.model_dir)
        return config.model_dir
    assert config.embeddings is not None
    folder = os.path.join(config.embeddings, name)
    directory.ensure_writable(folder, flag="embeddings")
    return folder
