"""The text of a flagfile from a dataclass of settings, and back."""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Any

from simclr_tf import errors
from simclr_tf.config import metadata

# As absl reads them on the command line.
_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def to_text(settings: Any) -> str:
    """Returns a flagfile that describes all settings that are stored with a run.

    Settings that are None are left out: no flag can set None, and it is their default.

    Raises:
        UserError: for a value with a line break, which a flagfile cannot hold.
    """
    lines = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is not None and metadata.describe(field).stored:
            lines.append(to_flag(field.name, value))
        if "\n" in str(value):
            raise errors.UserError(
                f"--{field.name}={value!r} has a line break, which a flagfile cannot hold; use "
                "another name."
            )
    return "\n".join(lines) + "\n"


def to_flag(name: str, value: Any) -> str:
    """Returns the flag that sets a setting: --name=value, or --name and --noname for booleans."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    return f"--{name}={'' if value is None else value}"


def parse(kind: type, text: str, *, origin: str) -> dict[str, Any]:
    """Returns the settings that the lines of a flagfile name.

    Args:
        kind: the dataclass of the settings.
        text: lines of --name=value, --name and --noname; blank lines and comments, which begin with
            # or //, are allowed.
        origin: name of the file, for messages.

    Raises:
        UserError: for a line that does not set a field of `kind` to a value of its type.
    """
    values: dict[str, Any] = {}
    for line in map(str.lstrip, text.splitlines()):
        if not line or line.startswith(("#", "//")):
            continue
        try:
            name, value = _parse_line(types(kind), line)
        except (ValueError, KeyError) as error:
            raise errors.UserError(
                f"{origin} has the line {line!r}, which is not a flag of this program with a valid "
                "value; restore the file, or use another --model_dir."
            ) from error
        values[name] = value
    return values


@functools.cache
def types(kind: type) -> dict[str, type]:
    """Returns the type of the values of each field: bool, int, float or str."""
    return {
        name: next(t for t in (bool, int, float, str) if t in (hint, *typing.get_args(hint)))
        for name, hint in typing.get_type_hints(kind).items()
    }


def _parse_line(types: dict[str, type], line: str) -> tuple[str, Any]:
    """Returns the name and the value that a line sets."""
    if not line.startswith("--"):
        raise ValueError(line)
    name, assigned, value = line[2:].partition("=")
    if assigned:
        return name, _boolean(value) if types[name] is bool else types[name](value)
    negated = name not in types and name.startswith("no")
    name = name.removeprefix("no") if negated else name
    if types[name] is not bool:
        raise ValueError(line)
    return name, not negated


def _boolean(value: str) -> bool:
    """Returns the value of --name=true or --name=false, or of a short form of it."""
    return _BOOLEANS[value.strip().lower()]
