"""Defines a flag of run.py for every field of `simclr_tf.config.Config`, from its description.

Only run.py and this package read flags; simclr_tf/ is given a frozen Config.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from absl import flags

from simclr_tf import config
from simclr_tf.config import flagfile, metadata

FLAGS = flags.FLAGS

_DEFINE: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
FIELDS = dataclasses.fields(config.Config)
_FIELD = {field.name: field for field in FIELDS}


class _PathParser(flags.ArgumentParser):
    """Parses what is or contains a path, which becomes absolute if it is local.

    An empty path unsets the flag.
    """

    def __init__(self, setting: metadata.Setting) -> None:
        self._setting = setting

    def parse(self, argument: str) -> str | None:
        value = self._setting.absolute(argument)
        return None if self._setting.is_path and not value else value


def _define_all() -> None:
    types = flagfile.types(config.Config)
    for field in FIELDS:
        described = metadata.describe(field)
        if described.is_path or described.path_pattern:
            flags.DEFINE(_PathParser(described), field.name, field.default, described.full_help)
        else:
            _DEFINE[types[field.name]](field.name, field.default, described.full_help)


_define_all()


def path_of(name: str) -> str | None:
    """Returns the path in the value of a parsed flag, None if there is none."""
    value = FLAGS[name].value
    return metadata.describe(_FIELD[name]).path_in(value) if isinstance(value, str) else None


def to_config() -> config.Config:
    """Returns the run that the parsed flags describe."""
    values: dict[str, Any] = {field.name: FLAGS[field.name].value for field in FIELDS}
    if values["mode"] in config.SHORT_MODES:
        values["mode"], values["train_mode"] = config.SHORT_MODES[values["mode"]]
    return config.Config(**values)
