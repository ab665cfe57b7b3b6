"""Draws the results of a study: bars, lines, a heat map or boxes."""

from __future__ import annotations

from collections.abc import Container, Sequence
import math
from typing import Any

from matplotlib import figure as figure_lib
import numpy as np

from simclr_tf.report import evaluation_files
from simclr_tf.studies import definition, outcomes, results, verdicts

_PERCENT = "accuracy, %"
_SEEDS = "#303030"  # Dots of single seeds.
# Labels of more characters in all are written at an angle.
_MOST_CHARACTERS = 70


def draw(found: results.Results) -> str:
    """Returns the figure of a study as SVG.

    Points and bars are means over seeds, with their 95% intervals over images where they are
    accuracies; small dots are single seeds.

    Args:
        found: the results, with at least one cell.
    """
    kind = found.study.figure.kind
    drawn = {"bars": _bars, "lines": _lines, "heatmap": _heatmap, "boxes": _boxes}[kind]
    width, height = 7.0, 4.2
    if kind == "heatmap":
        height = 5.8
    return evaluation_files.to_svg(lambda target: drawn(target, found), (width, height))


def _groups(
    found: results.Results,
) -> tuple[list[str], list[str | None], dict[tuple[str, str | None], list[outcomes.Outcome]]]:
    """Returns the labels along x, the series, and the results of each pair of them.

    Cells that differ only in other axes are put together. Several metrics are a series each.
    """
    drawn = found.study.figure
    cells: dict[tuple[str, str | None], list[outcomes.Outcome]] = {}
    for one in found.finished:
        labels = one.cell.labels
        if drawn.x not in labels:
            continue
        series = labels.get(drawn.series) if drawn.series is not None else None
        for name in drawn.metrics or [series]:
            cells.setdefault((labels[drawn.x], name), []).append(one)
    xs = [label for label in found.study.axis(drawn.x).values if any(x == label for x, _ in cells)]
    order: list[str | None] = [None, *drawn.metrics]
    if drawn.series is not None:
        order += list(found.study.axis(drawn.series).values)
    present = [name for name in order if any(name == one for _, one in cells)]
    return xs, present, cells


def _height(
    of_cell: Sequence[outcomes.Outcome], metric: str
) -> tuple[float, float, float, list[float]]:
    """Returns a mean, the ends of its interval, and the values of its runs, to draw."""
    values = [one.value(metric) for one in of_cell]
    if metric != definition.ACCURACY:
        mean = float(np.mean(values))
        return mean, mean, mean, values
    interval = verdicts.mean_accuracy(of_cell)
    percent = [100 * value for value in values]
    return (*(100 * number for number in interval), percent)  # type: ignore[return-value]


def _axes(target: figure_lib.Figure, found: results.Results, xs: Sequence[str]) -> Any:
    """Returns axes with titles and the labels along x."""
    drawn = found.study.figure
    axes = target.subplots()
    title = drawn.x_title or found.study.axis(drawn.x).title
    axes.set_xlabel(title)
    axes.set_ylabel(_y_title(found))
    long = sum(map(len, xs)) > _MOST_CHARACTERS
    axes.set_xticks(
        range(len(xs)), xs, rotation=30 if long else 0, ha="right" if long else "center"
    )
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


def _y_title(found: results.Results) -> str:
    drawn = found.study.figure
    return drawn.y_title or (_PERCENT if drawn.metric == definition.ACCURACY else drawn.metric)


def _legend(axes: Any, found: results.Results, series: Sequence[str | None]) -> None:
    if series != [None]:
        axis = found.study.figure.series
        title = found.study.axis(axis).title if axis is not None else None
        axes.legend(
            title=title, frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1)
        )


def _limits(axes: Any, lows: Sequence[float], highs: Sequence[float]) -> None:
    """Sets the vertical range, with room around the data; from 0 where they are near it."""
    low, high = min(lows), max(highs)
    room = 0.15 * (high - low) or 1.0
    low = 0.0 if low >= 0 and low < high / 3 else low - room
    axes.set_ylim(low, high + room)


def _places(
    xs: Sequence[str], series: Sequence[str | None], drawn: Container[tuple[str, str | None]]
) -> tuple[list[tuple[float, str, str | None]], float]:
    """Returns where bars or boxes are along x, side by side around each label, and their width."""
    beside = [[name for name in series if (x, name) in drawn] for x in xs]
    width = 0.8 / max(map(len, beside))
    places = [
        (position + (index - (len(names) - 1) / 2) * width, x, name)
        for position, (x, names) in enumerate(zip(xs, beside, strict=True))
        for index, name in enumerate(names)
    ]
    return places, width


