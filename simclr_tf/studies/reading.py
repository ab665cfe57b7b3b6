"""Reads the file of a study, in TOML."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
import tomllib
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import text
from simclr_tf.config import flagfile
from simclr_tf.studies import checking, definition, tables

_TEXTS = ("title", "question", "finding", "source", "paper_scale")
_KEYS = (
    *(*_TEXTS, "notes", "flagfile", "flags", "first_stage", "axes", "compose", "seeds"),
    *("orders", "figure", "columns", "tuning", "minutes", "measurement"),
)
_AXIS_KEYS = ("title", "values", "only", "first_stage")
# Keys of a label's table that are no flags.
_FLAGFILE, _FIRST_STAGE = _VALUE_KEYS = ("flagfile", "first_stage")
_TUNING_KEYS = ("axes", "flags", "seed", "per")
_ORDER_KEYS = ("claim", "higher", "lower", "margin", "spread", "metric")
_FIGURE_KEYS = tuple(field.name for field in dataclasses.fields(definition.Figure))
# Names in an expected order that are not those of axes.
_WORDS_OF_SIDES = ("from", "to", "metric")


def read(path: pathlib.Path) -> definition.Study:
    """Reads the file of a study.

    Args:
        path: path of the file; a flagfile that it names is beside it.

    Raises:
        UserError: if it cannot be read, or does not describe a study.
    """
    reader = tables.Reader(path)
    if not path.exists():
        raise reader.fail("does not exist; correct its path, or give a name of --study=list.")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise reader.fail(f"cannot be read ({text.reason(error)}); correct it.") from error
    reader.known(table, _KEYS, "the file")
    base = _flagfile(reader, table, "the file")
    flags = {**base, **_flags(reader, table, "flags", "the file")}
    first_stage = _first_stage(reader, table, base)
    study = definition.Study(
        name=path.stem,
        **{key: reader.get(table, key, str, "the file") for key in _TEXTS},
        flags=flags,
        first_stage=first_stage,
        axes=_Axes(reader, flags, first_stage or {}).read(table, "the file"),
        compose=_compose(reader, table),
        seeds=_seeds(reader, table),
        orders=tuple(
            _order(reader, one) for one in reader.optional(table, "orders", [], "the file")
        ),
        figure=_figure(reader, reader.get(table, "figure", dict, "the file")),
        columns=_columns(reader, table),
        tuning=_tuning(reader, table, flags, first_stage or {}) if "tuning" in table else None,
        minutes=reader.get(table, "minutes", float, "the file") if "minutes" in table else None,
        measurement=_measurement(reader, table),
        notes=" ".join(reader.optional(table, "notes", "", "the file").split()),
    )
    checking.check(study, reader.fail)
    return study


def _flags(reader: tables.Reader, table: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """Returns the flags of a table that need not be there."""
    name = key if where == "the file" else f"{where}.{key}"
    return reader.flags(reader.optional(table, key, {}, where), name)


def _flagfile(reader: tables.Reader, table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the flags of a flagfile beside the study; none if the table does not name one."""
    if "flagfile" not in table:
        return {}
    name = reader.get(table, "flagfile", str, where)
    found = reader.path.parent / name
    try:
        content = found.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise reader.fail(
            f"names the flagfile {name}, which cannot be read ({text.reason(error)}); correct it."
        ) from error
    parsed = flagfile.parse(config_lib.Config, content, origin=str(found))
    if parsed.get("mode") == "train_then_eval":  # As in every cell.
        del parsed["mode"]
    return reader.flags(parsed, f"the flagfile {name}")


def _first_stage(
    reader: tables.Reader, table: Mapping[str, Any], base: Mapping[str, Any]
) -> dict[str, Any] | None:
    if "first_stage" not in table:
        return None
    return {**base, **_flags(reader, table, "first_stage", "the file")}


def _measurement(reader: tables.Reader, table: Mapping[str, Any]) -> str | None:
    name = table.get("measurement")
    if name is not None and name not in definition.MEASUREMENTS:
        raise reader.fail(
            f"has measurement = {name!r}; it is one of {', '.join(definition.MEASUREMENTS)}."
        )
    return name


