"""What a study is: a question, the axes of its cells, and the orders that it expects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import hashlib
import itertools
import json
from typing import Any

# The values of a cell: axis -> label of the value. Axes that a cell does not have are left out.
Labels = Mapping[str, str]
FIGURES = ("bars", "lines", "heatmap", "boxes")
ACCURACY = "accuracy"
MEASUREMENTS = ("color_histograms", "positive_gradients")


@dataclasses.dataclass(frozen=True)
class Axis:
    """What differs between cells.

    Attributes:
        name: name of the axis.
        title: what figures and tables call it.
        values: label of a value -> the flags that it sets.
        only: axis -> labels: cells with other labels of that axis do not have this axis.
        first_stage: label -> the flags that it sets in the run whose weights a cell starts from. If
            only some labels are in it, cells with the others start from scratch.
    """

    name: str
    title: str
    values: Mapping[str, Mapping[str, Any]]
    only: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    first_stage: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def applies_to(self, labels: Labels) -> bool:
        """Returns whether cells with these labels of earlier axes have this axis."""
        return all(labels.get(axis) in allowed for axis, allowed in self.only.items())


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of an expected order.

    Attributes:
        cells: labels that its cells have; the side is the mean over all of them.
        minus: labels of cells whose mean is subtracted; None if nothing is. With it, the side is a
            gain, such as that of a wider network.
        metric: ACCURACY, or the name of a number in result.json.
    """

    cells: Labels
    minus: Labels | None = None
    metric: str = ACCURACY


@dataclasses.dataclass(frozen=True)
class Order:
    """An expected order: one side is higher than the other.

    Attributes:
        claim: the order in words.
        higher: the side that is expected to be higher.
        lower: the other side.
        margin: smallest difference that counts, in percentage points or, of other numbers than
            accuracies, in their unit.
        spread: whether the standard deviations over the cells of each side are compared, and not
            their means.
    """

    claim: str
    higher: Side
    lower: Side
    margin: float = 0.0
    spread: bool = False

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both sides."""
        return self.higher, self.lower

    @property
    def metric(self) -> str:
        """The metric of its first side."""
        return self.higher.metric


@dataclasses.dataclass(frozen=True)
class Figure:
    """How the results are drawn.

    Attributes:
        kind: one of FIGURES.
        x: the axis along the horizontal.
        series: the axis of the lines or groups of bars, or of the rows of a heat map; None if there
            is none.
        x_title: what the horizontal is called; None for the title of the axis.
        metric: what is drawn.
        metrics: label -> metric: bars of several metrics side by side, instead of `metric` and
            `series`.
        y_title: what the vertical is called; None for the metric.
    """

    kind: str
    x: str
    series: str | None = None
    x_title: str | None = None
    metric: str = ACCURACY
    metrics: Mapping[str, str] = dataclasses.field(default_factory=dict)
    y_title: str | None = None

    def metric_of(self, series: str | None) -> str:
        """Returns the metric that is drawn for one of the series."""
        return self.metrics.get(series, self.metric) if series is not None else self.metric


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Settings that are chosen for every cell on validation images.

    Attributes:
        axes: the axes of these settings.
        flags: flags of the runs to choose from, such as the split to validate on.
        seed: their seed.
        per: axes of the study for whose values the choice is made; the first value of each other
            axis is used to choose. None for all axes.
    """

    axes: tuple[Axis, ...]
    flags: Mapping[str, Any]
    seed: int
    per: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """An experiment, see the package.

    Attributes:
        name: name of its file.
        title: a few words.
        question: what it asks.
        finding: what the paper found.
        source: where the paper says so.
        paper_scale: the size at which the paper saw it, and its cost.
        flags: flags of all cells.
        first_stage: flags of the run whose weights cells start from; None if they start from
            scratch.
        axes: what differs between cells.
        compose: flag -> axes whose labels it lists, each once.
        seeds: seeds that each cell is trained with.
        orders: the expected orders.
        figure: how the results are drawn.
        columns: title of a column of the table of cells -> name of a number in result.json, or of a
            metric whose last value in metrics.jsonl it is.
        tuning: settings that are chosen for every cell; None if there are none.
        minutes: how long a run takes, and on which machine, as measured.
        notes: what a reader should know about the results here.
        measurement: name of what is measured for each cell; None if cells are trained.
    """

    name: str
    title: str
    question: str
    finding: str
    source: str
    paper_scale: str
    flags: Mapping[str, Any]
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    orders: tuple[Order, ...]
    figure: Figure
    first_stage: Mapping[str, Any] | None = None
    compose: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tuning: Tuning | None = None
    minutes: float | None = None
    notes: str = ""
    measurement: str | None = None

    def axis(self, name: str) -> Axis:
        """Returns an axis by its name."""
        return next(axis for axis in self.axes if axis.name == name)

    def all_labels(self) -> list[dict[str, str]]:
        """Returns the labels of all cells, the last axis varying fastest."""
        return list(combinations(self.axes))

    def has_first_stage(self, labels: Labels) -> bool:
        """Returns whether a cell starts from the weights of another run."""
        return self.first_stage is not None and all(
            labels[axis.name] in axis.first_stage
            for axis in self.axes
            if axis.first_stage and axis.name in labels
        )

    @property
    def orders_hash(self) -> str:
        """The SHA-256 hash of the expected orders, which shows whether they were changed."""
        content = json.dumps([dataclasses.asdict(order) for order in self.orders], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def combinations(axes: tuple[Axis, ...]) -> Iterator[dict[str, str]]:
    """Yields the labels of every combination of values, the last axis varying fastest."""
    if not axes:
        yield {}
        return
    *before, last = axes
    for labels in combinations(tuple(before)):
        if last.applies_to(labels):
            yield from ({**labels, last.name: label} for label in last.values)
        else:
            yield labels


def matches(labels: Labels, wanted: Labels) -> bool:
    """Returns whether a cell has the wanted labels."""
    return all(labels.get(axis) == label for axis, label in wanted.items())


def described(labels: Labels) -> str:
    """Returns the labels of a cell in one line, as in "nonlinear, 128"."""
    return ", ".join(labels.values()) or "all"


def composed(study: Study, labels: Labels) -> dict[str, str]:
    """Returns the flags that list the labels of several axes, each once."""
    return {
        flag: ",".join(dict.fromkeys(itertools.chain(labels[axis] for axis in axes)))
        for flag, axes in study.compose.items()
    }
