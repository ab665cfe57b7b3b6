"""The data sets of a transfer: opened, with the split to score on and the images to choose on."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
import re
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import errors, paths, storage
from simclr_tf.data import label_origin, sources, split_names
from simclr_tf.runs import dataset, label_checks
from simclr_tf.transfer import several_labels

TOP_1, MEAN_PER_CLASS, MEAN_AVERAGE_PRECISION = "top-1", "mean per class", "11-point mAP"
# Data sets whose number in SimCLR's tables is the mean over classes of their accuracies: FGVC
# Aircraft, Oxford-IIIT Pets, Caltech-101 and Oxford 102 Flowers.
_MEAN_PER_CLASS = (
    *("aircraft", "fgvc_aircraft", "oxford_iiit_pet", "caltech101", "oxford_flowers102"),
)
_TEST = "test"


@dataclasses.dataclass(frozen=True)
class Target:
    """A data set to transfer to.

    Attributes:
        name: as the user wrote it.
        folder: a name for the folder of its cells, which no other target has.
        config: the settings with its data.
        data: the data set, with the split to learn from and the one to score on.
        validation_split: the labelled split of its own on which to choose; None if a fifth of the
            images to learn from is held out for that.
    """

    name: str
    folder: str
    config: config_lib.Config
    data: dataset.Data
    validation_split: str | None

    @property
    def metric(self) -> str:
        """MEAN_AVERAGE_PRECISION if images may have several labels.

        Otherwise TOP_1 or MEAN_PER_CLASS, whichever SimCLR reports for the data set.
        """
        several = self.data.source.several_labels
        return MEAN_AVERAGE_PRECISION if several else metric_of(self.name)

    @property
    def all_split(self) -> str:
        """All images that may be learned from, those to choose on included."""
        own = self.validation_split
        return f"{self.data.train_split}+{own}" if own else self.data.train_split


def metric_of(name: str) -> str:
    """Returns the metric that SimCLR reports for a data set of one label per image (B.8.1).

    Args:
        name: a name of tensorflow-datasets, which may have a configuration and a version, or the
            path of a folder, whose own name decides.
    """
    base = (
        os.path.basename(name.rstrip("/"))
        if storage.is_folder_name(name)
        else re.split("[/:]", name)[0]
    )
    return MEAN_PER_CLASS if base.lower() in _MEAN_PER_CLASS else TOP_1


def open_targets(config: config_lib.Config, *, eval_split_given: bool) -> list[Target]:
    """Opens the data sets of --transfer_to.

    Args:
        config: the settings.
        eval_split_given: whether the split to score on was given explicitly. If not, it is the
            test split or, if there is none, another usual one.

    Raises:
        UserError: if one cannot be opened, or has no labels.
    """
    names = config.transfer_names
    folders = unique_folders(names)
    return [
        _open(config, name, folder, eval_split_given=eval_split_given)
        for name, folder in zip(names, folders, strict=True)
    ]


def unique_folders(names: Sequence[str]) -> list[str]:
    """Returns a name for a folder for each name: its last part, or all if that is not unique."""
    short = [_file_name(os.path.basename(name.rstrip("/"))) for name in names]
    return [
        _file_name(name) if short.count(brief) > 1 else brief
        for name, brief in zip(names, short, strict=True)
    ]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("_.") or "_"


def _open(config: config_lib.Config, name: str, folder: str, *, eval_split_given: bool) -> Target:
    of_target: dict[str, Any]
    if storage.is_folder_name(name):
        of_target = {"dataset": sources.IMAGE_FOLDER, "data_dir": paths.absolute(name)}
    else:
        of_target = {"dataset": name, "labels": label_origin.FOLDERS}
    config = dataclasses.replace(config, group=None, **of_target)
    try:
        source = dataset.open_source(config, several_labels=True)
    except errors.ArgumentError as error:  # In the words of the flag that names it here.
        raise errors.UserError(f"--transfer_to names {name}, which {error.problem}") from error
    if source.class_names is None:
        raise errors.UserError(
            f"--transfer_to names {name}, which has no labels; name data sets with labels, such as "
            "folders with one folder of images per class."
        )
    if len(source.class_names) < 2:
        raise errors.UserError(
            f"--transfer_to names {name}, which has only one class, {source.class_names[0]!r}; "
            "name data sets with at least two."
        )
    if source.several_labels:
        several_labels.check_settings(config, name)
    validation = None
    if not eval_split_given:
        config, validation = _with_usual_splits(config, source)
    # What this checks is what an evaluation on labels needs.
    checked = dataclasses.replace(config, mode="train_then_eval", train_mode="finetune")
    data = dataset.open_data(
        checked,
        eval_split_given=eval_split_given or validation is not None,
        several_labels=True,
    )
    config = dataclasses.replace(config, train_split=data.train_split, eval_split=data.eval_split)
    target = Target(name, folder, config, data, validation)
    if source.several_labels:
        several_labels.check_splits(name, data.source, target.all_split, data.eval_split)
    return target


def _with_usual_splits(
    config: config_lib.Config, source: sources.Source
) -> tuple[config_lib.Config, str | None]:
    """Returns the settings with the test split to score on, and a split to choose on, if any.

    A data set with a test and another labelled split, such as Oxford Flowers, has the other one to
    choose on.
    """
    usual = [
        split
        for split in split_names.for_evaluation(source.splits)
        if label_checks.may_have_labels(source, split)
    ]
    test = next((split for split in usual if split_names.usual(split) == _TEST), None)
    others = [split for split in usual if split != test]
    if test is None or not others:
        return config, None
    return dataclasses.replace(config, eval_split=test), others[0]
