"""The settings of runs for reports: those that differ from the defaults, or between runs."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
import shlex
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf.config import flagfile, metadata
from simclr_tf.runs import directory

# Where a run is does not describe it.
_PLACE = ("model_dir",)
# Without --dataset, the program would use the built-in digits.
_ALWAYS_GIVEN = ("mode", "dataset")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting that differs from its default.

    Attributes:
        section: title of its group.
        flag: the flag that sets it.
        default: its default, as text.
    """

    section: str
    flag: str
    default: str


@dataclasses.dataclass(frozen=True)
class Difference:
    """A setting that differs between runs.

    Attributes:
        name: name of its flag.
        values: its value in each run, as text.
    """

    name: str
    values: tuple[str, ...]


def changed(config: config_lib.Config) -> list[Setting]:
    """Returns the settings that differ from the defaults of their command."""
    found = []
    for field in _stored_fields():
        value, default = getattr(config, field.name), _default(config, field)
        if value != default:
            section = metadata.describe(field).section
            found.append(Setting(section, flagfile.to_flag(field.name, value), shown(default)))
    return found


def commands(folder: str, config: config_lib.Config) -> tuple[str, str]:
    """Returns two commands that run the same again, in another folder.

    Args:
        folder: the run directory.
        config: its settings.

    Returns:
        The command that reads the flagfile of the run, and one with all flags.
    """
    path = os.path.join(folder, directory.FLAGS)
    place = "--model_dir=NEW_FOLDER"
    brief = f"python run.py {shlex.quote(f'--flagfile={path}')} {place}"
    flags = [
        flagfile.to_flag(field.name, getattr(config, field.name))
        for field in _stored_fields()
        if field.name in _ALWAYS_GIVEN or getattr(config, field.name) != _default(config, field)
    ]
    return brief, " \\\n    ".join(["python run.py", *map(shlex.quote, flags), place])


def differences(configs: Sequence[config_lib.Config]) -> list[Difference]:
    """Returns the settings that differ between runs, "auto" replaced by what it means."""
    found = []
    for field in _stored_fields():
        values = [_resolved(config, field.name) for config in configs]
        if any(value != values[0] for value in values):
            found.append(Difference(field.name, tuple(map(shown, values))))
    return found


def shown(value: Any) -> str:
    """Returns a value of a setting as text."""
    if value is None:
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _stored_fields() -> list[dataclasses.Field]:
    return [
        field
        for field in dataclasses.fields(config_lib.Config)
        if metadata.describe(field).stored and field.name not in _PLACE
    ]


def _default(config: config_lib.Config, field: dataclasses.Field) -> Any:
    fine_tuning = metadata.describe(field).fine_tuning
    if config.train_mode == "finetune" and fine_tuning is not None:
        return fine_tuning
    return field.default


def _resolved(config: config_lib.Config, name: str) -> Any:
    return getattr(config, f"resolved_{name}", getattr(config, name))
