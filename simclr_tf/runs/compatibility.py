"""What a run finds in its directory, or by --checkpoint, against what it asks for."""

from __future__ import annotations

import dataclasses

from simclr_tf import config as config_lib
from simclr_tf import console, errors
from simclr_tf.models import simclr
from simclr_tf.runs import checkpoints, directory, warm_start, weights

# Settings that decide which variables a checkpoint of training holds, and the seed: a run of
# another seed is another run, of which this one's weights would be passed off as the outcome.
_FIXED_BY_START = ("train_mode", "optimizer", "fine_tune_after_block", "seed")


def check_started(config: config_lib.Config, model_dir: str) -> None:
    """Refuses to evaluate nothing, and to go on with another kind of training.

    Args:
        config: of the run.
        model_dir: the run directory, which may not exist yet.

    Raises:
        UserError: if there are no weights to evaluate, or other ones than training could resume.
    """
    if checkpoints.latest(model_dir) is None:
        if config.mode == "eval" and config.checkpoint is None:
            raise errors.UserError(
                f"--model_dir={model_dir} holds no checkpoint to evaluate; train first, or name "
                "the --model_dir of a training, or weights by --checkpoint."
            )
        return
    _check_ours(model_dir)
    if config.mode != "eval":
        asked = {name: getattr(config, name) for name in _FIXED_BY_START}
        asked["objective"] = config.resolved_objective
        directory.check_same_training(model_dir, asked)


def fitted(
    config: config_lib.Config, architecture: simclr.Architecture, model_dir: str
) -> simclr.Architecture:
    """Fits the architecture that a run asks for to the weights that are there.

    Args:
        config: of the run.
        architecture: that it asks for.
        model_dir: the run directory.

    Returns:
        The architecture; in evaluation without a linear head, if the weights have none for these
        classes.

    Raises:
        UserError: if the weights in the run directory would not fit.
    """
    if not checkpoints.latest(model_dir):  # Without weights, nothing there needs to fit.
        return _as_evaluated(config, architecture)
    stored = directory.read_architecture(model_dir)
    if stored is None:
        return architecture
    if config.mode == "eval" and stored.class_names is None:
        # Pretrained without labels, evaluated with them: there is no linear head to look for.
        architecture = dataclasses.replace(architecture, class_names=None)
    names = stored.class_names
    if names is not None and names == simclr.placeholder_class_names(len(names)):
        architecture = _without_other_head(config, architecture, names)
        stored = dataclasses.replace(stored, class_names=architecture.class_names)
    directory.check_same(stored, architecture, model_dir)
    return architecture


def _as_evaluated(
    config: config_lib.Config, architecture: simclr.Architecture
) -> simclr.Architecture:
    """Leaves out the linear head if the weights to evaluate have none for these classes."""
    if config.mode != "eval" or config.checkpoint is None:
        return architecture
    stored = warm_start.architecture_of(config.checkpoint)
    return _without_other_head(config, architecture, None if stored is None else stored.class_names)


def _without_other_head(
    config: config_lib.Config, architecture: simclr.Architecture, names: tuple[str, ...] | None
) -> simclr.Architecture:
    """Leaves out, in evaluation, a linear head that tells other classes apart than the data's."""
    here = architecture.class_names
    if config.mode != "eval" or here is None or simclr.same_classes(names, here):
        return architecture
    if names is not None:
        console.say(
            f"The linear head tells {len(names)} other classes apart than the {len(here)} of "
            f"{config.dataset}; it is left out, and the encoder evaluated."
        )
    return dataclasses.replace(architecture, class_names=None)


def _check_ours(model_dir: str) -> None:
    """Refuses to go on in a run directory of the reference, which has checkpoints of such names."""
    if (
        directory.read_architecture(model_dir) is None
        and weights.find_reference(model_dir) is not None
    ):
        raise errors.UserError(
            f"--model_dir={model_dir} is a run of google-research/simclr; make it one of ours by "
            f"--mode=convert --checkpoint={model_dir} and a new --model_dir, or start from it by "
            "--checkpoint."
        )
