"""Writes a network as a SavedModel that needs TensorFlow but not this package."""

from __future__ import annotations

import contextlib
import os
import re

import tensorflow as tf

from simclr_tf import errors, storage, text
from simclr_tf.data import crops, decode
from simclr_tf.models import simclr

FOLDER = "saved_model"
# Ends of the names of an export that is being written, and of one that a new one replaces.
_PARTIAL, _REPLACED = ".partial", ".replaced"


class Servable(tf.Module):
    """The network with the preprocessing of evaluation, for two kinds of inputs.

    Both functions return "features" (b, f), the input of the heads, and with a linear head
    "logits" (b, c), in the order of the class names in architecture.json.

    Attributes:
        of_images: function of images (b, h, w, 3) float32 in [0, 1], of any size.
        of_bytes: function of encoded images (b,) string: JPEG, PNG, GIF, or BMP that is not
            compressed. Photos are turned upright.
    """

    def __init__(self, model: simclr.SimCLR) -> None:
        """Creates the functions for the weights of a model, which it does not copy."""
        super().__init__(name="simclr")
        self._infer = model.infer
        # The variables and not the layers, so that Keras does not add objects to the file.
        self._weights = [v for layer in model.inference_layers() for v in layer.variables]
        self._size = model.architecture.image_size
        self.of_images = tf.function(
            self._of_images,
            input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, name="images")],
            autograph=model.needs_autograph,
        )
        self.of_bytes = tf.function(
            self._of_bytes,
            input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")],
            autograph=model.needs_autograph,
        )

    def _of_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._outputs(crops.evaluation_image(images, self._size))

    def _of_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        def prepare(encoded: tf.Tensor) -> tf.Tensor:
            # Pillow is not in a SavedModel, which refuses what TensorFlow alone does not decode.
            image = decode.decode_image(encoded, with_pillow=False)
            return crops.evaluation_image(image, self._size)

        spec = tf.TensorSpec([self._size, self._size, 3], tf.float32)
        return self._outputs(tf.map_fn(prepare, image_bytes, fn_output_signature=spec))

    def _outputs(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.ensure_shape(images, [None, self._size, self._size, 3])
        return self._infer(images)


def plain_copy(model: simclr.SimCLR) -> simclr.SimCLR:
    """Returns a copy of a network to export: float32, and independent of any strategy."""
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        plain = simclr.SimCLR(model.architecture, seed=0, global_bn=False)
    # Keras lists frozen variables last, so both must be frozen alike for their orders to agree.
    plain.encoder.freeze(model.encoder.frozen_groups)
    for target, trained in zip(plain.variables, model.variables):
        target.assign(trained.numpy())
    plain.encoder.freeze(-1)
    return plain


def export(model: simclr.SimCLR, model_dir: str, step: int, *, keep: int = 1) -> str:
    """Writes MODEL_DIR/saved_model/STEP and removes older ones.

    Args:
        model: the trained network.
        model_dir: the run directory.
        step: name of the export.
        keep: number of exports to keep.

    Returns:
        The folder written.

    Raises:
        UserError: if it cannot be written.
    """
    servable = Servable(plain_copy(model))
    signatures = {
        "serving_default": servable.of_images,
        "serving_bytes": servable.of_bytes,
    }
    parent = os.path.join(model_dir, FOLDER)
    return write(servable, parent, step, signatures=signatures, keep=keep)


def write(module: tf.Module, parent: str, step: int, *, signatures: dict, keep: int) -> str:
    """Writes a module as PARENT/STEP and removes older ones.

    It is written under another name, which programs that serve PARENT ignore, and then renamed, so
    an export that is found is complete even if this process is killed.

    Args:
        module: the module to write.
        parent: folder of exports.
        step: name of the export.
        signatures: functions of the module, by name.
        keep: number of exports to keep.

    Returns:
        The folder written.

    Raises:
        UserError: if it cannot be written.
    """
    folder = os.path.join(parent, str(step))
    try:
        _remove_leftovers(parent)
        tf.saved_model.save(module, folder + _PARTIAL, signatures=signatures)
        if tf.io.gfile.isdir(folder):
            tf.io.gfile.rename(folder, folder + _REPLACED)
        tf.io.gfile.rename(folder + _PARTIAL, folder)
        _rename_older(parent, keep)
        _remove_leftovers(parent)
    except (OSError, tf.errors.OpError) as error:
        with contextlib.suppress(OSError, tf.errors.OpError):
            tf.io.gfile.rmtree(folder + _PARTIAL)
        raise errors.UserError(
            f"The SavedModel could not be written to {folder} ({text.reason(error)}); "
            f"{storage.remedy(error, folders=(parent, folder))} and run the same command again."
        ) from error
    return folder


def _remove_leftovers(parent: str) -> None:
    """Deletes exports that were replaced, and what a killed process did not finish."""
    for name in storage.names_in(parent):
        if re.fullmatch(rf"[0-9]+({re.escape(_PARTIAL)}|{re.escape(_REPLACED)})", name):
            tf.io.gfile.rmtree(os.path.join(parent, name))


def _rename_older(parent: str, keep: int) -> None:
    steps = sorted(
        int(name)
        for name in storage.names_in(parent)
        if re.fullmatch("0|[1-9][0-9]*", name) and tf.io.gfile.isdir(os.path.join(parent, name))
    )
    for step in steps[:-keep]:
        folder = os.path.join(parent, str(step))
        tf.io.gfile.rename(folder, folder + _REPLACED)