def _compose(reader: tables.Reader, table: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    composed = reader.optional(table, "compose", {}, "the file")
    reader.flags(dict.fromkeys(composed, ""), "compose")  # Flags whose values are text.
    return {flag: reader.texts(composed, flag, "compose") for flag in composed}


def _columns(reader: tables.Reader, table: Mapping[str, Any]) -> dict[str, str]:
    columns = reader.optional(table, "columns", {}, "the file")
    return {title: reader.get(columns, title, str, "columns") for title in columns}


def _seeds(reader: tables.Reader, table: Mapping[str, Any]) -> tuple[int, ...]:
    seeds = reader.get(table, "seeds", list, "the file")
    if not seeds or any(type(seed) is not int or seed < 0 for seed in seeds):
        raise reader.fail(f"has seeds = {seeds}; list integers from 0, such as [0, 1, 2].")
    twice = [seed for seed in seeds if seeds.count(seed) > 1]
    if twice:
        raise reader.fail(f"has the seed {twice[0]} twice, in seeds = {seeds}; list each once.")
    return tuple(seeds)


@dataclasses.dataclass(frozen=True)
class _Axes:
    """Reads the axes of a study.

    Attributes:
        reader: reads the values.
        flags: flags of all cells, which override the flagfile of a label.
        first_stage: flags of all runs that cells start from, which do the same.
    """

    reader: tables.Reader
    flags: Mapping[str, Any]
    first_stage: Mapping[str, Any]

    def read(self, table: Mapping[str, Any], where: str) -> tuple[definition.Axis, ...]:
        """Returns the axes in a table."""
        axes = self.reader.get(table, "axes", dict, where)
        within = "axes" if where == "the file" else f"{where}.axes"
        return tuple(self._axis(name, value, f"{within}.{name}") for name, value in axes.items())

    def _axis(self, name: str, table: Any, where: str) -> definition.Axis:
        reader = self.reader
        if name in _WORDS_OF_SIDES:
            raise reader.fail(f"has {where}, a name with a meaning in orders; choose another one.")
        if not isinstance(table, Mapping):
            raise reader.fail(f"needs {where} as a table with title and values.")
        reader.known(table, _AXIS_KEYS, where)
        values = reader.get(table, "values", dict, where)
        only = reader.optional(table, "only", {}, where)
        if not values:
            raise reader.fail(f"has no values in {where}; name at least one.")
        tables_of = {label: reader.get(values, label, dict, f"{where}.values") for label in values}
        own, first = self._flags_of_labels(
            tables_of, reader.optional(table, "first_stage", False, where), f"{where}.values"
        )
        return definition.Axis(
            name=name,
            title=reader.get(table, "title", str, where),
            values=own,
            only={axis: reader.texts(only, axis, f"{where}.only") for axis in only},
            first_stage=first,
        )

    def _flags_of_labels(
        self, labels: Mapping[str, Mapping[str, Any]], all_first: bool, where: str
    ) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """Returns the flags that each label sets in its cells and in the runs they start from.

        Args:
            labels: label -> its table.
            all_first: whether the tables have flags of the first stage.
            where: name of the table of these tables.
        """
        own: dict[str, dict[str, Any]] = {label: {} for label in labels}
        first: dict[str, dict[str, Any]] = {}
        for label, table in labels.items():
            within = f"{where}.{label}"
            if all_first:
                first[label] = self._flags(table, within, self.first_stage)
                continue
            cell = {key: value for key, value in table.items() if key != _FIRST_STAGE}
            own[label] = self._flags(cell, within, self.flags)
            if _FIRST_STAGE in table:
                start = self.reader.get(table, _FIRST_STAGE, dict, within)
                first[label] = self._flags(start, f"{within}.{_FIRST_STAGE}", self.first_stage)
        return own, first

    def _flags(
        self, table: Mapping[str, Any], where: str, of_all: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns the flags of a table; its flagfile sets only what nothing else does."""
        given = {key: value for key, value in table.items() if key != _FLAGFILE}
        base = _flagfile(self.reader, table, where)
        return {
            **{name: value for name, value in base.items() if name not in of_all},
            **self.reader.flags(given, where),
        }


def _tuning(
    reader: tables.Reader,
    table: Mapping[str, Any],
    flags: Mapping[str, Any],
    first_stage: Mapping[str, Any],
) -> definition.Tuning:
    table = reader.get(table, "tuning", dict, "the file")
    reader.known(table, _TUNING_KEYS, "tuning")
    return definition.Tuning(
        axes=_Axes(reader, flags, first_stage).read(table, "tuning"),
        flags=_flags(reader, table, "flags", "tuning"),
        seed=reader.get(table, "seed", int, "tuning"),
        per=reader.texts(table, "per", "tuning") if "per" in table else None,
    )


def _side(
    reader: tables.Reader, order: Mapping[str, Any], key: str, metric: str, where: str
) -> definition.Side:
    """Returns a side: {axis = label, ...}, or {from = {...}, to = {...}} for a gain."""
    table = dict(reader.get(order, key, dict, where))
    where = f"{key} of {where}"
    metric = reader.optional(table, "metric", metric, where)
    table.pop("metric", None)
    if "from" in table or "to" in table:
        reader.known(table, ("from", "to"), where)
        to, start = (_labels(reader, table, end, where) for end in ("to", "from"))
        return definition.Side(cells=to, minus=start, metric=metric)
    return definition.Side(
        cells={axis: reader.get(table, axis, str, where) for axis in table}, metric=metric
    )


def _labels(
    reader: tables.Reader, table: Mapping[str, Any], key: str, where: str
) -> dict[str, str]:
    labels = reader.get(table, key, dict, where)
    return {axis: reader.get(labels, axis, str, f"{key} in {where}") for axis in labels}


def _order(reader: tables.Reader, table: Any) -> definition.Order:
    if not isinstance(table, Mapping):
        raise reader.fail(f"needs each of [[orders]] as a table; one is {table!r}.")
    claim = reader.get(table, "claim", str, "orders")
    where = f"the order {claim!r}"
    reader.known(table, _ORDER_KEYS, where)
    metric = reader.optional(table, "metric", definition.ACCURACY, where)
    return definition.Order(
        claim=claim,
        higher=_side(reader, table, "higher", metric, where),
        lower=_side(reader, table, "lower", metric, where),
        margin=reader.optional(table, "margin", 0.0, where),
        spread=reader.optional(table, "spread", False, where),
    )


def _figure(reader: tables.Reader, table: Mapping[str, Any]) -> definition.Figure:
    reader.known(table, _FIGURE_KEYS, "figure")
    if table.get("kind") not in definition.FIGURES:
        raise reader.fail(
            f"has figure.kind = {table.get('kind')!r}; it is one of "
            f"{', '.join(definition.FIGURES)}."
        )
    metrics = reader.optional(table, "metrics", {}, "figure")
    return definition.Figure(
        kind=table["kind"],
        x=reader.get(table, "x", str, "figure"),
        series=reader.get(table, "series", str, "figure") if "series" in table else None,
        x_title=reader.get(table, "x_title", str, "figure") if "x_title" in table else None,
        metric=reader.optional(table, "metric", definition.ACCURACY, "figure"),
        metrics={label: reader.get(metrics, label, str, "figure.metrics") for label in metrics},
        y_title=reader.get(table, "y_title", str, "figure") if "y_title" in table else None,
    )
