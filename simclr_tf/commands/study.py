"""The study command: trains the cells of studies, and tests their expected orders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import os
import pathlib
import time
from typing import Any

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, paths, storage, text
from simclr_tf import preemption as preemption_lib
from simclr_tf.commands import study_plan, study_selection
from simclr_tf.report import evaluation_files, study_figures, study_html, study_orders, study_page
from simclr_tf.runs import directory, environment
from simclr_tf.studies import (
    attempts,
    cells,
    data_checks,
    definition,
    hparams,
    launchers,
    measurements,
    outcomes,
    plans,
    published,
    results,
    schedule,
    tuning,
    verdicts,
)

_REPORT = "report.html"  # In the folder of the study.
Train = Callable[[Sequence[cells.Run], str], dict[str, attempts.Record]]


def study(
    config: config_lib.Config,
    explicit: frozenset[str],
    folder: pathlib.Path,
    preemption: preemption_lib.Preemption,
) -> None:
    """Runs a study, or all of them, and writes their results.

    Args:
        config: the settings.
        explicit: names of the flags that were given.
        folder: the folder of the studies that come with the program.
        preemption: says whether the program must end.

    Raises:
        UserError: if a study cannot be read, or its cells cannot be trained at all.
    """
    if config.study == study_selection.LIST:
        study_plan.print_list(folder)
        return
    overrides = study_selection.overrides(config, explicit)
    root = study_selection.root(config)
    if paths.scheme(root) is not None:
        raise errors.UserError(
            f"--model_dir={root} is remote; a study needs a folder on a disk of this machine."
        )
    studies = [
        study_selection.with_seeds(one, config.study_seeds)
        for one in study_selection.read(config.study, folder)
    ]
    for one in studies:
        study_plan.check(one, overrides, root)
    if config.dry_run:
        for one in studies:
            study_plan.print_plan(one, overrides, root)
        return
    directory.ensure_writable(root)
    if config.study_results is not None:
        directory.ensure_writable(config.study_results, flag="study_results")
    if config.jobs:
        data_checks.check(
            [run for one in studies for run in study_plan.waiting(one, overrides, root)], root
        )
    _run_all(config, studies, overrides, root, preemption)


def _run_all(
    config: config_lib.Config,
    studies: Sequence[definition.Study],
    overrides: Mapping[str, Any],
    root: str,
    preemption: preemption_lib.Preemption,
) -> None:
    """Runs studies one after the other, and writes the index if they are all."""
    make_launcher = launchers.make(
        config.launcher,
        folder=os.path.join(root, "submitit"),
        jobs=config.jobs,
        parameters=config.slurm_parameters,
    )

    def train(runs: Sequence[cells.Run], what: str) -> dict[str, attempts.Record]:
        if not config.jobs:
            return schedule.finished(runs, root)
        return schedule.train_all(runs, root, make_launcher, preemption, what=what)

    found: list[results.Results] = []
    summaries: list[published.Summary] = []
    pages: list[str | None] = []
    for one in studies:
        output = config.study_results or os.path.join(root, one.name)
        shown = study_selection.shown(config, one, overrides)
        found.append(_run(one, overrides, root, train, shown))
        trains = config.jobs > 0
        summary, page = _keep_or_write(found[-1], output, root, overrides, trains=trains)
        summaries.append(summary)
        pages.append(page)
    if config.study == study_selection.ALL:
        top = config.study_results or root
        index = os.path.join(top, "README.md")
        links = [page and os.path.relpath(page, top) for page in pages]
        storage.replace(index, study_page.index(summaries, links))
        console.say(f"{index}: all studies, with Holm's correction over all of their orders.")
    failed = [failure.title for one in found for failure in one.failures]
    if failed:
        raise errors.UserError(
            f"{text.count(len(failed), 'run')} failed or ended early "
            f"({text.shortened(failed, separator='; ')}); the warnings above have the reasons, and "
            "the same command runs them again."
        )


def _keep_or_write(
    found: results.Results, output: str, root: str, overrides: Mapping[str, Any], *, trains: bool
) -> tuple[published.Summary, str | None]:
    """Writes results, unless an earlier run of the program wrote those of more cells.

    Args:
        found: the results.
        output: the folder of the page.
        root: the folder of all studies.
        overrides: see `study_selection.overrides`.
        trains: whether cells are trained, so that a page lists those that failed.

    Returns:
        What the list of all studies says of this one, and its page; None if it has no page.
    """
    done = len(found.finished)
    earlier = published.read(output, found.study)
    if earlier is not None and earlier.cells > done:
        console.say(
            f"{published.path_of(output, found.study)} has the results of {earlier.cells} cells, "
            f"of which {done} are done in {root}. It is kept; delete it to write the results of "
            "fewer cells."
        )
        return earlier, study_page.path_of(output, found.study)
    summary = published.of_results(found)
    if trains or done:
        return summary, _write(found, output, root, overrides)
    console.say(f"{found.study.name}: no cell is done.")
    return summary, None


def _run(
    one: definition.Study,
    overrides: Mapping[str, Any],
    root: str,
    train: Train,
    shown: study_selection.Shown,
) -> results.Results:
    """Measures a study or trains what is not done of it, and returns its results."""
    versions = plans.register(one, os.path.join(root, one.name))
    if one.measurement is not None:
        return _measure(one, overrides, shown, versions)
    chosen: results.Chosen = {}
    tried = tuning.trials(one, overrides)
    records: dict[str, attempts.Record] = {}
    runs = [trial.cell.run for trial in tried]
    if tried:
        records = train(runs, f"{one.name}, tuning")
        chosen = tuning.choose(tried, records, root)
    planned = tuning.cells_of(one, overrides, chosen)
    records |= train([cell.run for cell in planned], one.name)
    found = [
        outcomes.read(cell, root, records[cell.run.identity])
        for cell in planned
        if _is_done(records, cell.run)
    ]
    for outcome in found:
        hparams.write(outcome, root)
    every = schedule.all_runs([*runs, *(cell.run for cell in planned)])
    return _results(
        one,
        shown,
        found,
        versions,
        failures=_failures(every, records, shown.root),
        chosen=chosen,
        machines=sorted({results.machine_of(o.cell.run.folder(root)) for o in found}),
        costs={
            run.identity: records[run.identity].seconds for run in every if _is_done(records, run)
        },
    )


def _measure(
    one: definition.Study,
    overrides: Mapping[str, Any],
    shown: study_selection.Shown,
    versions: Sequence[Mapping[str, Any]],
) -> results.Results:
    """Returns the results of a study that trains nothing."""
    start = time.monotonic()
    with console.working(f"Measuring {one.name}"):
        measured = measurements.outcomes_of(one, overrides)
    here = environment.describe(tf.distribute.get_strategy())
    return _results(
        one,
        shown,
        measured,
        versions,
        machines=[results.machine(here)],
        costs={one.name: time.monotonic() - start},
    )


def _failures(
    runs: Iterable[cells.Run], records: Mapping[str, attempts.Record], root: str
) -> list[results.Failure]:
    """Returns the runs that were started and are not done."""
    return [
        results.Failure(run.title, records[run.identity].error, results.command_of(run, root))
        for run in runs
        if run.identity in records and not _is_done(records, run)
    ]


def _is_done(records: Mapping[str, attempts.Record], run: cells.Run) -> bool:
    record = records.get(run.identity)
    return record is not None and record.status == attempts.DONE


def _results(
    one: definition.Study,
    shown: study_selection.Shown,
    found: Sequence[outcomes.Outcome],
    versions: Sequence[Mapping[str, Any]],
    *,
    failures: Sequence[results.Failure] = (),
    chosen: results.Chosen | None = None,
    machines: Sequence[str] = (),
    costs: Mapping[str, float] | None = None,
) -> results.Results:
    """Returns the results with their verdicts; see `results.Results`."""
    return results.Results(
        study=one,
        command=shown.command,
        root=shown.root,
        finished=found,
        expected=len(one.all_labels()) * len(one.seeds),
        failures=failures,
        verdicts=verdicts.judge(one, found),
        versions=versions,
        chosen=chosen or {},
        machines=machines,
        costs=costs or {},
    )


def _write(found: results.Results, output: str, root: str, overrides: Mapping[str, Any]) -> str:
    """Writes the page, the figures and the results of a study, and prints the verdicts.

    Returns:
        The path of the page.
    """
    directory.ensure_writable(output)
    name = found.study.name
    figures = _figures(found, overrides)
    for file, content in figures.items():
        storage.replace(os.path.join(output, file), content)
    page = study_page.path_of(output, found.study)
    written = study_page.write(found, list(figures))
    storage.replace(page, written)
    report = os.path.join(root, name, _REPORT)
    storage.replace(report, study_html.render(found.study.title, written, figures))
    storage.write_json(published.path_of(output, found.study), results.to_json(found, root))
    rows = [
        [cell.replace("**", "") for cell in study_orders.order_row(one)] for one in found.verdicts
    ]
    if rows:
        console.table(found.study.title, list(study_orders.HEADER), rows)
    console.say(f"{page}: the results, with {', '.join([*figures, f'{name}.json'])}.")
    console.say(f"Report: {report}")
    return page


def _figures(found: results.Results, overrides: Mapping[str, Any]) -> dict[str, str]:
    """Returns the figures of a study by the names of their files, as SVG."""
    name, figures = found.study.name, {}
    if found.finished:
        figures[f"{name}.svg"] = study_figures.draw(found)
    picture = measurements.picture_of(found.study, overrides)
    if picture is not None:
        figures[f"{name}_picture.svg"] = evaluation_files.to_svg(picture, (7.0, 5.0))
    return figures
