"""The export command: writes a checkpoint as a SavedModel, or in another form."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import console, errors
from simclr_tf.commands import conversion
from simclr_tf.models import simclr
from simclr_tf.runs import builders, directory, initialization
from simclr_tf.runs import pixels as pixels_lib
from simclr_tf.runs import weights as weights_lib
from simclr_tf.serving import (
    converted,
    forms,
    onnx_format,
    outputs,
    reference_format,
    tflite_format,
)
from simclr_tf.serving import export as serving

_RUNTIMES: dict[str, converted.Runtime] = {"tflite": tflite_format, "onnx": onnx_format}


def export(config: config_lib.Config, weights: weights_lib.Weights | None) -> str:
    """Writes an export into --model_dir, or without one into the run directory of --checkpoint.

    What another form than a SavedModel in float32 costs is measured on images of the run.

    Args:
        config: the settings.
        weights: the weights of --checkpoint; None exports the newest checkpoint of --model_dir.

    Returns:
        The folder written.

    Raises:
        UserError: if there is nothing to export, it is damaged, or it cannot be written.
    """
    if config.format == "onnx":
        onnx_format.check_installed()
    weights = weights or _open_run(config)
    model_dir = _folder_to_write(config, weights)
    if weights.architecture is not None:
        requested = builders.architecture_of(
            config, weights.class_names, pixels_lib.of_weights(weights)
        )
        requested = dataclasses.replace(requested, several_labels=weights.several_labels)
        flag = "model_dir" if config.checkpoint is None else "checkpoint"
        directory.check_same(weights.architecture, requested, getattr(config, flag), flag=flag)
    model, _ = initialization.build(weights)
    directory.ensure_writable(model_dir)
    if config.format == "official":
        folder = _export_official(config, model, model_dir, weights.step)
    elif (config.format, config.export_dtype) == ("serving", "float32"):
        with console.working("Exporting the SavedModel"):
            folder = serving.export(model, model_dir, weights.step, **_options(config))
    else:
        folder = _export_other(config, weights, model, model_dir)
    console.say(f"Wrote {folder}.")
    return folder


def _options(config: config_lib.Config) -> dict[str, Any]:
    """Returns the arguments that all exports have."""
    return {
        "keep": config.keep_hub_module_max,
        "names": config.export_output_names,
        "weights_license": config.weights_license,
    }


def _export_official(
    config: config_lib.Config, model: simclr.SimCLR, model_dir: str, step: int
) -> str:
    with console.working("Exporting the SavedModel"):
        folder = reference_format.export_reference_model(
            model, model_dir, step, keep=config.keep_hub_module_max
        )
    if model.linear_head is None:
        console.warn(
            f"There is no linear head, so {folder} has no logits_sup; google-research/simclr would "
            "not export such a run at all."
        )
    return folder


def _export_other(
    config: config_lib.Config, weights: weights_lib.Weights, model: simclr.SimCLR, model_dir: str
) -> str:
    """Writes an export in another form, after measuring what it costs."""
    form = forms.Form(config.format, config.export_dtype)
    images = conversion.images_of(config, weights, form)
    plain = serving.plain_copy(model)
    names = outputs.choose(model, config.export_output_names)
    network = converted.Prepared(plain, names)
    size = plain.architecture.image_size
    examine = conversion.Examination(
        converted.of_function(network.of_prepared),
        images,
        form,
        num_bytes=sum(4 * variable.shape.num_elements() for variable in network.weights),
        image_size=size,
    )
    if form.format == "serving":
        return serving.export(
            model,
            model_dir,
            weights.step,
            dtype=form.dtype,
            examine=examine,
            **_options(config),
        )
    return converted.export(
        plain,
        model_dir,
        weights.step,
        form=form,
        runtime=_RUNTIMES[form.format],
        examine=examine,
        samples=functools.partial(images.samples, size) if form.dtype == "int8" else None,
        **_options(config),
    )


def _open_run(config: config_lib.Config) -> weights_lib.Weights:
    if config.model_dir is None:
        raise errors.UserError(
            "--mode=export has nothing to export; set --model_dir to a run, or --checkpoint to a "
            "checkpoint."
        )
    return weights_lib.open_weights(config.model_dir, flag="model_dir")


def _folder_to_write(config: config_lib.Config, weights: weights_lib.Weights) -> str:
    """Returns the folder to write into, which must not be a run of the reference."""
    if weights.from_reference and (config.checkpoint is None or config.model_dir is None):
        raise errors.UserError(
            f"{weights.origin} was written by google-research/simclr; set --checkpoint to it, and "
            "--model_dir to a folder of your own."
        )
    return config.model_dir or weights.folder
