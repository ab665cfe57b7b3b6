"""Teachers for distillation: trained classifiers, of this program or google-research/simclr."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import os
from typing import Any

import tensorflow as tf

from simclr_tf import errors, paths, pixel_format, text
from simclr_tf.models import simclr
from simclr_tf.runs import initialization, weights


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained, frozen classifier.

    Attributes:
        logits: maps images (n, h, w, channels) in [0, 1] to (n, c) float32.
        num_classes: c.
        class_names: names of the classes; None if unknown.
        needs_autograph: whether `logits` needs AutoGraph, see `simclr.SimCLR.needs_autograph`.
        variables: its weights.
        pixels: the pixels of the images that it was trained on.
    """

    logits: Callable[[tf.Tensor], tf.Tensor]
    num_classes: int
    class_names: tuple[str, ...] | None
    needs_autograph: bool = False
    variables: Sequence[tf.Variable] = ()
    pixels: pixel_format.PixelFormat = pixel_format.RGB


def load(path: str, *, image_size: int) -> Teacher:
    """Opens a teacher. Call it in the scope of the strategy that will use it.

    Args:
        path: see `weights.open_weights`; or a SavedModel that computes logits.
        image_size: side of the images that the student sees.

    Raises:
        UserError: if there is no such model, or it has no classifier.
    """
    if tf.io.gfile.exists(os.path.join(path, "saved_model.pb")):
        return _load_saved_model(path, image_size)
    model, _ = initialization.build(weights.open_weights(path, flag="teacher"))
    class_names = model.architecture.class_names
    if class_names is None:
        raise errors.UserError(
            f"--teacher={path} has no classifier; name a run that was fine-tuned, or pretrained on "
            "labelled images."
        )
    model.trainable = False
    side = model.architecture.image_size

    def logits(images: tf.Tensor) -> tf.Tensor:
        if images.shape[1:3] != [side, side]:
            images = tf.clip_by_value(tf.image.resize(images, [side, side], "bicubic"), 0.0, 1.0)
        return model.classify(images, training=False)

    unnamed = class_names == simclr.placeholder_class_names(len(class_names))
    return Teacher(
        logits,
        len(class_names),
        None if unnamed else class_names,
        model.needs_autograph,
        model.variables,
        model.architecture.pixels,
    )


def _load_saved_model(path: str, image_size: int) -> Teacher:
    try:
        loaded = tf.saved_model.load(paths.literal_folder(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise errors.UserError(
            f"--teacher={path} is not a readable SavedModel ({text.reason(error)}); "
            "name another one, or a run directory."
        ) from error

    def logits(images: tf.Tensor) -> tf.Tensor:
        return _outputs(loaded, images)

    try:
        function = tf.function(logits).get_concrete_function(
            tf.TensorSpec([1, image_size, image_size, 3])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise errors.UserError(
            f"--teacher={path} has no logits: it must be an export of a run with a classifier, or "
            "a SavedModel of google-research/simclr."
        ) from error
    return Teacher(logits, function.output_shapes[-1], None, variables=function.variables)


def _outputs(loaded: Any, images: tf.Tensor) -> tf.Tensor:
    """Returns the logits of a SavedModel; one of the reference has no signature."""
    if "serving_default" in loaded.signatures:
        return loaded.signatures["serving_default"](images=images)["logits"]
    return loaded(images, trainable=False)["logits_sup"]
