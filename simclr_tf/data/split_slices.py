"""Finds the stored examples that a split in the syntax of tensorflow-datasets consists of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds

from simclr_tf import errors, text
from simclr_tf.data import folder, preparation, split_names


def of_split(
    split: str, dataset: str, splits: Mapping[str, int], split_infos: Mapping[str, Any]
) -> list[folder.Slice]:
    """Returns the slices of the stored splits that a split consists of.

    Args:
        split: split such as "train", "train[:10%]" or "train+test".
        dataset: name of the data set, for messages.
        splits: name of a stored split -> number of examples.
        split_infos: name of a stored split -> tfds.core.SplitInfo.

    Raises:
        errors.UserError: if there is no such split, or nothing in it.
    """
    split = split_names.resolve(split, splits)
    has = split_names.listed(splits)
    for name in split_names.unknown(split, splits):
        raise errors.UserError(
            f"The data set {dataset!r} has no split {name!r}"
            f"{text.suggestion(name, splits)}; it has {has}."
        )
    try:
        instruction = tfds.core.ReadInstruction.from_spec(split)
        instructions = instruction.to_absolute(split_infos)
    except (ValueError, NotImplementedError, AssertionError, TypeError) as error:
        raise errors.UserError(
            f"The split {split!r} of {dataset!r}, which has {has}, cannot be read "
            f"({preparation.reason(error)}); write it like train, train[:10%], train[500:] or "
            "train+test."
        ) from error
    slices = [
        (name, one.from_ or 0, splits[name] if one.to is None else one.to)
        for name, one in ((str(one.splitname), one) for one in instructions)
    ]
    slices = [(name, start, stop) for name, start, stop in slices if start < stop]
    if not slices:
        raise errors.UserError(
            f"The split {split!r} of {dataset!r} selects no examples, and the data set has "
            f"{has}; select more."
        )
    return slices
