"""Teachers for distillation: trained classifiers, whoever trained them."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import os
from typing import Any

import tensorflow as tf

from simclr_tf import errors, storage
from simclr_tf.models import simclr
from simclr_tf.reference import loading
from simclr_tf.runs import checkpoints, directory, weights


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained classifier that is asked and not changed.

    Attributes:
        logits: maps images (n, h, w, 3) in [0, 1] to (n, c) float32.
        num_classes: c.
        class_names: of the classes; None where the teacher does not tell.
    """

    logits: Callable[[tf.Tensor], tf.Tensor]
    num_classes: int
    class_names: tuple[str, ...] | None


def load(path: str, *, image_size: int) -> Teacher:
    """Opens a teacher. Call it in the scope of the strategy that will ask it.

    Args:
        path: a run directory or a checkpoint in one, or a SavedModel with logits; of ours, or of
            google-research/simclr.
        image_size: side of the images that it will be asked about.

    Raises:
        UserError: if there is nothing of the kind, or it has no classifier.
    """
    if tf.io.gfile.exists(os.path.join(path, "saved_model.pb")):
        return _of_saved_model(path, image_size)
    foreign = weights.find_reference(path)
    model = _of_run(path) if foreign is None else loading.build(foreign)[0]
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
    return Teacher(logits, len(class_names), None if unnamed else class_names)


def _of_run(path: str) -> simclr.SimCLR:
    """Returns the network of a run of ours, with its newest weights."""
    folder, found = checkpoints.locate(path, flag="teacher")
    prefix = checkpoints.newest_whole(found)
    architecture = directory.read_architecture(folder)
    if prefix is None or architecture is None:
        raise errors.UserError(
            f"--teacher={path} cannot be read: its checkpoints are damaged or its "
            "architecture.json is missing; name another run directory or a SavedModel."
        )
    model = simclr.SimCLR(architecture, seed=0)
    tf.train.Checkpoint(model=model).read(prefix).assert_existing_objects_matched().expect_partial()
    return model


def _of_saved_model(path: str, image_size: int) -> Teacher:
    try:
        loaded = tf.saved_model.load(path)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise errors.UserError(
            f"--teacher={path} is no SavedModel that can be read ({storage.reason(error)}); "
            "name another one, or a run directory."
        ) from error

    def logits(images: tf.Tensor) -> tf.Tensor:
        return _outputs(loaded, images)

    try:
        asked = tf.function(logits).get_concrete_function(
            tf.TensorSpec([1, image_size, image_size, 3])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise errors.UserError(
            f"--teacher={path} has no logits: it must be an export of a run with a classifier, or "
            "a SavedModel of google-research/simclr."
        ) from error
    return Teacher(logits, asked.output_shapes[-1], None)


def _outputs(loaded: Any, images: tf.Tensor) -> tf.Tensor:
    """Returns the logits of a SavedModel of ours, or of the reference's, which has no signature."""
    if "serving_default" in loaded.signatures:
        return loaded.signatures["serving_default"](images=images)["logits"]
    return loaded(images, trainable=False)["logits_sup"]
