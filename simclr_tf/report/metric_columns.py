"""metrics.jsonl as columns, and curves of few points."""

from __future__ import annotations

import collections
from collections.abc import Mapping
import dataclasses
import json
from typing import Any

import numpy as np

# The most points of a curve: more than a small figure has pixels to show.
MOST_POINTS = 300
_MOST_STEPS = 2**62


@dataclasses.dataclass(frozen=True)
class Column:
    """A metric at the steps at which it was recorded.

    Attributes:
        steps: (n,) int64, ascending.
        values: (n,) float64.
        per_point: how many records each value is the mean of.
    """

    steps: np.ndarray
    values: np.ndarray
    per_point: int = 1


@dataclasses.dataclass(frozen=True)
class Metrics:
    """What training recorded.

    Attributes:
        columns: name of a metric -> its values.
        last_step: the last step with a record; 0 if there is none.
        damaged: number of lines that are not records.
    """

    columns: Mapping[str, Column]
    last_step: int = 0
    damaged: int = 0

    def last(self, name: str) -> float | None:
        """Returns the last value of a metric; None if it was not recorded."""
        column = self.columns.get(name)
        return None if column is None else float(column.values[-1])


def parse(content: bytes) -> Metrics:
    """Returns the metrics in the lines of metrics.jsonl.

    An incomplete last line is usual while a run trains, and is not counted as damaged.

    Args:
        content: the lines.
    """
    steps: dict[str, list[int]] = collections.defaultdict(list)
    values: dict[str, list[float]] = collections.defaultdict(list)
    lines = content.splitlines(keepends=True)
    last, damaged = 0, 0
    for line in lines:
        record = parse_line(line)
        step = record.get("step") if record else None
        if record is None or type(step) is not int or not 0 <= step <= _MOST_STEPS:
            damaged += line.endswith(b"\n")
            continue
        last = max(last, step)
        for name, value in record.items():
            # Most are: a long log has millions of values.
            number = value if type(value) is float else to_number(value)
            if number is not None and name != "step":
                steps[name].append(step)
                values[name].append(number)
    columns = {name: _sorted(steps[name], values[name]) for name in values}
    return Metrics(columns, last, damaged)


def to_number(value: Any) -> float | None:
    """Returns a value of JSON as a number; None if it is not one, or is out of range."""
    try:
        return float(value) if type(value) in (int, float) else None
    except OverflowError:  # An integer of hundreds of digits.
        return None


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Returns the object in a line of JSON; None if there is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError.
        return None
    return value if isinstance(value, dict) else None


def _sorted(steps: list[int], values: list[float]) -> Column:
    order = np.argsort(np.array(steps), kind="stable")
    return Column(np.array(steps)[order], np.array(values, np.float64)[order])


def thinned(column: Column, most: int = MOST_POINTS) -> Column:
    """Returns a column with at most so many points, each the mean of equally many records.

    A point is at the last step of its records. Values that are not finite are left out of a mean;
    a mean of none is NaN.

    Args:
        column: the column.
        most: the most points.
    """
    count = len(column.steps)
    per_point = -(-count // most)
    if per_point <= 1:
        values = np.where(np.isfinite(column.values), column.values, np.nan)
        return dataclasses.replace(column, values=values)
    missing = -count % per_point
    values = np.pad(column.values, (0, missing), constant_values=np.nan).reshape(-1, per_point)
    finite = np.isfinite(values)
    sums, counts = np.where(finite, values, 0).sum(1), finite.sum(1)
    means = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    ends = np.minimum(np.arange(1, len(means) + 1) * per_point, count) - 1
    return Column(column.steps[ends], means, per_point)
