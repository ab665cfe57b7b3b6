"""The page of a study in Markdown: the verdicts, the figure, the cells, and how they were run."""

from __future__ import annotations

import collections
from collections.abc import Sequence
import os

import numpy as np

from simclr_tf import console, text
from simclr_tf.report import markdown, study_orders
from simclr_tf.studies import attempts, definition, outcomes, published, results, schedule, verdicts

_MOST_COMMANDS = 3
# How many of its expected orders a study shows.
_EXTENTS = (
    "with every expected order shown",
    "with some of them shown",
    "with none of them shown",
    "without an expected order",
    "not run",
)


def path_of(folder: str, study: definition.Study) -> str:
    """Returns the file of the page of a study."""
    return os.path.join(folder, f"{study.name}.md")


def write(found: results.Results, figures: Sequence[str]) -> str:
    """Returns the page.

    Args:
        found: the results.
        figures: names of the files of the figures beside the page.
    """
    study = found.study
    sections = [
        f"# {study.title}\n",
        f"{study.question}\n",
        f"**The paper** ({study.source}): {study.finding} {study.paper_scale}\n",
        _summary(found),
    ]
    sections += [f"![{study.title}]({figure})\n" for figure in figures]
    sections += [
        study_orders.section(found),
        _cells(found),
        _failures(found),
        _tuning(found),
        _how(found),
    ]
    return "\n".join(section for section in sections if section)


def _summary(found: results.Results) -> str:
    """Returns how many orders are shown here, and what a reader should know."""
    if not found.verdicts:
        return f"{found.study.notes}\n" if found.study.notes else ""
    counts = {
        name: sum(one.verdict == name for one in found.verdicts)
        for name in (verdicts.SHOWN, verdicts.NOT_SHOWN, verdicts.CONTRARY, verdicts.MISSING)
    }
    listed = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    sentence = f"**Here**, of {text.count(len(found.verdicts), 'expected order')}: {listed}."
    return f"{sentence} {found.study.notes}".strip() + "\n"


def _cells(found: results.Results) -> str:
    """Returns the table of the cells."""
    study = found.study
    if not found.finished:
        return ""
    if study.measurement is not None:
        return _measured(found)
    header = [
        *(axis.title for axis in study.axes),
        *("accuracy (95%)", "each seed", *study.columns),
        *("minutes (of CPU)", "images", "views", "memory"),
    ]
    alignments = ["---"] * len(study.axes) + ["--:"] * (len(header) - len(study.axes))
    rows = [
        [*(labels.get(axis.name, "") for axis in study.axes), *_cell_row(study, of_cell)]
        for labels, of_cell in found.of_labels()
    ]
    lines = ["## Cells\n", markdown.table(header, alignments, rows)]
    note = (
        "Minutes, images and views are those of one run, memory is the highest. Minutes of CPU, "
        "added up over processors, do not depend on what else the machine did."
    )
    if study.first_stage is not None:
        note += " The runs that cells start from are not counted in them."
    return "\n".join([*lines, f"{note}\n"])


def _measured(found: results.Results) -> str:
    """Returns the table of the cells of a study that trains nothing."""
    study = found.study
    metric = study.figure.metric
    unit, digits = study_orders.unit(metric)
    title = study.figure.y_title or metric
    rows = [
        [
            *(labels.get(axis.name, "") for axis in study.axes),
            f"{unit * np.mean([one.value(metric) for one in of_cell]):.{digits}f}",
            ", ".join(f"{unit * one.value(metric):.{digits}f}" for one in of_cell),
        ]
        for labels, of_cell in found.of_labels()
    ]
    header = [*(axis.title for axis in study.axes), title, "each seed"]
    alignments = ["---"] * len(study.axes) + ["--:", "--:"]
    return f"## Cells\n\n{markdown.table(header, alignments, rows)}"


def _failures(found: results.Results) -> str:
    """Returns the errors of the runs that are not done, and their commands."""
    if not found.failures:
        return ""
    lines = [
        f"{one.title}:\n\n```text\n{one.error}\n```\n\n```sh\n{one.command}\n```\n"
        for one in found.failures
    ]
    return "\n".join(["## Runs that are not done\n", *lines])


def _cell_row(study: definition.Study, of_cell: Sequence[outcomes.Outcome]) -> list[str]:
    """Returns the results and the costs of a cell."""
    accuracy = verdicts.mean_accuracy(of_cell)
    return [
        # Not with a dash, which would be that of a negative number beside the differences.
        f"{accuracy.value:.1%} ({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f})",
        ", ".join(f"{100 * one.accuracy:.1f}" for one in of_cell),
        *(
            _mean(metric, [one.number(metric) for one in of_cell])
            for metric in study.columns.values()
        ),
        _minutes([one.record for one in of_cell]),
        f"{of_cell[0].images:,}",
        f"{of_cell[0].views:,}",
        text.gib(max(one.record.peak_memory for one in of_cell)),
    ]


