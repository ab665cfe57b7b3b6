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


def _define_all() -> None:
    types = flagfile.types(config.Config)
    for field in FIELDS:
        _DEFINE[types[field.name]](field.name, field.default, metadata.describe(field).full_help)


_define_all()


def to_config() -> config.Config:
    """Returns the run that the parsed flags describe."""
    values: dict[str, Any] = {field.name: FLAGS[field.name].value for field in FIELDS}
    if values["mode"] in config.SHORT_MODES:
        values["mode"], values["train_mode"] = config.SHORT_MODES[values["mode"]]
    return config.Config(**values)
