"""Initial weights of a network from opened weights: as far as they fit, or all of them."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf import errors
from simclr_tf.keras_api import keras
from simclr_tf.models import resnet, simclr, stem_channels
from simclr_tf.runs import weights as weights_lib

# What decides whether a part fits.
_DECIDING_SETTINGS = {
    "encoder": "encoder, depth, width and stem",
    "projection_head": "--proj_head_mode, --num_proj_layers, --proj_out_dim and --proj_head_bn",
    "linear_head": "--ft_proj_selector",
}
_KERNEL = 4  # Axes of the weights of a convolution.


def start_from(
    weights: weights_lib.Weights, model: simclr.SimCLR, *, zero_init_logits_layer: bool
) -> list[str]:
    """Initializes a network for fine-tuning.

    The encoder must fit. The projection head is loaded if it fits; the linear head if it has the
    same classes and need not start at zero.

    Args:
        weights: the weights to load.
        model: the network to fill.
        zero_init_logits_layer: starts the linear head at zero, as in linear evaluation.

    Returns:
        One line per part: what was loaded, what was skipped and why.

    Raises:
        UserError: if the encoder does not fit, or the weights are damaged.
    """
    report = [_header(weights), _load_encoder(weights, model)]
    report.append(_load_projection(weights, model))
    if model.linear_head is not None:
        report.append(_load_linear(weights, model, zero_init_logits_layer))
    return [*report, *weights.unused]


def build(
    weights: weights_lib.Weights,
    architecture: simclr.Architecture | None = None,
    *,
    mixed_precision: str = "none",
) -> tuple[simclr.SimCLR, list[str]]:
    """Builds the network that the weights belong to, and fills every part of it.

    Args:
        weights: the weights to load.
        architecture: architecture of the network, if it differs from that of the weights in what
            does not change their shapes, such as the image size.
        mixed_precision: see `simclr.dtype_policy`.

    Returns:
        The network, and one line per part: what was loaded, what was skipped and why.

    Raises:
        UserError: if the architecture is unknown, a part of the network does not fit, or the
            weights are damaged.
    """
    architecture = architecture or weights.architecture
    if architecture is None:
        raise errors.UserError(
            f"{weights.folder} does not say which network its checkpoints fit (no "
            "architecture.json); restore that file."
        )
    model = simclr.SimCLR(architecture, seed=0, global_bn=False, mixed_precision=mixed_precision)
    report = [_header(weights)]
    for part in weights_lib.PARTS:
        if _variables(model, part):
            report.append(_load_required(weights, model, part))
        else:
            report.append(_line(model, part, weights.load(model, part)))
    return model, [*report, *weights.unused]


def _variables(model: simclr.SimCLR, part: str) -> list[tf.Variable]:
    module: keras.Model | None = getattr(model, part)
    return [] if module is None else module.variables


def _header(weights: weights_lib.Weights) -> str:
    return f"weights of {weights.origin} ({weights.description})"


def _line(model: simclr.SimCLR, part: str, problem: str | None) -> str:
    """Returns the report line of a part, given why it does not fit, or None if it was loaded."""
    name = part.replace("_", " ")
    if problem:
        return f"{name}: skipped ({problem})"
    count = len(_variables(model, part))
    return f"{name}: loaded {count} of {count} variables" if count else f"{name}: there is none"


def _load_required(weights: weights_lib.Weights, model: simclr.SimCLR, part: str) -> str:
    problem = weights.load(model, part)
    if problem:
        network = model.architecture.encoder_name if part == "encoder" else "network"
        raise errors.UserError(
            f"The {part.replace('_', ' ')} in {weights.origin} does not fit this run's {network} "
            f"({problem}); set {_DECIDING_SETTINGS[part]} as in pretraining."
        )
    return _line(model, part, None)


def _load_encoder(weights: weights_lib.Weights, model: simclr.SimCLR) -> str:
    """Loads the encoder; that of images of 3 channels also into one of other channels."""
    theirs = weights.architecture
    channels = model.architecture.pixels.channels
    if theirs is None or theirs.pixels.channels == channels or not _can_change_channels(model):
        return _load_required(weights, model, "encoder")
    known = theirs.pixels.channels
    source, _ = build(weights)
    problem = _copy_encoder(source, model, channels)
    if problem is not None:
        raise errors.UserError(
            f"The encoder in {weights.origin} does not fit this run's "
            f"{model.architecture.encoder_name} ({problem}); set {_DECIDING_SETTINGS['encoder']} "
            "as in pretraining."
        )
    if _has_adapter(model):
        return (
            f"encoder: loaded all variables of images of {known} channels; before them, an adapter "
            f"averages {channels} channels to {known}"
        )
    return (
        f"{_line(model, 'encoder', None)}; of the stem, {stem_channels.in_words(known, channels)}"
    )


def _can_change_channels(model: simclr.SimCLR) -> bool:
    """Returns whether an encoder can start from that of images of other channels."""
    return isinstance(model.encoder, resnet.ResNet) or _has_adapter(model)


def _has_adapter(model: simclr.SimCLR) -> bool:
    return getattr(model.encoder, "adapter", None) is not None


def _copy_encoder(source: simclr.SimCLR, model: simclr.SimCLR, channels: int) -> str | None:
    """Copies an encoder, whose stem takes other channels; returns why that is impossible."""
    old_variables, variables = source.encoder.variables, model.encoder.variables
    if _has_adapter(model):
        if _has_adapter(source):
            return f"its adapter takes {source.architecture.pixels.channels} channels"
        variables = model.encoder.network.variables
    if len(old_variables) != len(variables):
        return "it has another number of variables"
    new = []
    for old, variable in zip(old_variables, variables, strict=True):
        values = old.numpy()
        if values.ndim == _KERNEL and values.shape[2] != variable.shape[2] == channels:
            values = stem_channels.repeated(values, channels)
        if values.shape != tuple(variable.shape):
            return f"{variable.name} has the shape {values.shape} there and {variable.shape} here"
        new.append(values)
    for variable, values in zip(variables, new, strict=True):
        variable.assign(values)
    return None


def _load_projection(weights: weights_lib.Weights, model: simclr.SimCLR) -> str:
    part = "projection_head"
    if not _variables(model, part):
        return _line(model, part, None)
    problem = weights.load(model, part)
    if problem and model.architecture.ft_proj_selector:
        raise errors.UserError(
            f"--ft_proj_selector needs the projection head of {weights.origin}, which does not fit "
            f"({problem}); set {_DECIDING_SETTINGS[part]} as in pretraining."
        )
    return _line(model, part, problem)


def _load_linear(weights: weights_lib.Weights, model: simclr.SimCLR, zero: bool) -> str:
    if zero:
        for variable in _variables(model, "linear_head"):
            variable.assign(tf.zeros_like(variable))
        return "linear head: set to zero (--zero_init_logits_layer)"
    if weights.class_names is None:
        problem: str | None = "the checkpoint has none"
    elif not simclr.same_classes(weights.class_names, model.architecture.class_names):
        problem = "the checkpoint's head has different classes"
    elif weights.several_labels != model.architecture.several_labels:
        several = "several labels per image"
        of_weights, of_data = (
            ("one", several)
            if model.architecture.several_labels
            else (
                several,
                "one",
            )
        )
        problem = f"the checkpoint's head is for {of_weights}, and the data has {of_data}"
    else:
        problem = weights.load(model, "linear_head")
    return _line(model, "linear_head", problem)
