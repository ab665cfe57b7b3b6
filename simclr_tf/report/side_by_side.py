"""A page of several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import os
from typing import Any

from simclr_tf.report import (
    curves,
    findings,
    pages,
    pictures,
    result_numbers,
    run_files,
    run_page,
    settings,
)

# Facts about the machine that differ without a meaning.
_NOT_COMPARED = ("host",)


@dataclasses.dataclass(frozen=True)
class Row:
    """A number of several runs.

    Attributes:
        key: its name in result.json.
        name: its name for people.
        numbers: that of each run; None where it was not measured.
    """

    key: str
    name: str
    numbers: tuple[result_numbers.Number | None, ...]


@dataclasses.dataclass(frozen=True)
class Paired:
    """A run compared with the first one on the same images.

    Attributes:
        name: name of the run.
        accuracy: its accuracy with its interval, as text; so are the others.
        difference: from the first run, in points.
        only: how many images only this run, and how many only the first, classifies right.
        p: p-value, adjusted for the number of comparisons.
    """

    name: str
    accuracy: str
    difference: str = ""
    only: str = ""
    p: str = ""


def names_of(folders: Sequence[str]) -> list[str]:
    """Returns short names that differ: the ends of the paths, from where they differ."""
    if len(set(folders)) < len(folders):
        return [f"{os.path.basename(folder)} ({n})" for n, folder in enumerate(folders, 1)]
    pieces = [folder.rstrip("/").split("/") for folder in folders]
    for length in range(1, max(map(len, pieces)) + 1):
        names = ["/".join(one[-length:]) for one in pieces]
        if len(set(names)) == len(names):
            return names
    return list(folders)


def render(
    runs: Sequence[run_files.RunFiles],
    comparison: Mapping[str, Any] | None,
    why_not: str,
    disagreements: bytes | None,
) -> str:
    """Returns the page.

    Args:
        runs: two runs or more.
        comparison: the content of comparison.json; None if the runs cannot be compared so.
        why_not: why they cannot.
        disagreements: a picture (PNG) of images that only one of the first two classifies right.
    """
    names = names_of([run.folder for run in runs])
    by_name = dict(zip(names, runs))
    picture = None
    if disagreements is not None:
        caption = "Images that only one of the first two runs classifies right."
        picture = pictures.of_png(disagreements, "Disagreements", caption, "")
    configs = {name: run.config for name, run in by_name.items() if run.config is not None}
    return pages.fill(
        "side_by_side.html.jinja",
        {
            "names": names,
            "runs": runs,
            "headlines": [result_numbers.headline(run.config, run.result) for run in runs],
            "summaries": [run_page.summary(run) for run in runs],
            "chance": _chance(runs),
            "paired": [] if comparison is None else paired(names, comparison),
            "paired_on": _paired_on(comparison),
            "why_not": why_not,
            "picture": picture,
            "differences": settings.differences(list(configs.values())),
            "with_settings": list(configs),
            "curves": curves.of_runs(by_name),
            "accuracies": _accuracies(runs),
            "groups": groups(runs),
            "environment": environment(runs),
            "warnings": [
                f"{name}: {warning}"
                for name, run in by_name.items()
                for warning in findings.of_run(run)
            ],
            "missing": [
                f"{name}: {'; '.join(run_page.missing(run))}"
                for name, run in by_name.items()
                if run_page.missing(run)
            ],
        },
    )


def paired(names: Sequence[str], comparison: Mapping[str, Any]) -> list[Paired]:
    """Returns the rows of the table of the paired test.

    Args:
        names: names of the runs.
        comparison: the content of comparison.json.
    """
    accuracies = [
        f"{one['accuracy']:.1%} ({_points(one['accuracy_95'], '.1f')})"
        for one in comparison["runs"]
    ]
    rows = [Paired(names[0], accuracies[0])]
    for name, accuracy, one in zip(names[1:], accuracies[1:], comparison["against_first"]):
        difference = f"{100 * one['difference']:+.1f} ({_points(one['difference_95'], '+.1f')})"
        only = f"{one['only_this']:,} : {one['only_first']:,}"
        rows.append(Paired(name, accuracy, difference, only, f"{one['p_adjusted']:.2g}"))
    return rows


def _points(limits: Sequence[float], form: str) -> str:
    return " to ".join(f"{100 * limit:{form}}" for limit in limits)


def _paired_on(comparison: Mapping[str, Any] | None) -> str:
    """Returns a sentence on the images and the test."""
    if comparison is None:
        return ""
    images, number = f"{comparison['images']:,} images", comparison.get("groups")
    test, choice = "McNemar's exact test", "images"
    if number is not None:
        images += f" in {number:,} groups"
        test, choice = "a sign-flip test of the differences of groups", "groups"
    return (
        f"On the same {images}. p: {test} against the first run, adjusted for the number of "
        f"comparisons. It covers the choice of the {choice}, not that of the training seed."
    )


def _chance(runs: Sequence[run_files.RunFiles]) -> float | None:
    counts = {len(run.class_names or ()) for run in runs}
    return 1 / counts.pop() if len(counts) == 1 and 0 not in counts else None


def _accuracies(runs: Sequence[run_files.RunFiles]) -> list[Row]:
    """Returns the accuracies of the networks and the baselines, a row for each kind."""
    by_run = [
        {row.top_1.key: row for row in result_numbers.accuracies(run.config, run.result)}
        for run in runs
    ]
    kinds = {key: row.what for found in by_run for key, row in found.items()}
    return [
        Row(key, what, tuple(found[key].top_1 if key in found else None for found in by_run))
        for key, what in kinds.items()
    ]


def groups(runs: Sequence[run_files.RunFiles]) -> list[tuple[str, list[Row]]]:
    """Returns all numbers of the results, a row for each name, under titles."""
    names: dict[str, dict[str, str]] = {}
    for run in runs:
        for group in result_numbers.groups(run.result):
            keys = names.setdefault(group.title, {})
            keys.update({one.key: one.name for one in group.numbers})
    return [
        (
            title,
            [
                Row(key, name, tuple(result_numbers.find(run.result, key) for run in runs))
                for key, name in keys.items()
            ],
        )
        for title, keys in names.items()
    ]


def environment(runs: Sequence[run_files.RunFiles]) -> list[tuple[str, list[str]]]:
    """Returns what differs between the environments of the runs."""
    found = [dict(run_page.rows_of(run.environment)) for run in runs]
    names = dict.fromkeys(name for one in found for name in one if name not in _NOT_COMPARED)
    rows = [(name, [one.get(name, "unknown") for one in found]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]
