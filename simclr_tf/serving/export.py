"""Writes a network as a SavedModel that needs TensorFlow but not this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import contextlib
import os
import re

import tensorflow as tf

from simclr_tf import errors, storage, text
from simclr_tf.models import simclr
from simclr_tf.serving import bundle, outputs, reloading
from simclr_tf.serving import servable as servables

FOLDER = "saved_model"
# Ends of the names of an export that is being written, and of one that a new one replaces.
_PARTIAL, _REPLACED = ".partial", ".replaced"


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


def export(
    model: simclr.SimCLR,
    model_dir: str,
    step: int,
    *,
    keep: int = 1,
    names: Sequence[str] | None = None,
    weights_license: str | None = None,
) -> str:
    """Writes MODEL_DIR/saved_model/STEP, checks it in a fresh process, and removes older ones.

    Args:
        model: the trained network.
        model_dir: the run directory.
        step: name of the export.
        keep: number of exports to keep.
        names: outputs of the signatures, see `outputs.choose`.
        weights_license: licence of the weights, for the files that describe them.

    Returns:
        The folder written.

    Raises:
        UserError: if it cannot be written, the network has no head for an output, or the network
            that is loaded again is another one.
    """
    names = outputs.choose(model, names)
    with reloading.fresh_process() as fresh:
        plain = plain_copy(model)
        servable = servables.Servable(plain, names)

        def complete(folder: str) -> None:
            bundle.write(
                folder,
                servable,
                plain.architecture,
                model_dir,
                step,
                weights_license=weights_license,
            )
            fresh.check(folder, plain, names)

        parent = os.path.join(model_dir, FOLDER)
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
    """Writes a module as PARENT/STEP and removes older ones.

    It is written under another name, which programs that serve PARENT ignore, and then renamed, so
    an export that is found is complete even if this process is killed.

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
    folder = os.path.join(parent, str(step))
    try:
        _remove_leftovers(parent)
        tf.saved_model.save(module, folder + _PARTIAL, signatures=signatures)
        complete(folder + _PARTIAL)
        if tf.io.gfile.isdir(folder):
            tf.io.gfile.rename(folder, folder + _REPLACED)
        tf.io.gfile.rename(folder + _PARTIAL, folder)
        _rename_older(parent, keep)
        _remove_leftovers(parent)
    except (OSError, tf.errors.OpError) as error:
        _remove_partial(folder)
        raise errors.UserError(
            f"The SavedModel could not be written to {folder} ({text.reason(error)}); "
            f"{storage.remedy(error, folders=(parent, folder))} and run the same command again."
        ) from error
    except errors.UserError:
        _remove_partial(folder)
        raise
    return folder


def _remove_partial(folder: str) -> None:
    with contextlib.suppress(OSError, tf.errors.OpError):
        tf.io.gfile.rmtree(folder + _PARTIAL)


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
