"""Starting from the weights of another run, as fine-tuning does."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf import errors, run_directory
from simclr_tf.models import simclr
from simclr_tf.training import checkpoints


def start_from(checkpoint: str, model: simclr.SimCLR, *, zero_init_logits_layer: bool) -> list[str]:
    """Fills a model from the checkpoint of another run, as fine-tuning starts.

    The encoder must be there whole. The projection head is taken if it fits; the linear head if
    it tells the same classes apart and is not to start from zero.

    Args:
        checkpoint: a run directory or a checkpoint in one.
        model: to fill.
        zero_init_logits_layer: starts the linear head at zero, as linear evaluation does.

    Returns:
        One line per part: what was loaded, what was skipped and why.

    Raises:
        UserError: if there is no checkpoint, it is damaged, or an encoder weight is missing.
    """
    directory, found = checkpoints.locate(checkpoint)
    prefix = checkpoints.newest_whole(found)
    if prefix is None:
        damage = checkpoints.damage_of(found[-1])
        raise errors.UserError(
            f"--checkpoint={checkpoint} is damaged ({damage}); name another one."
        )
    source = run_directory.read_architecture(directory)
    report = [f"weights of {prefix}", _load_encoder(prefix, model)]
    report.append(_load_projection(prefix, model))
    if model.linear_head is not None:
        theirs = None if source is None else source.class_names
        other = _other_classes(theirs, model.architecture.class_names)
        report.append(_load_linear(prefix, model.linear_head, other, zero_init_logits_layer))
    return report


def _load_encoder(prefix: str, model: simclr.SimCLR) -> str:
    problem = _load(prefix, encoder=model.encoder)
    if problem:
        raise errors.UserError(
            f"The encoder in {prefix} does not fit this run's {model.architecture.encoder_name} "
            f"({problem}); set encoder, depth, width and stem as they were in pretraining."
        )
    return _loaded("encoder", model.encoder)


def _load_projection(prefix: str, model: simclr.SimCLR) -> str:
    if not model.projection_head.variables:
        return "projection head: there is none"
    problem = _load(prefix, projection_head=model.projection_head)
    if problem and model.architecture.ft_proj_selector:
        raise errors.UserError(
            f"--ft_proj_selector needs the projection head of {prefix}, which does not fit "
            f"({problem}); set --num_proj_layers and --proj_out_dim as in pretraining."
        )
    if problem:
        return f"projection head: skipped ({problem})"
    return _loaded("projection head", model.projection_head)


def _other_classes(theirs: tuple[str, ...] | None, ours: tuple[str, ...] | None) -> str | None:
    """Returns why a linear head cannot be taken over, or None."""
    if theirs is None:
        return "the checkpoint has none"
    return None if theirs == ours else "the checkpoint's tells other classes apart"


def _load_linear(prefix: str, head: tf.keras.Model, other: str | None, zero: bool) -> str:
    if zero:
        for variable in head.variables:
            variable.assign(tf.zeros_like(variable))
        return "linear head: set to zero (--zero_init_logits_layer)"
    problem = other or _load(prefix, linear_head=head)
    return f"linear head: skipped ({problem})" if problem else _loaded("linear head", head)


def _loaded(part: str, module: tf.keras.Model) -> str:
    count = len(module.variables)
    return f"{part}: loaded {count} of {count} variables"


def _load(prefix: str, **part: tf.keras.Model) -> str | None:
    """Reads one part of a model; returns what did not fit, or None.

    A misfit may leave some of the part's variables changed; a caller who goes on must not
    need their initial values.
    """
    try:
        status = tf.train.Checkpoint(model=tf.train.Checkpoint(**part)).read(prefix)
        status.assert_existing_objects_matched().expect_partial()  # The other parts.
    except (AssertionError, ValueError) as error:
        return checkpoints.misfit(error)
    return None
