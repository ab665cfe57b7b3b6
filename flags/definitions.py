"""Defines a flag of run.py for every field of `simclr_tf.config.Config`, from its description.

Only run.py and this package read flags; simclr_tf/ is given a frozen Config.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from absl import flags

from simclr_tf import config, paths
from simclr_tf.config import flagfile, metadata

FLAGS = flags.FLAGS

_DEFINE: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
FIELDS = dataclasses.fields(config.Config)
# Names of the flags whose values are paths.
PATHS = tuple(field.name for field in FIELDS if metadata.describe(field).is_path)


class _PathParser(flags.ArgumentParser):
    """Parses a path: a local one becomes absolute, and the empty one unsets the flag."""

    def parse(self, argument: str) -> str | None:
        return paths.absolute(argument) or None


class _DataSetParser(flags.ArgumentParser):
    """Parses the name of a data set: a path in it becomes absolute."""

    def parse(self, argument: str) -> str:
        return paths.absolute_data_set(argument)


def _define_all() -> None:
    types = flagfile.types(config.Config)
    for field in FIELDS:
        described = metadata.describe(field)
        if described.is_path:
            flags.DEFINE(_PathParser(), field.name, field.default, described.full_help)
        elif field.name == "dataset":
            flags.DEFINE(_DataSetParser(), field.name, field.default, described.full_help)
        else:
            _DEFINE[types[field.name]](field.name, field.default, described.full_help)


_define_all()


def to_config() -> config.Config:
    """Returns the run that the parsed flags describe."""
    values: dict[str, Any] = {field.name: FLAGS[field.name].value for field in FIELDS}
    if values["mode"] in config.SHORT_MODES:
        values["mode"], values["train_mode"] = config.SHORT_MODES[values["mode"]]
    return config.Config(**values)
