"""Whether a run can be resumed with the given settings and data, and the record of changes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
import dataclasses
import datetime
import json
import os
from typing import Any

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, storage, text
from simclr_tf.config import metadata
from simclr_tf.data import label_origin, labels, record_files, sources
from simclr_tf.models import keras_encoders
from simclr_tf.runs import checkpoints, dataset, directory

HISTORY = "flags_history.jsonl"
DATA = "data.json"
# What identifies the training images in that file.
_FACTS = ("images", "classes", "labels")


@dataclasses.dataclass(frozen=True)
class Change:
    """Something that differs from what is stored with a run.

    Attributes:
        name: name of the setting as a flag, or what of the data differs.
        stored: its value in the run.
        given: its value now.
        allowed: whether --resume_with_changes allows it.
    """

    name: str
    stored: Any
    given: Any
    allowed: bool = True

    def __str__(self) -> str:
        """Describes the change in a message."""
        return f"{self.name}: {_shown(self.stored)} stored, {_shown(self.given)} given"


@dataclasses.dataclass(frozen=True)
class Resumption:
    """What training continues: a run with its changes, or nothing if it starts from step 0.

    Attributes:
        stored: the settings of the run; None if there is no run, or they are unknown.
        changes: what differs and changes the outcome, all of it allowed.
        data: what is stored about the training images, as in data.json.
    """

    stored: config_lib.Config | None
    changes: tuple[Change, ...]
    data: dict[str, Any]


def check_settings(
    config: config_lib.Config, model_dir: str, *, ignored: Collection[str] = ()
) -> None:
    """Refuses to resume a run with settings that change its outcome, unless they are allowed.

    Args:
        config: the settings.
        model_dir: the run directory, with a checkpoint.
        ignored: names of settings that are not compared.

    Raises:
        UserError: naming every setting that differs, with both values and the remedies.
    """
    stored = directory.read_config(model_dir)
    if stored is None:
        return
    if stored.mode == "convert":
        raise errors.UserError(
            f"--model_dir={model_dir} contains converted weights, not a training run that could "
            f"be resumed; start from them with --checkpoint={model_dir} and another --model_dir."
        )
    config = dataclasses.replace(config, **{name: getattr(stored, name) for name in ignored})
    changes = changed_settings(stored, config)
    if changes and config.train_steps:
        check_length(model_dir, config.train_steps)
    _refuse_changes(config, model_dir, changes)


def check(config: config_lib.Config, model_dir: str, data: dataset.Data) -> Resumption:
    """Refuses what `check_settings` does, and other data than those of the run.

    Args:
        config: the settings.
        model_dir: the run directory, which is locked.
        data: the data set, before unreadable images are excluded.

    Raises:
        UserError: see `check_settings`.
    """
    facts = _facts(config, data)
    if checkpoints.latest(model_dir) is None:
        return Resumption(None, (), facts)
    check_settings(config, model_dir)
    stored = directory.read_config(model_dir)
    if stored is None:
        console.warn(
            f"--model_dir={model_dir} has checkpoints but no {directory.FLAGS}, so the settings "
            "that it was trained with are unknown; it resumes with those of this command."
        )
        return Resumption(None, (), facts)
    changes = [
        *changed_settings(stored, config),
        *_changed_data(stored, config, _read_facts(model_dir), facts),
    ]
    _refuse_changes(config, model_dir, changes)
    return Resumption(stored, tuple(changes), facts)


def check_length(model_dir: str, total_steps: int) -> None:
    """Refuses to train fewer steps than a run has been trained already.

    Raises:
        UserError: with both numbers.
    """
    latest = checkpoints.latest(model_dir)
    trained = 0 if latest is None else checkpoints.step_of(latest)
    if trained > total_steps:
        raise errors.UserError(
            f"--model_dir={model_dir} has been trained for {trained:,} steps, more than the "
            f"{total_steps:,} that are now to be trained; train longer (--train_steps, "
            "--train_epochs), or use another --model_dir."
        )


def check_unfinished(resumption: Resumption, model_dir: str, step: int) -> None:
    """Refuses changes to a run that has no step left to train.

    Raises:
        UserError: naming the changes.
    """
    if resumption.changes:
        raise errors.UserError(
            f"--model_dir={model_dir} is finished at step {step:,}, so these changes would have no "
            f"effect ({_listed(resumption.changes)}); train longer (--train_steps, "
            "--train_epochs), leave them out, or use another --model_dir."
        )


def record(config: config_lib.Config, model_dir: str, resumption: Resumption, step: int) -> None:
    """Stores the settings and the data of a run, and what changed at which step and time.

    Args:
        config: the settings, with the evaluation split that the data has.
        model_dir: the run directory.
        resumption: the result of `check`.
        step: the step that training starts from.

    Raises:
        UserError: if the disk is full or refuses.
    """
    if resumption.changes:
        path = os.path.join(model_dir, HISTORY)
        storage.append(path, json.dumps(_entry(resumption.changes, step)) + "\n")
        console.say(
            f"Resuming at step {step:,} with changes ({_listed(resumption.changes)}), which are "
            f"recorded in {path}."
        )
    if resumption.stored is not None:
        # A resumed run reads no --checkpoint: the one that it started from describes it.
        config = dataclasses.replace(config, checkpoint=resumption.stored.checkpoint)
    directory.write_config(model_dir, config)
    storage.write_json(os.path.join(model_dir, DATA), resumption.data)


def changed_settings(stored: config_lib.Config, given: config_lib.Config) -> list[Change]:
    """Returns the settings that differ and change the outcome of a run.

    They are compared as training uses them: "auto" does not differ from what it means, and a
    relative path does not differ from the absolute one.
    """
    changes = []
    for field in dataclasses.fields(given):
        resume = metadata.describe(field).resume
        if resume != metadata.FREELY and _differs(stored, given, field):
            before, now = (_resolved(config, field) for config in (stored, given))
            allowed = resume == metadata.WITH_CHANGES
            changes.append(Change(f"--{field.name}", before, now, allowed=allowed))
    return changes


def _differs(stored: config_lib.Config, given: config_lib.Config, field: dataclasses.Field) -> bool:
    name = field.name
    if getattr(stored, name) == getattr(given, name):
        return False
    if name == "train_epochs" and (stored.train_steps or given.train_steps):
        return False  # The number of steps is compared instead.
    if name == "resnet_depth" and stored.encoder != keras_encoders.RESNET:
        return False
    if name == "dataset" and all(
        config.dataset.startswith(record_files.PREFIX) for config in (stored, given)
    ):
        return False  # The files may have been moved. Their images and classes are compared.
    if name == "data_service":  # Its address does not matter.
        return stored.data_service is None or given.data_service is None
    return _resolved(stored, field) != _resolved(given, field)


def _resolved(config: config_lib.Config, field: dataclasses.Field) -> Any:
    """Returns the value of a setting, with "auto" replaced by what it means."""
    resolved = f"resolved_{field.name}"
    value = getattr(config, resolved if hasattr(config, resolved) else field.name)
    # Older runs stored relative paths.
    return metadata.describe(field).absolute(value) if isinstance(value, str) else value


def _facts(config: config_lib.Config, data: dataset.Data) -> dict[str, Any]:
    """Returns what identifies the training images, wherever they are."""
    names = data.source.class_names
    facts: dict[str, Any] = {
        "images": data.source.num_examples(data.train_split),
        "classes": None if names is None else list(names),
    }
    if label_origin.is_file(config.resolved_labels):
        facts["labels"] = labels.fingerprint(data.source, data.train_split)
    return facts


def _read_facts(model_dir: str) -> dict[str, Any] | None:
    path = os.path.join(model_dir, DATA)
    return storage.read_json(path) if tf.io.gfile.exists(path) else None


def _changed_data(
    stored: config_lib.Config,
    given: config_lib.Config,
    stored_facts: dict[str, Any] | None,
    facts: dict[str, Any],
) -> list[Change]:
    """Returns in what the training images differ. A folder of images may have been moved."""
    if stored_facts is None:  # An older run.
        if given.resolved_dataset != sources.IMAGE_FOLDER:
            return []
        before, now = (
            {"--data_dir": config.data_dir, "--labels": config.resolved_labels}
            for config in (stored, given)
        )
    else:
        before, now = (
            {f"{name} of the training data": values.get(name) for name in _FACTS}
            for values in (stored_facts, facts)
        )
    return [Change(name, before[name], now[name]) for name in now if before[name] != now[name]]


def _refuse_changes(config: config_lib.Config, model_dir: str, changes: list[Change]) -> None:
    """Refuses changes that are not allowed."""
    flags = os.path.join(model_dir, directory.FLAGS)
    never = [change.name for change in changes if not change.allowed]
    if never:
        raise errors.UserError(
            f"--model_dir={model_dir} contains a different training run ({_listed(changes)}); use "
            f"another --model_dir, or the settings of that run (--flagfile={flags}): its "
            f"checkpoints do not allow another {', '.join(never)}."
        )
    if changes and not config.resume_with_changes:
        raise errors.UserError(
            f"--model_dir={model_dir} contains a run with other settings or data "
            f"({_listed(changes)}); use another --model_dir, the settings of that run "
            f"(--flagfile={flags}), or --resume_with_changes to train it further with these."
        )


def _listed(changes: Iterable[Change]) -> str:
    return "; ".join(map(str, changes))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} ({text.shortened(value)})"
    return "none" if value is None else str(value)


def _entry(changes: Iterable[Change], step: int) -> dict[str, Any]:
    """Returns the line of the history for some changes, for `json.dumps`."""
    return {
        "step": step,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "changes": {
            change.name.removeprefix("--"): {"stored": change.stored, "given": change.given}
            for change in changes
        },
    }
