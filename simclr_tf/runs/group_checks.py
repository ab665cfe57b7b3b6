"""Checks groups of images: whether splits have some in common, and whether names suggest some."""

from __future__ import annotations

from collections.abc import Sequence

from simclr_tf import config as config_lib
from simclr_tf import console, errors
from simclr_tf.data import group_names, label_origin, labels, split_names
from simclr_tf.runs import dataset

# More names are not looked at for the groups that they suggest.
_MOST_TRAIN, _MOST_EVAL = 100_000, 10_000


def check(config: config_lib.Config, data: dataset.Data) -> None:
    """Warns if groups are in both splits, or if names suggest groups although none are given.

    Raises:
        UserError: if all training images are one group, so that nothing can be held out.
    """
    splits = _both(data)
    if data.source.groups is not None:
        train = data.source.example_groups(data.train_split)
        assert train is not None
        _check_number(config, data, train)
        if splits:
            _warn_of_common(data, train)
    elif splits and label_origin.is_folder(config.dataset):
        _suggest(data)


def _both(data: dataset.Data) -> bool:
    """Returns whether there are images to evaluate on, in another split than those to train on."""
    evaluated, splits = data.eval_split, data.source.splits
    if split_names.unknown(evaluated, splits):
        return False
    try:
        data.source.slices(evaluated)
    except errors.UserError:  # Nothing is selected, which matters only if it is evaluated on.
        return False
    return evaluated != data.train_split


def _check_number(config: config_lib.Config, data: dataset.Data, train: Sequence[str]) -> None:
    """Refuses a single group of training images where a part of them is held out."""
    evaluates = config.mode != "train" and config.linear_eval and data.class_names is not None
    evaluates = evaluates and not data.draws  # Few labels may well be of one group.
    if evaluates and len(set(train)) == 1:
        raise errors.UserError(
            f"--group={config.group} puts all {len(train):,} images of {data.train_split!r} into "
            f"one group, {train[0]!r}, so none can be held out to choose the linear classifier on; "
            "give another --group, or leave it out."
        )


def _warn_of_common(data: dataset.Data, train: Sequence[str]) -> None:
    """Warns if evaluated groups are trained on."""
    evaluated = data.source.example_groups(data.eval_split)
    assert evaluated is not None
    common = sorted(set(train) & set(evaluated))
    if common:
        console.warn(
            f"{len(common):,} of the {len(set(evaluated)):,} groups of {data.eval_split!r} are "
            f"also in the training split {data.train_split!r}, for example {common[0]!r}; the "
            "accuracy says little about new groups."
        )


def _suggest(data: dataset.Data) -> None:
    """Warns if names suggest groups that are in both splits."""
    source, known = data.source, labels.known(data.source, data.eval_split)
    suggested = group_names.suggest(
        source.example_names(data.train_split)[:_MOST_TRAIN],
        source.example_names(data.eval_split)[:_MOST_EVAL],
        None if known is None else known[:_MOST_EVAL].tolist(),
    )
    if suggested is None:
        return
    console.warn(
        f"The names suggest that images come in groups, and {suggested.common:,} of the "
        f"{suggested.groups:,} groups of {data.eval_split!r}, for example {suggested.example!r}, "
        f"are also in {data.train_split!r}. If images of a group are not independent, give "
        f"--group='{suggested.expression}', which docs/evaluation.md explains."
    )