def _bars(target: figure_lib.Figure, found: results.Results) -> None:
    xs, series, cells = _groups(found)
    axes: Any = _axes(target, found, xs)
    places, width = _places(xs, series, cells)
    lows, highs, named = [0.0], [0.0], set()  # Lengths of bars mean something only from 0.
    for at, x, name in places:
        metric = found.study.figure.metric_of(name)
        value, low, high, single = _height(cells[x, name], metric)
        label = None if name in named else name
        named.add(name)
        axes.bar(at, value, width * 0.9, color=_color(series, name), alpha=0.75, label=label)
        axes.plot([at, at], [low, high], color="black", linewidth=1.2)
        beside = np.linspace(-0.2, 0.2, len(single)) * width if len(single) > 1 else [0]
        axes.plot(at + np.array(beside), single, ".", color=_SEEDS, markersize=4)
        lows.append(min(low, *single))
        highs.append(max(high, *single))
    axes.set_xlim(-0.5, len(xs) - 0.5)
    _limits(axes, lows, highs)
    _legend(axes, found, series)


def _color(series: Sequence[str | None], name: str | None) -> str:
    return f"C{series.index(name)}"


def _lines(target: figure_lib.Figure, found: results.Results) -> None:
    xs, series, cells = _groups(found)
    axes = _axes(target, found, xs)
    lows, highs = [], []
    for index, name in enumerate(series):
        positions = [i for i, x in enumerate(xs) if (x, name) in cells]
        heights = [_height(cells[xs[i], name], found.study.figure.metric) for i in positions]
        values, low, high = (np.array([one[k] for one in heights]) for k in range(3))
        axes.plot(positions, values, "o-", color=f"C{index}", markersize=4, label=name)
        axes.fill_between(positions, low, high, color=f"C{index}", alpha=0.15, linewidth=0)
        for position, one in zip(positions, heights, strict=True):
            axes.plot([position] * len(one[3]), one[3], ".", color=f"C{index}", markersize=3)
            lows.append(min(one[1], *one[3]))
            highs.append(max(one[2], *one[3]))
    _limits(axes, lows, highs)
    _legend(axes, found, series)


def _boxes(target: figure_lib.Figure, found: results.Results) -> None:
    xs, series, cells = _groups(found)
    axes: Any = _axes(target, found, xs)
    places, width = _places(xs, series, cells)
    every, named = [], set()
    for at, x, name in places:
        values = _means_of_cells(cells[x, name], found.study.figure.metric)
        color, label = _color(series, name), None if name in named else name
        named.add(name)
        box = axes.boxplot(
            [values],
            positions=[at],
            widths=width * 0.8,
            patch_artist=True,
            manage_ticks=False,
            showfliers=False,
        )
        box["boxes"][0].set(facecolor=color, alpha=0.4)
        box["medians"][0].set(color="black")
        axes.plot([at] * len(values), values, ".", color=color, label=label)
        every += values
    axes.set_xlim(-0.5, len(xs) - 0.5)
    _limits(axes, every, every)
    _legend(axes, found, series)


def _means_of_cells(of_group: Sequence[outcomes.Outcome], metric: str) -> list[float]:
    """Returns the mean over seeds of each cell, accuracies in percent."""
    unit = 100.0 if metric == definition.ACCURACY else 1.0
    of: dict[tuple, list[float]] = {}
    for one in of_group:
        of.setdefault(tuple(one.cell.labels.items()), []).append(unit * one.value(metric))
    return [float(np.mean(values)) for values in of.values()]


def _heatmap(target: figure_lib.Figure, found: results.Results) -> None:
    xs, rows, cells = _groups(found)
    metric = found.study.figure.metric
    unit = 100.0 if metric == definition.ACCURACY else 1.0
    values = np.full((len(rows), len(xs)), np.nan)
    for i, row in enumerate(rows):
        for j, x in enumerate(xs):
            if (x, row) in cells:
                values[i, j] = unit * np.mean([one.value(metric) for one in cells[x, row]])
    axes = target.subplots()
    image = axes.imshow(values, cmap="viridis")
    axes.set_xticks(range(len(xs)), xs, rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), [str(row) for row in rows])
    axes.set_xlabel(found.study.figure.x_title or found.study.axis(found.study.figure.x).title)
    axes.set_ylabel(found.study.axis(found.study.figure.series or "").title)
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (i, j), value in np.ndenumerate(values):
        if not math.isnan(value):
            color = "white" if value < middle else "black"
            axes.text(j, i, f"{value:.1f}", ha="center", va="center", color=color, fontsize=8)
    target.colorbar(image, label=_y_title(found), shrink=0.8)
