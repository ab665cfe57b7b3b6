"""Reads the file of a study, in TOML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import tomllib
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import errors, text
from simclr_tf.config import flagfile
from simclr_tf.studies import definition

_TEXTS = ("title", "question", "finding", "source", "paper_scale")
_KEYS = (
    *(*_TEXTS, "notes", "flagfile", "flags", "first_stage", "axes", "compose", "seeds"),
    *("orders", "figure", "columns", "tuning", "minutes", "measurement"),
)
_KINDS: dict[type, str] = {str: "text", dict: "a table", list: "a list", int: "a whole number"}
# Flags that a study sets for every run itself.
_OWN_FLAGS = ("model_dir", "checkpoint", "seed", "study")


class _Reader:
    """Reads tables, and names the file in messages."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def fail(self, problem: str) -> errors.UserError:
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
        if not isinstance(value, kind):
            what = _KINDS[kind]
            found = "is missing" if value is None else f"is {value!r}"
            raise self.fail(f"needs {key} in {where} as {what}; it {found}.")
        return value

    def flags(self, table: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Returns flags with values of the types that they have."""
        kinds = flagfile.types(config_lib.Config)
        flags = {}
        for name, value in table.items():
            if name not in kinds or name in _OWN_FLAGS:
                near = text.suggestion(name, kinds)
                reason = "which the study sets itself" if name in _OWN_FLAGS else "which is no flag"
                raise self.fail(f"sets {name} in {where}, {reason}{near}.")
            kind = kinds[name]
            value = float(value) if kind is float and type(value) is int else value
            if type(value) is not kind:
                raise self.fail(
                    f"sets {name} in {where} to {value!r}, which must be of type {kind.__name__}."
                )
            flags[name] = value
        return flags


def read(path: pathlib.Path) -> definition.Study:
    """Reads the file of a study.

    Args:
        path: path of the file; a flagfile that it names is beside it.

    Raises:
        UserError: if it cannot be read, or does not describe a study.
    """
    reader = _Reader(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise reader.fail(f"cannot be read ({text.reason(error)}); correct it.") from error
    reader.known(table, _KEYS, "the file")
    axes = tuple(
        _axis(reader, name, value)
        for name, value in reader.get(table, "axes", dict, "the file").items()
    )
    base = _flagfile(reader, table["flagfile"]) if "flagfile" in table else {}
    study = definition.Study(
        name=path.stem,
        **{key: reader.get(table, key, str, "the file") for key in _TEXTS},
        flags={**base, **reader.flags(table.get("flags", {}), "flags")},
        first_stage=_first_stage(reader, table, base),
        axes=axes,
        compose={flag: tuple(names) for flag, names in table.get("compose", {}).items()},
        seeds=_seeds(reader, table),
        orders=tuple(_order(reader, one) for one in table.get("orders", [])),
        figure=_figure(reader, reader.get(table, "figure", dict, "the file")),
        columns=table.get("columns", {}),
        tuning=_tuning(reader, table["tuning"]) if "tuning" in table else None,
        minutes=table.get("minutes"),
        notes=" ".join(table.get("notes", "").split()),
        measurement=_measurement(reader, table),
    )
    _check(reader, study)
    return study


def _flagfile(reader: _Reader, name: str) -> dict[str, Any]:
    """Returns the flags of a flagfile beside the study."""
    found = reader.path.parent / name
    try:
        content = found.read_text(encoding="utf-8")
    except OSError as error:
        raise reader.fail(
            f"names the flagfile {name}, which cannot be read ({text.reason(error)}); correct it."
        ) from error
    return flagfile.parse(config_lib.Config, content, origin=str(found))


def _first_stage(
    reader: _Reader, table: Mapping[str, Any], base: Mapping[str, Any]
) -> dict[str, Any] | None:
    if "first_stage" not in table:
        return None
    return {**base, **reader.flags(table["first_stage"], "first_stage")}


def _measurement(reader: _Reader, table: Mapping[str, Any]) -> str | None:
    name = table.get("measurement")
    if name is not None and name not in definition.MEASUREMENTS:
        raise reader.fail(
            f"has measurement = {name!r}; it is one of {', '.join(definition.MEASUREMENTS)}."
        )
    return name


def _seeds(reader: _Reader, table: Mapping[str, Any]) -> tuple[int, ...]:
    seeds = reader.get(table, "seeds", list, "the file")
    if not seeds or any(type(seed) is not int or seed < 0 for seed in seeds):
        raise reader.fail(f"has seeds = {seeds}; list integers from 0, such as [0, 1, 2].")
    return tuple(seeds)


def _axis(reader: _Reader, name: str, table: Mapping[str, Any]) -> definition.Axis:
    where = f"axes.{name}"
    if not isinstance(table, Mapping):
        raise reader.fail(f"needs {where} as a table with title and values.")
    reader.known(table, ("title", "values", "only", "first_stage"), where)
    values = reader.get(table, "values", dict, where)
    if len(values) < 1:
        raise reader.fail(f"has no values in {where}; name at least one.")
    return definition.Axis(
        name=name,
        title=reader.get(table, "title", str, where),
        values={
            label: reader.flags(flags, f"{where}.values.{label}") for label, flags in values.items()
        },
        only={axis: tuple(labels) for axis, labels in table.get("only", {}).items()},
        first_stage=bool(table.get("first_stage", False)),
    )


def _tuning(reader: _Reader, table: Mapping[str, Any]) -> definition.Tuning:
    reader.known(table, ("axes", "flags", "seed", "per"), "tuning")
    axes = reader.get(table, "axes", dict, "tuning")
    return definition.Tuning(
        axes=tuple(_axis(reader, name, value) for name, value in axes.items()),
        flags=reader.flags(table.get("flags", {}), "tuning.flags"),
        seed=reader.get(table, "seed", int, "tuning"),
        per=tuple(table["per"]) if "per" in table else None,
    )


def _side(reader: _Reader, table: Any, metric: str, where: str) -> definition.Side:
    """Returns a side: {axis = label, ...}, or {from = {...}, to = {...}} for a gain."""
    if not isinstance(table, Mapping):
        raise reader.fail(f"needs {where} as a table of axes and labels; it is {table!r}.")
    table = dict(table)
    metric = table.pop("metric", metric)
    if "from" in table or "to" in table:
        reader.known(table, ("from", "to"), where)
        to, start = (reader.get(table, key, dict, where) for key in ("to", "from"))
        return definition.Side(cells=to, minus=start, metric=metric)
    return definition.Side(cells=table, metric=metric)


def _order(reader: _Reader, table: Mapping[str, Any]) -> definition.Order:
    claim = reader.get(table, "claim", str, "orders")
    where = f"the order {claim!r}"
    reader.known(table, ("claim", "higher", "lower", "margin", "spread", "metric"), where)
    metric = table.get("metric", definition.ACCURACY)
    return definition.Order(
        claim=claim,
        higher=_side(reader, table.get("higher"), metric, where),
        lower=_side(reader, table.get("lower"), metric, where),
        margin=float(table.get("margin", 0.0)),
        spread=bool(table.get("spread", False)),
    )


def _figure(reader: _Reader, table: Mapping[str, Any]) -> definition.Figure:
    names = [field.name for field in dataclasses.fields(definition.Figure)]
    reader.known(table, names, "figure")
    if table.get("kind") not in definition.FIGURES:
        raise reader.fail(
            f"has figure.kind = {table.get('kind')!r}; it is one of "
            f"{', '.join(definition.FIGURES)}."
        )
    reader.get(table, "x", str, "figure")
    return definition.Figure(**table)


def _check(reader: _Reader, study: definition.Study) -> None:
    """Refuses names of axes and labels that the study does not have."""
    labels = study.all_labels()
    for axis in study.axes:
        if axis.first_stage and study.first_stage is None:
            raise reader.fail(f"has first_stage in axes.{axis.name}, but no [first_stage].")
    for order in study.orders:
        for side in (order.higher, order.lower):
            for wanted in filter(None, (side.cells, side.minus)):
                if not any(definition.matches(one, wanted) for one in labels):
                    raise reader.fail(
                        f"has no cell with {dict(wanted)} in the order {order.claim!r}; correct "
                        "the names of the axis and the label."
                    )
    names = [axis.name for axis in study.axes]
    used = [study.figure.x, *(name for of_flag in study.compose.values() for name in of_flag)]
    for name in [*used, *([study.figure.series] if study.figure.series else [])]:
        if name not in names:
            raise reader.fail(f"has no axis {name!r}; its axes are {', '.join(names)}.")
