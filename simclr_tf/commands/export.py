"""The export command: writes a SavedModel of a checkpoint, without data."""

from __future__ import annotations

from simclr_tf import config as config_lib
from simclr_tf import console, errors
from simclr_tf.runs import builders, directory, initialization
from simclr_tf.runs import weights as weights_lib
from simclr_tf.serving import export as serving
from simclr_tf.serving import reference_format


def export(config: config_lib.Config, weights: weights_lib.Weights | None) -> str:
    """Writes a SavedModel into --model_dir, or without one into the run directory of --checkpoint.

    Args:
        config: the settings.
        weights: the weights of --checkpoint; None exports the newest checkpoint of --model_dir.

    Returns:
        The folder written.

    Raises:
        UserError: if there is nothing to export, it is damaged, or it cannot be written.
    """
    weights = weights or _open_run(config)
    model_dir = _folder_to_write(config, weights)
    if weights.architecture is not None:
        requested = builders.architecture_of(config, weights.class_names)
        flag = "model_dir" if config.checkpoint is None else "checkpoint"
        directory.check_same(weights.architecture, requested, getattr(config, flag), flag=flag)
    model, _ = initialization.build(weights)
    directory.ensure_writable(model_dir)
    keep = config.keep_hub_module_max
    with console.working("Exporting the SavedModel"):
        if config.format == "official":
            folder = reference_format.export_reference_model(
                model, model_dir, weights.step, keep=keep
            )
        else:
            folder = serving.export(
                model,
                model_dir,
                weights.step,
                keep=keep,
                names=config.export_output_names,
                weights_license=config.weights_license,
            )
    if config.format == "official" and model.linear_head is None:
        console.warn(
            f"There is no linear head, so {folder} has no logits_sup; google-research/simclr would "
            "not export such a run at all."
        )
    console.say(f"Wrote {folder}.")
    return folder


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
