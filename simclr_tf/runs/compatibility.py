"""Whether the weights in a run directory, or those of --checkpoint, fit the settings of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
import dataclasses
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import console, errors
from simclr_tf.models import keras_encoders, simclr
from simclr_tf.reference import names, networks
from simclr_tf.runs import checkpoints, directory, resuming
from simclr_tf.runs import weights as weights_lib

# Settings of a network that follow from its weights.
_RESNET_SETTINGS = ("resnet_depth", "width_multiplier", "stem", "sk_ratio", "se_ratio")
_HEAD_SETTINGS = ("proj_head_mode", "num_proj_layers", "proj_out_dim")


def check_resumable(
    config: config_lib.Config, model_dir: str, *, ignored: Collection[str] = ()
) -> None:
    """Refuses to evaluate without weights, and to resume a different training run.

    Args:
        config: the settings.
        model_dir: the run directory, which may not exist yet.
        ignored: names of settings that may differ from the stored ones.

    Raises:
        UserError: if there are no weights to evaluate, or training cannot resume from those there.
    """
    if checkpoints.latest(model_dir) is None:
        if config.mode == "eval" and config.checkpoint is None:
            raise nothing_to_evaluate(model_dir)
        return
    _check_not_reference(model_dir)
    if config.mode != "eval":
        resuming.check_settings(config, model_dir, ignored=ignored)


def nothing_to_evaluate(model_dir: str) -> errors.UserError:
    """Returns the error of an evaluation without weights."""
    return errors.UserError(
        f"--model_dir={model_dir} contains no checkpoint to evaluate; train first, set --model_dir "
        "to a training run, or pass weights with --checkpoint."
    )


def check_fine_tuning_start(config: config_lib.Config, requested_mode: str) -> None:
    """Refuses fine-tuning with neither a checkpoint to start from nor one to resume from.

    Training a classifier from scratch is possible with --mode=train --train_mode=finetune.

    Args:
        config: the settings of a training run.
        requested_mode: --mode as it was given, which may be the short form "finetune".

    Raises:
        UserError: if there is no such checkpoint.
    """
    resumes = config.model_dir is not None and checkpoints.latest(config.model_dir) is not None
    if config.train_mode != "finetune" or config.checkpoint is not None or resumes:
        return
    if config.fine_tune_after_block >= 0:
        raise errors.UserError(
            f"--fine_tune_after_block={config.fine_tune_after_block} freezes layers that were "
            "never trained; set --checkpoint to a pretraining run."
        )
    if requested_mode == "finetune":
        raise errors.UserError(
            "--mode=finetune has nothing to start from; set --checkpoint to a pretraining run, "
            "or train on labels from scratch with --mode=train --train_mode=finetune."
        )


def check_explicit(
    weights: weights_lib.Weights, explicit: Mapping[str, Any], *, heads: bool
) -> None:
    """Refuses settings of the network that contradict the weights of --checkpoint.

    Args:
        weights: the weights of --checkpoint.
        explicit: the settings that were given explicitly, by name; those that are not of the
            network are ignored. An attention ratio that gives the same widths is no contradiction.
        heads: whether the projection head must be that of the weights, too.

    Raises:
        UserError: naming every setting that differs, with both values.
    """
    architecture = weights.architecture
    if architecture is None:
        return
    fixed = ["encoder"]
    if architecture.encoder == keras_encoders.RESNET:
        fixed += _RESNET_SETTINGS
    if heads:
        fixed += _HEAD_SETTINGS
    differing = [
        f"--{name}={explicit[name]} (stored: {getattr(architecture, name)})"
        for name in fixed
        if name in explicit and not _same(architecture, name, explicit[name])
    ]
    if differing:
        raise errors.UserError(
            f"The flags do not match the network in {weights.origin} ({weights.description}): "
            f"{', '.join(differing)}; leave these flags out."
        )


def _same(architecture: simclr.Architecture, name: str, value: Any) -> bool:
    stored = getattr(architecture, name)
    if value == stored or (name == "stem" and value == "auto"):
        return True
    if not name.endswith("_ratio") or min(value, stored) <= 0:
        return False
    if architecture.resnet_depth not in networks.BLOCKS:
        return False
    ratios = {"sk_ratio": architecture.sk_ratio, "se_ratio": architecture.se_ratio}
    one, other = (
        networks.Network(architecture.resnet_depth, architecture.width_multiplier, **given)
        for given in (ratios, {**ratios, name: value})
    )
    return names.weights_of(one) == names.weights_of(other)


def reconcile_architecture(
    config: config_lib.Config,
    architecture: simclr.Architecture,
    weights: weights_lib.Weights | None,
    model_dir: str,
) -> simclr.Architecture:
    """Adapts the architecture that a run asks for to the weights that it reads.

    Args:
        config: the settings.
        architecture: the architecture that they describe.
        weights: the weights of --checkpoint, if they were opened.
        model_dir: the run directory.

    Returns:
        The architecture; in evaluation without a linear head, if that of the weights has other
        classes than the data.

    Raises:
        UserError: if the weights in the run directory do not fit.
    """
    if not checkpoints.latest(model_dir):
        if weights is None:
            return architecture
        return _without_other_head(
            config, architecture, weights.class_names, several_labels=weights.several_labels
        )
    stored = directory.read_architecture(model_dir)
    if stored is None:
        return architecture
    if config.mode == "eval" and stored.class_names is None:
        # Pretrained without labels and evaluated with them: there is no linear head to load.
        architecture = architecture.without_head()
    classes = stored.class_names
    if classes is not None and classes == simclr.placeholder_class_names(len(classes)):
        architecture = _without_other_head(config, architecture, classes)
        stored = dataclasses.replace(stored, class_names=architecture.class_names)
    directory.check_same(stored, architecture, model_dir)
    return architecture


def _without_other_head(
    config: config_lib.Config,
    architecture: simclr.Architecture,
    stored_classes: tuple[str, ...] | None,
    *,
    several_labels: bool = False,
) -> simclr.Architecture:
    """Removes, in evaluation, a linear head whose weights are of other classes than the data's."""
    classes = architecture.class_names
    if config.mode != "eval" or classes is None:
        return architecture
    if simclr.same_classes(stored_classes, classes):
        if several_labels == architecture.several_labels:
            return architecture
        one, several = "one of its classes", "any number of them"
        console.say(
            "The linear head gives an image "
            f"{several if several_labels else one}, and the labels "
            f"{several if architecture.several_labels else one}; it is ignored, and the encoder "
            "evaluated."
        )
    elif stored_classes is not None:
        console.say(
            f"The linear head has {len(stored_classes)} classes, which are not the "
            f"{len(classes)} of {config.dataset}; it is ignored, and the encoder evaluated."
        )
    return architecture.without_head()


def _check_not_reference(model_dir: str) -> None:
    """Refuses a run directory of the reference, whose checkpoints may have names like ours."""
    if weights_lib.find_reference(model_dir) is not None:
        raise errors.UserError(
            f"--model_dir={model_dir} is a run of google-research/simclr; convert it with "
            f"--mode=convert --checkpoint={model_dir} and a new --model_dir, or start from it with "
            "--checkpoint."
        )
