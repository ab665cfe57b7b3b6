"""The convert command: writes weights of google-research/simclr as a run directory."""

from __future__ import annotations

import dataclasses

from simclr_tf import config as config_lib
from simclr_tf import console, errors
from simclr_tf.runs import builders, checkpoints, directory, initialization
from simclr_tf.runs import pixels as pixels_lib
from simclr_tf.runs import weights as weights_lib
from simclr_tf.serving import export

# Settings that describe the reference's run and have the same names here.
_DESCRIPTIVE = ("dataset", "train_split", "eval_split", "temperature", "hidden_norm")


def convert(
    config: config_lib.Config,
    weights: weights_lib.Weights | None,
    explicit: frozenset[str],
) -> None:
    """Writes weights of google-research/simclr as a run directory, with a SavedModel.

    Args:
        config: the settings, with --checkpoint and --model_dir.
        weights: the weights of --checkpoint; None without one.
        explicit: names of the flags that were given, which override the reference's flags.json.

    Raises:
        UserError: if there are no such weights, they are incomplete, or --model_dir holds a run.
    """
    model_dir, weights = _check(config, weights)
    architecture = builders.architecture_of(
        config, weights.class_names, pixels_lib.of_weights(weights)
    )
    architecture = dataclasses.replace(architecture, several_labels=weights.several_labels)
    model, report = initialization.build(weights, architecture)
    directory.ensure_writable(model_dir)
    directory.write_architecture(model_dir, architecture)
    directory.write_config(model_dir, _with_reference_settings(weights, config, explicit))
    checkpoint = checkpoints.Checkpoints(model_dir, model, None).save()
    with console.working("Exporting the SavedModel, and loading it in a new process"):
        folder = export.export(
            model,
            model_dir,
            0,
            names=config.export_output_names,
            weights_license=config.weights_license,
        )
    for line in report:
        console.say(line)
    console.say(f"Wrote {checkpoint} and {folder}.")
    console.say(
        f"Evaluate it with --mode=eval --model_dir={model_dir} --dataset=..., fine-tune it with "
        f"--mode=finetune --checkpoint={model_dir} --model_dir=..."
    )


def _check(
    config: config_lib.Config, weights: weights_lib.Weights | None
) -> tuple[str, weights_lib.Weights]:
    """Returns the directory to write and the weights to convert."""
    if weights is None or config.model_dir is None:
        raise errors.UserError(
            "--mode=convert needs --checkpoint=PATH, weights of google-research/simclr, and "
            "--model_dir=PATH, a new folder for them; set both."
        )
    existing = checkpoints.latest(config.model_dir)
    if existing:
        raise errors.UserError(
            f"--model_dir={config.model_dir} already contains a run ({existing}); name a new "
            "folder."
        )
    if not weights.from_reference:
        raise errors.UserError(
            f"--checkpoint={config.checkpoint} was not written by google-research/simclr; a run of "
            "this program needs no conversion, use it as it is."
        )
    return config.model_dir, weights


def _with_reference_settings(
    weights: weights_lib.Weights, config: config_lib.Config, explicit: frozenset[str]
) -> config_lib.Config:
    """Returns the settings with those of the reference's run that were not given explicitly."""
    taken = {
        name: weights.flags[name]
        for name in _DESCRIPTIVE
        if name not in explicit and isinstance(weights.flags.get(name), type(getattr(config, name)))
    }
    return dataclasses.replace(config, **taken)
