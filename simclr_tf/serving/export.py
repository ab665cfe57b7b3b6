"""Writes a network as a SavedModel that needs TensorFlow but not this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import os

import tensorflow as tf

from simclr_tf.models import simclr
from simclr_tf.serving import bundle, converted, forms, outputs, reloading, versions, warmup
from simclr_tf.serving import servable as servables

FOLDER = forms.SAVED_MODEL.folder


def plain_copy(model: simclr.SimCLR, dtype: str = "float32") -> simclr.SimCLR:
    """Returns a copy of a network to export, independent of any strategy.

    Args:
        model: the network.
        dtype: in what the copy computes, "float32" or "bfloat16". Its variables are float32.
    """
    mixed_precision = "none" if dtype == "float32" else dtype
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        plain = simclr.SimCLR(
            model.architecture, seed=0, global_bn=False, mixed_precision=mixed_precision
        )
    # Keras lists frozen variables last, so both must be frozen alike for their orders to agree.
    plain.encoder.freeze(model.encoder.frozen_groups)
    for target, trained in zip(plain.variables, model.variables):
        target.assign(trained.numpy())
    plain.encoder.freeze(-1)
    return plain


def export(
    model: simclr.SimCLR,
    model_dir: str,
    step: int,
    *,
    keep: int = 1,
    names: Sequence[str] | None = None,
    weights_license: str | None = None,
    dtype: str = "float32",
    examine: converted.Examine | None = None,
) -> str:
    """Writes MODEL_DIR/saved_model/STEP, checks it in a fresh process, and removes older ones.

    With another dtype it is MODEL_DIR/saved_model_DTYPE/STEP.

    Args:
        model: the trained network.
        model_dir: the run directory.
        step: name of the export.
        keep: number of exports to keep.
        names: outputs of the signatures, see `outputs.choose`.
        weights_license: licence of the weights, for the files that describe them.
        dtype: in what the network computes, see `plain_copy`.
        examine: compares it with the network in float32, before it gets its final name; None for
            float32.

    Returns:
        The folder written.

    Raises:
        UserError: if it cannot be written, the network has no head for an output, or the network
            that is loaded again is another one.
    """
    names = outputs.choose(model, names)
    form = forms.Form("serving", dtype)
    with reloading.fresh_process() as fresh:
        plain = plain_copy(model)
        served = plain if dtype == "float32" else plain_copy(model, dtype)
        servable = servables.Servable(served, names)

        def complete(folder: str) -> None:
            warmup.write(folder, plain.architecture.image_size, plain.architecture.pixels)
            found = examine(converted.of_saved_model(folder), folder) if examine else None
            bundle.write(
                folder,
                servable,
                plain.architecture,
                model_dir,
                step,
                form=form,
                conversion=found,
                weights_license=weights_license,
            )
            fresh.check(folder, plain, names, dtype=dtype)

        parent = os.path.join(model_dir, form.folder)
        signatures = servable.signatures()
        return write(servable, parent, step, signatures=signatures, keep=keep, complete=complete)


def write(
    module: tf.Module,
    parent: str,
    step: int,
    *,
    signatures: dict,
    keep: int,
    complete: Callable[[str], None] = lambda folder: None,
) -> str:
    """Writes a module as PARENT/STEP and removes older ones, see `versions.write`.

    Args:
        module: the module to write.
        parent: folder of exports.
        step: name of the export.
        signatures: functions of the module, by name.
        keep: number of exports to keep.
        complete: called with the folder before it is renamed, to add files and to check them.

    Returns:
        The folder written.

    Raises:
        UserError: if it cannot be written, or from `complete`.
    """

    def save(folder: str) -> None:
        tf.saved_model.save(module, folder, signatures=signatures)

    return versions.write(
        parent, step, save, keep=keep, name=forms.SAVED_MODEL.name, complete=complete
    )
