"""Checks that the images of a run have the labels that its training and evaluation read."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.data import labels, sources, split_names

if TYPE_CHECKING:
    from simclr_tf.runs import dataset


def check(config: config_lib.Config, data: dataset.Data) -> dataset.Data:
    """Checks the labels of the splits of a run.

    Returns:
        The data, with notes on what cannot be measured or learned.

    Raises:
        UserError: if labels are missing that the run needs.
    """
    if config.reads_labels or (config.mode == "eval" and not config.evaluates_without_labels):
        _check_labels(config, data)
        return data
    return _check_pretraining(config, data)


def _check_labels(config: config_lib.Config, data: dataset.Data) -> None:
    missing = data.why_unlabelled(data.train_split)
    if missing is None:
        _check_all_labelled(config, data)
        _check_evaluation_labels(config, data)
        return
    if config.mode != "eval" and config.contrastive:
        raise errors.UserError(
            f"{missing}, from which --objective={config.objective} learns; use "
            "--objective=nt_xent on it, or a data set with one folder per class."
        )
    if config.mode == "eval":
        raise errors.UserError(
            f"{missing}, which these evaluations need; use --evaluations=label_free, which needs "
            "none, or a data set with labels."
        )
    raise errors.UserError(
        f"{missing}, which fine-tuning needs; use --mode=pretrain on it, or a data set with one "
        "folder per class."
    )


def _check_all_labelled(config: config_lib.Config, data: dataset.Data) -> None:
    """Refuses to learn from labels that some images do not have, where that is known."""
    # Batches balanced by class hold labelled images only, and so does a draw of few labels.
    if config.mode == "eval" or config.samples_per_class or config.has_few_labels:
        return
    partly = labels.why_partly_unlabelled(data.source, data.train_split)
    if partly is not None:
        raise unlabelled_error(config, partly)


def unlabelled_error(config: config_lib.Config, problem: str) -> errors.UserError:
    """Returns the error of an objective that learns from labels and met an image without one.

    Args:
        config: the settings.
        problem: what has no label, as the beginning of a sentence.
    """
    objective = config.resolved_objective
    other = {"distill": ", or --distillation_weight=1"}.get(objective, "")
    if config.contrastive:
        other = ", or --objective=nt_xent, with which only the linear head needs labels"
    return errors.UserError(
        f"{problem}, from which --objective={objective} learns; set --train_split to images that "
        f"all have labels{other}."
    )


def _check_pretraining(config: config_lib.Config, data: dataset.Data) -> dataset.Data:
    """Checks the labels of a run whose encoder reads none, and notes what they are missing for.

    Returns:
        The data with these notes; without labels and without an evaluation split, the training
        split takes its place.

    Raises:
        UserError: if no accuracy could be measured on this evaluation split, but on another one.
    """
    missing = data.why_unlabelled(data.train_split)
    if missing is not None:
        if config.mode == "train":
            return data
        note = f"{missing}, so no accuracy will be measured"
        if split_names.unknown(data.eval_split, data.source.splits):
            data = dataclasses.replace(data, eval_split=data.train_split)
            if config.evaluates_without_labels:
                note += "; what needs no labels will be measured on the training images"
        return _with_note(data, f"{note}.")
    _check_evaluation_labels(config, data)
    if config.mode == "eval" or not config.lineareval_while_pretraining or data.draws:
        return data
    partly = labels.why_partly_unlabelled(data.source, data.train_split)
    if partly is not None and config.contrastive:
        return _with_note(data, f"{partly}; the linear head learns from the other images.")
    return data


def _with_note(data: dataset.Data, note: str) -> dataset.Data:
    source = dataclasses.replace(data.source, notes=(*data.source.notes, note))
    return dataclasses.replace(data, source=source)


def _check_evaluation_labels(config: config_lib.Config, data: dataset.Data) -> None:
    if config.mode == "train":
        return
    missing = data.why_unlabelled(data.eval_split)
    if missing is not None:
        other = "" if config.mode == "eval" else f", or {without_evaluation(config)}"
        labelled = [split for split in data.source.splits if may_have_labels(data.source, split)]
        suitable = " or ".join(sorted(set(labelled) - {data.train_split}))
        raise errors.UserError(
            f"{missing}, which evaluation needs; set --eval_split to "
            f"{suitable or 'a split with labels'}{other}."
        )


def without_evaluation(config: config_lib.Config) -> str:
    """Returns the flags of the same training without an evaluation at its end."""
    fine_tunes = config.train_mode == "finetune"
    return "--mode=train --train_mode=finetune" if fine_tunes else "--mode=train"


def may_have_labels(source: sources.Source, split: str) -> bool:
    """Returns whether a split has labels, or cannot be read, which is reported where it is used."""
    try:
        return labels.is_labelled(source, split)
    except errors.UserError:
        return True
