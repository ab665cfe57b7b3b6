"""Reads values of the tables in the file of a study, and says what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import errors, text
from simclr_tf.config import flagfile
from simclr_tf.studies import cells

_KINDS: dict[type, str] = {
    str: "text",
    dict: "a table",
    list: "a list",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


class Reader:
    """Reads tables, and names the file in messages."""

    def __init__(self, path: pathlib.Path) -> None:
        """Reads a file.

        Args:
            path: path of the file.
        """
        self.path = path

    def fail(self, problem: str) -> errors.UserError:
        """Returns an error that begins with the name of the file."""
        return errors.UserError(f"The study {self.path} {problem}")

    def known(self, table: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
        """Refuses keys that mean nothing."""
        for key in table:
            if key not in keys:
                near = text.suggestion(key, keys) or f"; known are {', '.join(keys)}"
                raise self.fail(f"has the unknown key {key!r} in {where}{near}.")

    def get(self, table: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
        """Returns a value that must be there, and be of a type."""
        value = table.get(key)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            what = _KINDS[kind]
            found = "is missing" if value is None else f"is {value!r}"
            raise self.fail(f"needs {key} in {where} as {what}; it {found}.")
        return value

    def optional(self, table: Mapping[str, Any], key: str, default: Any, where: str) -> Any:
        """Returns a value that, if it is there, is of the type of its default."""
        return self.get(table, key, type(default), where) if key in table else default

    def texts(self, table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
        """Returns a list of texts that must be there."""
        values = self.get(table, key, list, where)
        if not all(type(value) is str for value in values):
            raise self.fail(f"needs {key} in {where} as a list of texts; it is {values!r}.")
        return tuple(values)

    def flags(self, table: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Returns flags with values of the types that they have."""
        kinds = flagfile.types(config_lib.Config)
        flags = {}
        for name, value in table.items():
            if name in cells.OWN_FLAGS:
                raise self.fail(f"sets {name} in {where}, which a study sets itself; leave it out.")
            if name not in kinds:
                near = text.suggestion(name, kinds) or "; flags are written without --"
                raise self.fail(f"sets {name} in {where}, which is not a flag{near}.")
            kind = kinds[name]
            value = float(value) if kind is float and type(value) is int else value
            if type(value) is not kind:
                raise self.fail(
                    f"sets {name} in {where} to {value!r}, which must be of type {kind.__name__}."
                )
            flags[name] = value
        return flags
