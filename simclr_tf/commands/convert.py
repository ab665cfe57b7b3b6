"""The convert command: from what google-research/simclr wrote to a run directory of ours."""

from __future__ import annotations

import dataclasses

from simclr_tf import config as config_lib
from simclr_tf import console, errors
from simclr_tf.reference import loading
from simclr_tf.runs import builders, checkpoints, directory, weights
from simclr_tf.serving import export

# Flags of the reference's run that say what it was about, under the same names here.
_ABOUT = ("dataset", "train_split", "eval_split", "temperature", "hidden_norm")


def convert(
    config: config_lib.Config,
    typed: frozenset[str],
) -> None:
    """Writes weights of google-research/simclr as a run directory, with a SavedModel.

    Args:
        config: names --checkpoint and --model_dir; the architecture comes from the weights.
        typed: names of the flags that the person gave, which win over the reference's flags.json.

    Raises:
        UserError: if there are no such weights, they are not whole, or the directory is taken.
    """
    model_dir, foreign = _check(config)
    architecture = builders.architecture_of(config, foreign.architecture.class_names)
    model, report = loading.build(foreign, architecture)
    directory.prepare(model_dir)
    about = {
        name: foreign.stored.flags[name]
        for name in _ABOUT
        if name not in typed
        and isinstance(foreign.stored.flags.get(name), type(getattr(config, name)))
    }
    config = dataclasses.replace(config, **about)
    directory.write_architecture(model_dir, architecture)
    directory.write_config(model_dir, config)
    checkpoint = checkpoints.Checkpoints(model_dir, model, None).save()
    with console.working("exported the SavedModel"):
        folder = export.export(model, model_dir, 0)
    for line in report:
        console.say(line)
    console.say(f"{checkpoint} and {folder}: written")
    console.say(
        f"Evaluate it by --mode=eval --model_dir={model_dir} --dataset=..., fine-tune it by "
        f"--mode=finetune --checkpoint={model_dir} --model_dir=..."
    )


def _check(config: config_lib.Config) -> tuple[str, loading.Foreign]:
    """Returns the directory to write and the weights to convert."""
    if config.checkpoint is None or config.model_dir is None:
        raise errors.UserError(
            "--mode=convert needs --checkpoint=PATH, weights of google-research/simclr, and "
            "--model_dir=PATH, a new folder for them; name both."
        )
    if checkpoints.latest(config.model_dir):
        raise errors.UserError(
            f"--model_dir={config.model_dir} holds a run already "
            f"({checkpoints.latest(config.model_dir)}); name a new folder."
        )
    foreign = weights.find_reference(config.checkpoint)
    if foreign is None:
        checkpoints.locate(config.checkpoint)
        raise errors.UserError(
            f"--checkpoint={config.checkpoint} is not of google-research/simclr; a run of ours "
            "needs no converting, use it as it is."
        )
    return config.model_dir, foreign
