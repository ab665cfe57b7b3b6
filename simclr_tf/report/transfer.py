"""The table, the figure and the files of a transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import os
from typing import TYPE_CHECKING, Any

from simclr_tf import console, storage
from simclr_tf.report import evaluation_files
from simclr_tf.transfer import results, targets

if TYPE_CHECKING:
    from matplotlib import figure

FILES = ("transfer.json", "transfer.csv", "transfer.svg")
_COLUMNS = {results.LINEAR: "linear classifier", results.FINE_TUNED: "fine-tuned"}
# How far the networks of one data set are apart in the figure, where data sets are 1 apart.
_APART = 0.16
_MARKERS = "osD^vP*X"


def show(tested: Sequence[results.Tested]) -> None:
    """Prints the table: a row for each network on each data set.

    Args:
        tested: the scores, those of a data set one after another.
    """
    columns = _columns(tested)
    rows: list[list[str]] = []
    previous = None
    for (target, network), found in _by_row(tested).items():
        metric = next(iter(found.values())).score.target.metric
        row = [f"{target} ({metric})" if target != previous else "", network]
        previous = target
        for column in columns:
            row += _cells(found[column])
        rows.append(row)
    header = ["data set", "network"]
    for column in columns:
        header += [f"{_COLUMNS[column]} (95%)", "p"]
    console.table("Transfer", header, rows)
    console.say(
        "*: the best of a data set, and what does not differ from it significantly (p > "
        f"{results.LEVEL}). p: permutation test against the best one on the same images, "
        "adjusted for the number of tests in the table by Holm's method."
    )


def _cells(tested: results.Tested) -> list[str]:
    """Returns the number, marked if it is among the best, and its p-value."""
    number = tested.score.shown.percent()
    p = "" if tested.p_adjusted is None else f"{tested.p_adjusted:.2g}"
    return [f"{number} *" if tested.is_best else number, p]


def _columns(tested: Sequence[results.Tested]) -> list[str]:
    found = {one.score.column for one in tested}
    return [column for column in _COLUMNS if column in found]


def _by_row(
    tested: Sequence[results.Tested],
) -> dict[tuple[str, str], dict[str, results.Tested]]:
    """Returns (data set, network) -> column -> score."""
    rows: dict[tuple[str, str], dict[str, results.Tested]] = {}
    for one in tested:
        score = one.score
        rows.setdefault((score.target.name, score.network.name), {})[score.column] = one
    return rows


def write(model_dir: str, about: Mapping[str, Any], tested: Sequence[results.Tested]) -> None:
    """Writes transfer.json, transfer.csv and transfer.svg.

    Args:
        model_dir: the folder of the transfer.
        about: what the scores have in common, for transfer.json.
        tested: the scores.

    Raises:
        UserError: if a file cannot be written.
    """
    entries = results.to_json(tested)
    files = {
        "transfer.json": json.dumps({**about, "scores": entries}, indent=2) + "\n",
        "transfer.csv": evaluation_files.to_csv(_table(entries)),
        "transfer.svg": evaluation_files.to_svg(
            lambda target: draw(target, tested), _inches(tested)
        ),
    }
    for name in FILES:
        storage.replace(os.path.join(model_dir, name), files[name])


def _table(entries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Returns the rows of transfer.csv; an interval has a column for each end.

    What is measured of some data sets only is empty for others.
    """
    rows: list[dict[str, str]] = []
    for entry in entries:
        row: dict[str, str] = {}
        for name, value in entry.items():
            if isinstance(value, list):
                row |= {f"{name}_low": str(value[0]), f"{name}_high": str(value[1])}
            elif not isinstance(value, dict):
                row[name] = "" if value is None else str(value)
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [names, *([row.get(name, "") for name in names] for row in rows)]


def _inches(tested: Sequence[results.Tested]) -> tuple[float, float]:
    data_sets = len({one.score.target.name for one in tested})
    return 2.5 + 3.2 * len(_columns(tested)), 1.6 + 0.9 * data_sets


def draw(target: figure.Figure, tested: Sequence[results.Tested]) -> None:
    """Draws a dot with its 95% interval for each score, a panel for each column.

    Args:
        target: an empty figure.
        tested: the scores.
    """
    columns = _columns(tested)
    names = list(dict.fromkeys(one.score.target.name for one in tested))
    kinds = list(dict.fromkeys(one.score.network.name for one in tested))
    metrics = {one.score.target.name: one.score.target.metric for one in tested}
    are_precisions = {metric == targets.MEAN_AVERAGE_PRECISION for metric in metrics.values()}
    measured = " or ".join("mAP" if one else "accuracy" for one in sorted(are_precisions))
    axes = target.subplots(1, len(columns), sharex=True, sharey=True, squeeze=False)[0]
    for panel, column in zip(axes, columns, strict=True):
        for number, kind in enumerate(kinds):
            found = [
                one.score
                for one in tested
                if (one.score.column, one.score.network.name) == (column, kind)
            ]
            offset = _APART * (number - (len(kinds) - 1) / 2)
            heights = [names.index(score.target.name) + offset for score in found]
            values = [100 * score.shown.value for score in found]
            below = [100 * (score.shown.value - score.shown.low) for score in found]
            above = [100 * (score.shown.high - score.shown.value) for score in found]
            panel.errorbar(
                values,
                heights,
                xerr=[below, above],
                fmt=_MARKERS[number % len(_MARKERS)],
                capsize=3,
                label=kind,
            )
        panel.set_title(_COLUMNS[column])
        panel.set_xlabel(f"{measured}, % (95% interval)")
        panel.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), [f"{_brief(name)}\n{metrics[name]}" for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    target.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def _brief(name: str) -> str:
    return os.path.basename(name.rstrip("/")) if name.count("/") > 1 else name
