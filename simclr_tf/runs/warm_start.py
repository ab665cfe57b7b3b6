"""Starting from the weights of another run, or of google-research/simclr, as fine-tuning does."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import tensorflow as tf

from simclr_tf import errors
from simclr_tf.keras_api import keras
from simclr_tf.models import simclr
from simclr_tf.reference import loading
from simclr_tf.runs import checkpoints, directory, weights


@dataclasses.dataclass(frozen=True)
class _Source:
    """Weights to start from.

    Attributes:
        origin: where they are.
        load: fills a part of a model, by its name; returns why it does not fit, or None.
        class_names: of its linear head, or None without one.
        told: what they are, for the report.
        leftovers: lines of the report on what is not taken.
    """

    origin: str
    load: Callable[[simclr.SimCLR, str], str | None]
    class_names: tuple[str, ...] | None
    told: str = ""
    leftovers: tuple[str, ...] = ()


def architecture_of(checkpoint: str) -> simclr.Architecture | None:
    """Returns the architecture of the weights that --checkpoint names.

    Args:
        checkpoint: as for `start_from`.

    Returns:
        The network; None if it is a run of ours that does not tell.

    Raises:
        UserError: if there is no checkpoint.
    """
    foreign = weights.find_reference(checkpoint)
    if foreign is not None:
        return foreign.architecture
    return directory.read_architecture(checkpoints.locate(checkpoint)[0])


def start_from(checkpoint: str, model: simclr.SimCLR, *, zero_init_logits_layer: bool) -> list[str]:
    """Fills a model from the weights of another run, as fine-tuning starts.

    The encoder must be there whole. The projection head is taken if it fits; the linear head if
    it tells the same classes apart and is not to start from zero.

    Args:
        checkpoint: a run directory or a checkpoint in one; or what google-research/simclr wrote: a
            SavedModel, a checkpoint of its TF2 or TF1 code, or a folder that holds one.
        model: to fill.
        zero_init_logits_layer: starts the linear head at zero, as linear evaluation does.

    Returns:
        One line per part: what was loaded, what was skipped and why.

    Raises:
        UserError: if there is no checkpoint, it is damaged, or an encoder weight is missing.
    """
    source = _open(checkpoint)
    report = [f"weights of {source.origin}{source.told}", _load_encoder(source, model)]
    report.append(_load_projection(source, model))
    if model.linear_head is not None:
        report.append(_load_linear(source, model, zero_init_logits_layer))
    return [*report, *source.leftovers]


def _open(checkpoint: str) -> _Source:
    foreign = weights.find_reference(checkpoint)
    if foreign is not None:
        found = foreign

        def take(model: simclr.SimCLR, part: str) -> str | None:
            return loading.load_part(found, model, part)

        return _Source(
            foreign.stored.origin,
            take,
            foreign.architecture.class_names,
            f" ({foreign.described})",
            tuple(loading.leftovers(foreign)),
        )
    folder, prefixes = checkpoints.locate(checkpoint)
    prefix = checkpoints.newest_whole(prefixes)
    if prefix is None:
        damage = checkpoints.damage_of(prefixes[-1])
        raise errors.UserError(
            f"--checkpoint={checkpoint} is damaged ({damage}); name another one."
        )
    stored = directory.read_architecture(folder)
    whole = prefix

    def read(model: simclr.SimCLR, part: str) -> str | None:
        return _read(whole, part, getattr(model, part))

    return _Source(prefix, read, None if stored is None else stored.class_names)


def _load_encoder(source: _Source, model: simclr.SimCLR) -> str:
    problem = source.load(model, "encoder")
    if problem:
        raise errors.UserError(
            f"The encoder in {source.origin} does not fit this run's "
            f"{model.architecture.encoder_name} ({problem}); set encoder, depth, width and stem "
            "as they were in pretraining."
        )
    return _loaded("encoder", model.encoder)


def _load_projection(source: _Source, model: simclr.SimCLR) -> str:
    if not model.projection_head.variables:
        return "projection head: there is none"
    problem = source.load(model, "projection_head")
    if problem and model.architecture.ft_proj_selector:
        raise errors.UserError(
            f"--ft_proj_selector needs the projection head of {source.origin}, which does not fit "
            f"({problem}); set --num_proj_layers, --proj_out_dim and --proj_head_bn as in "
            "pretraining."
        )
    if problem:
        return f"projection head: skipped ({problem})"
    return _loaded("projection head", model.projection_head)


def _other_classes(theirs: tuple[str, ...] | None, ours: tuple[str, ...] | None) -> str | None:
    """Returns why a linear head cannot be taken over, or None."""
    if theirs is None:
        return "the checkpoint has none"
    if simclr.same_classes(theirs, ours):
        return None
    return "the checkpoint's tells other classes apart"


def _load_linear(source: _Source, model: simclr.SimCLR, zero: bool) -> str:
    head = model.linear_head
    assert head is not None
    if zero:
        for variable in head.variables:
            variable.assign(tf.zeros_like(variable))
        return "linear head: set to zero (--zero_init_logits_layer)"
    problem = _other_classes(source.class_names, model.architecture.class_names)
    problem = problem or source.load(model, "linear_head")
    return f"linear head: skipped ({problem})" if problem else _loaded("linear head", head)


def _loaded(part: str, module: keras.Model) -> str:
    count = len(module.variables)
    return f"{part}: loaded {count} of {count} variables"


def _read(prefix: str, name: str, part: keras.Model) -> str | None:
    """Reads one part of a model of ours; returns what did not fit, or None.

    A misfit may leave some of the part's variables changed; a caller who goes on must not
    need their initial values.
    """
    try:
        status = tf.train.Checkpoint(model=tf.train.Checkpoint(**{name: part})).read(prefix)
        status.assert_existing_objects_matched().expect_partial()  # The other parts.
    except (AssertionError, ValueError) as error:
        return checkpoints.misfit(error)
    return None
