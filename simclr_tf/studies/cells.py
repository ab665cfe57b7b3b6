"""The runs of a study's cells: their flags, their identity and their folders."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import json
import os
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.config import flagfile
from simclr_tf.config.sections import studies as settings
from simclr_tf.data import label_origin
from simclr_tf.studies import definition

# Flags that a study sets for every run, and those of the study itself.
OWN_FLAGS = (
    *("mode", "model_dir", "checkpoint", "seed"),
    *(field.name for field in dataclasses.fields(settings.StudySettings)),
)
_FOLDER = "cells"
# Flags that say where data or files are; the same run with other values is the same run.
_PLACES = ("data_dir", "model_dir")


@dataclasses.dataclass(frozen=True)
class Run:
    """A training, which is a run directory. Equal runs of several studies are one run.

    Attributes:
        flags: its flags, without --model_dir and --checkpoint.
        parent: the run whose weights it starts from; None if it starts from scratch.
        title: a few words for people, which are not part of its identity.
    """

    flags: Mapping[str, Any]
    parent: Run | None = None
    title: str = dataclasses.field(default="", compare=False)

    @functools.cached_property
    def identity(self) -> str:
        """A name that only a run with the same flags and the same start has."""
        flags = {
            name: value
            for name, value in self.flags.items()
            if not self._is_place(name) and not self._is_default(name, value)
        }
        start = self.parent.identity if self.parent is not None else None
        content = json.dumps([sorted(flags.items()), start])
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def _is_place(self, name: str) -> bool:
        """Returns whether a flag only says where files are."""
        # The images of a folder have no other name than their path.
        return name in _PLACES and not (
            name == "data_dir" and self.flags.get("dataset") == label_origin.IMAGE_FOLDER
        )

    def _is_default(self, name: str, value: Any) -> bool:
        """Returns whether a flag would have the same value if it was not given."""
        _, train_mode = _modes(self.flags)
        if train_mode == "finetune" and name in config_lib.Config.fine_tuning_defaults():
            return False  # Fine-tuning has another default.
        return value == getattr(config_lib.Config, name)

    def folder(self, root: str) -> str:
        """Returns its run directory, below the folder of all studies."""
        return os.path.join(root, _FOLDER, self.identity)

    def arguments(self, root: str) -> list[str]:
        """Returns the arguments of the program that train and evaluate it."""
        flags = dict(self.flags)
        if self.parent is not None:
            flags["checkpoint"] = self.parent.folder(root)
        flags["model_dir"] = self.folder(root)
        return [flagfile.to_flag(name, value) for name, value in flags.items()]

    def config(self, root: str) -> config_lib.Config:
        """Returns its settings.

        Raises:
            UserError: if they cannot be combined.
        """
        values = dict(self.flags)
        mode, train_mode = _modes(values)
        if train_mode == "finetune":
            values = {**config_lib.Config.fine_tuning_defaults(), **values}
        checkpoint = None if self.parent is None else self.parent.folder(root)
        config = config_lib.Config(
            **{**values, "mode": mode, "train_mode": train_mode, "checkpoint": checkpoint}
        )
        config_lib.validate(config)
        return config


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell with one seed.

    Attributes:
        labels: its value of each axis.
        seed: the seed.
        run: the run that is evaluated.
        tuned: labels of the settings that were chosen for it.
    """

    labels: definition.Labels
    seed: int
    run: Run
    tuned: definition.Labels = dataclasses.field(default_factory=dict)


def _modes(flags: Mapping[str, Any]) -> tuple[str, str]:
    """Returns --mode and --train_mode, where the first may be a short form of both."""
    mode = flags.get("mode", "train_then_eval")
    if mode in config_lib.SHORT_MODES:
        return config_lib.SHORT_MODES[mode]
    return mode, flags.get("train_mode", "pretrain")


def make_run(
    study: definition.Study,
    labels: definition.Labels,
    seed: int,
    *,
    overrides: Mapping[str, Any],
    tuned: definition.Labels | None = None,
    more: Mapping[str, Any] | None = None,
) -> Run:
    """Returns the run of a cell.

    Args:
        study: the study.
        labels: the labels of the cell.
        seed: the seed.
        overrides: flags of the command line, which win over those of all cells.
        tuned: labels of the settings that are tuned.
        more: flags that win over all others, such as those of the runs to tune on.

    Raises:
        UserError: if an override is what an axis varies, or no data set is named.
    """
    all_labels = {**labels, **(tuned or {})}
    axes = (*study.axes, *(study.tuning.axes if study.tuning else ()))
    of_stage: dict[bool, dict[str, Any]] = {True: {}, False: {}}
    for axis in axes:
        if axis.name in all_labels:
            label = all_labels[axis.name]
            of_stage[False].update(axis.values[label])
            of_stage[True].update(axis.first_stage.get(label, {}))
    of_stage[False].update(definition.composed(study, labels))
    for name in overrides:
        if name in of_stage[True] or name in of_stage[False]:
            raise errors.UserError(
                f"--{name} is what the study {study.name} varies, so it cannot be given; leave it "
                "out, or copy the file of the study and change its values."
            )
    # What settings are tuned on stays apart from the images of the results, whatever is given.
    last = {**overrides, **(more or {}), "seed": seed}
    title = f"{study.name}: {definition.described(all_labels)}, seed {seed}"
    parent = None
    if study.first_stage is not None and study.has_first_stage(labels):
        flags = {"mode": "train", **study.first_stage, **of_stage[True], **last}
        parent = Run(flags, None, f"{title}, first stage")
    flags = {"mode": "train_then_eval", **study.flags, **of_stage[False], **last}
    if "dataset" not in flags or (parent is not None and "dataset" not in parent.flags):
        # The program would use a recipe, whose flags are not part of a run's identity.
        raise errors.UserError(
            f"The study {study.name} names no data set; add dataset to its flags and its "
            "[first_stage], or give --dataset."
        )
    return Run(flags, parent, title)


def check(study: definition.Study, run: Run, root: str) -> None:
    """Refuses settings that cannot be combined or compared, before any run is trained.

    Raises:
        UserError: for the first of them.
    """
    for one in filter(None, (run.parent, run)):
        try:
            config = one.config(root)
        except errors.UserError as error:
            raise errors.UserError(f"The study {study.name}, {one.title}: {error}") from error
        if one is run and config.contrastive and not config.linear_eval:
            raise errors.UserError(
                f"The study {study.name}, {one.title}: --nolinear_eval leaves no predictions to "
                "compare; leave linear_eval out."
            )