def _minutes(records: Sequence[attempts.Record]) -> str:
    """Returns the mean time of runs, and how long processors worked for them."""
    elapsed, worked = (
        np.mean([getattr(one, name) for one in records]) / 60 for name in ("seconds", "cpu_seconds")
    )
    return f"{elapsed:.1f} ({worked:.1f})"


def _mean(metric: str, values: Sequence[float | None]) -> str:
    """Returns the mean of a number over seeds, empty if a run does not have it."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return ""
    return f"{np.mean(known):.1%}" if metric.endswith("_accuracy") else f"{np.mean(known):.3f}"


def _tuning(found: results.Results) -> str:
    """Returns which settings were chosen for each cell."""
    tuning = found.study.tuning
    if tuning is None or not found.chosen:
        return ""
    # Objectives may have axes of their own with the same title.
    title = ", ".join(dict.fromkeys(axis.title for axis in tuning.axes))
    rows = [
        [
            definition.described(dict(group)),
            f"**{definition.described(labels)}**",
            ", ".join(f"{label}: {100 * value:.1f}" for label, value in accuracies.items()),
        ]
        for group, (labels, accuracies) in found.chosen.items()
    ]
    flags = ", ".join(f"`{name}={value}`" for name, value in tuning.flags.items())
    return (
        f"## Settings that were tuned\n\n{title}: chosen for each row by the accuracy on images "
        f"that are not those of the results ({flags}, seed {tuning.seed}).\n\n"
        + markdown.table(("cells", "chosen", "accuracies, %"), ("---", "---", "---"), rows)
    )


def _how(found: results.Results) -> str:
    """Returns how the study was run, and commands of single cells."""
    done, expected = len(found.finished), found.expected
    incomplete = "" if done == expected else f" {expected - done} of {expected} cells are not done."
    seconds = sum(found.costs.values())
    lines = ["## How it was run\n", f"```sh\n{found.command}\n```\n"]
    if found.study.measurement is not None:
        took = f"{console.duration(seconds)} in all. {'; '.join(found.machines)}.\n"
        return "\n".join([*lines, took])
    if not found.finished:
        return "\n".join([*lines, f"None of {text.count(expected, 'cell')} is done.\n"])
    lines.append(
        f"{text.count(len(found.costs), 'run')}, whose times add up to "
        f"{console.duration(seconds)}.{incomplete} {'; '.join(found.machines)}.\n"
    )
    runs = schedule.all_runs(one.cell.run for one in found.finished)[:_MOST_COMMANDS]
    examples = "\n".join(results.command_of(run, found.root) for run in runs)
    lines.append(f"The first runs, as commands of their own:\n\n```sh\n{examples}\n```\n")
    return "\n".join(lines)


def index(summaries: Sequence[published.Summary], pages: Sequence[str | None]) -> str:
    """Returns the page that lists all studies, with Holm's correction over all of their orders.

    Args:
        summaries: all studies.
        pages: the path of each one's page, relative to this one; None if it has no page.
    """
    orders = [one for summary in summaries for one in summary.study.orders]
    tested = [one for summary in summaries for one in summary.tested]
    decided = iter(verdicts.decide(orders, tested))
    rows, counts = [], collections.Counter[str]()
    for summary, page in zip(summaries, pages, strict=True):
        of_study = [study_orders.order_row(next(decided)) for _ in summary.tested]
        counts[_extent([row[-1] for row in of_study], summary.cells)] += 1
        title = summary.study.title if page is None else f"[{summary.study.title}]({page})"
        empty = [""] * len(study_orders.HEADER)
        if not summary.cells:
            empty[-1] = verdicts.MISSING
        for position, row in enumerate(of_study or [empty]):
            rows.append([title if not position else "", *row])
    # Studies share runs, which are counted once.
    costs = {run: seconds for one in summaries for run, seconds in one.costs.items()}
    return "\n".join(
        [
            "# Studies\n",
            "The findings of the papers, tested at a scale that an ordinary computer can train: "
            f"see the page of each study. Of {len(summaries)} studies, "
            f"{', '.join(f'{counts[one]} {one}' for one in _EXTENTS if counts[one])}. "
            f"p-values are corrected over all {len(orders)} orders (Holm).\n",
            markdown.table(
                ("study", *study_orders.HEADER), ("---", *study_orders.ALIGNMENTS), rows
            ),
            f"The times of all runs add up to {console.duration(sum(costs.values()))}. "
            "`make studies` runs or resumes all of them.\n",
        ]
    )


def _extent(of_study: Sequence[str], cells: int) -> str:
    """Returns how many of its orders a study shows, one of `_EXTENTS`.

    Args:
        of_study: their verdicts.
        cells: number of cells that are done.
    """
    every, some, none, without, missing = _EXTENTS
    if not of_study:
        return without if cells else missing
    if all(verdict == verdicts.MISSING for verdict in of_study):
        return missing
    shown = of_study.count(study_orders.SHOWN)
    if shown == len(of_study):
        return every
    return some if shown else none
