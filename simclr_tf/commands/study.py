"""The study command: trains the cells of studies, and tests their expected orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import os
import pathlib
import shlex
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf import console, errors, paths, storage, text
from simclr_tf.report import evaluation_files, study_figures, study_page
from simclr_tf.runs import directory
from simclr_tf.studies import (
    attempts,
    cells,
    definition,
    hparams,
    launchers,
    measurements,
    outcomes,
    plans,
    reading,
    results,
    schedule,
    tuning,
    verdicts,
)

ALL, LIST = "all", "list"
_DEFAULT_ROOT = os.path.join("runs", "studies")
# Flags of the command line that are not those of the cells.
_NOT_OF_CELLS = (
    *("mode", "model_dir", "study", "dry_run", "study_seeds", "study_results"),
    *("launcher", "jobs", "slurm_parameters"),
)


def study(config: config_lib.Config, explicit: frozenset[str], folder: pathlib.Path) -> None:
    """Runs a study, or all of them, and writes their results.

    Args:
        config: the settings.
        explicit: names of the flags that were given.
        folder: the folder of the studies that come with the program.

    Raises:
        UserError: if a study cannot be read, or its cells cannot be trained at all.
    """
    if config.study == LIST:
        _print_list(folder)
        return
    overrides = {
        name: getattr(config, name) for name in sorted(explicit) if name not in _NOT_OF_CELLS
    }
    if "seed" in overrides:
        raise errors.UserError(
            f"--seed={config.seed} has no effect on a study, whose cells have seeds of their own; "
            "--study_seeds sets their number."
        )
    root = paths.absolute(config.model_dir or _DEFAULT_ROOT)
    if paths.scheme(root) is not None:
        raise errors.UserError(
            f"--model_dir={root} is remote; a study needs a folder on a disk of this machine."
        )
    studies = [_with_seeds(one, config.study_seeds) for one in _read(config.study, folder)]
    for one in studies:
        _check(one, overrides, root)
    if config.dry_run:
        for one in studies:
            _print_plan(one, overrides, root)
        return
    directory.ensure_writable(root)
    _run_all(config, studies, overrides, root)


def _run_all(
    config: config_lib.Config,
    studies: Sequence[definition.Study],
    overrides: Mapping[str, Any],
    root: str,
) -> None:
    """Runs studies one after the other, and writes the index if they are all."""
    make_launcher = launchers.make(
        config.launcher,
        folder=os.path.join(root, "submitit"),
        jobs=config.jobs,
        parameters=config.slurm_parameters,
    )
    found = []
    for one in studies:
        command = _command(one.name, overrides)
        output = config.study_results or os.path.join(root, one.name)
        found.append(_run(one, overrides, root, make_launcher, command))
        _write(found[-1], output, root, overrides)
    if config.study == ALL:
        index = os.path.join(config.study_results or root, "README.md")
        storage.replace(index, study_page.index(found))
        console.say(f"{index}: all studies, with Holm's correction over all of their orders.")
    failed = [title for one in found for title in one.failed]
    if failed:
        raise errors.UserError(
            f"{text.count(len(failed), 'run')} failed ({text.shortened(failed, separator='; ')}); "
            "the warnings above have the reasons, and the same command runs them again."
        )


def _read(name: str | None, folder: pathlib.Path) -> list[definition.Study]:
    """Returns the studies that --study names."""
    known = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    if name is None:
        raise errors.UserError(
            "--study is missing; name one of the studies that --study=list prints, or all."
        )
    if name == ALL:
        return [reading.read(path) for path in known.values()]
    if name in known:
        return [reading.read(known[name])]
    if name.endswith(".toml"):
        return [reading.read(pathlib.Path(paths.absolute(name)))]
    raise errors.UserError(
        f"--study={name} is no study{text.suggestion(name, known)}; --study=list prints all of "
        "them, and the path of a file of your own ends in .toml."
    )


def _print_list(folder: pathlib.Path) -> None:
    """Prints name, question and size of every study."""
    rows = []
    for path in sorted(folder.glob("*.toml")):
        one = reading.read(path)
        count = len(one.all_labels()) * len(one.seeds)
        minutes = "" if one.minutes is None else console.duration(60 * one.minutes * count)
        rows.append([one.name, one.question, one.source, str(count), minutes])
    console.table("Studies", ["name", "question", "source", "runs", "time on one core"], rows)


def _with_seeds(one: definition.Study, count: int) -> definition.Study:
    """Returns a study with another number of seeds."""
    if not count:
        return one
    seeds = list(one.seeds[:count])
    seeds += range(max(one.seeds) + 1, max(one.seeds) + 1 + count - len(seeds))
    return dataclasses.replace(one, seeds=tuple(seeds))


def _check(one: definition.Study, overrides: Mapping[str, Any], root: str) -> None:
    """Refuses settings that cannot be combined, of any cell."""
    for trial in tuning.trials(one, overrides):
        cells.check(one, trial.cell.run, root)
    if one.tuning is None:
        for cell in tuning.cells_of(one, overrides, {}):
            cells.check(one, cell.run, root)


def _command(name: str, overrides: Mapping[str, Any]) -> str:
    """Returns the command that runs a study."""
    from simclr_tf.config import flagfile

    given = [
        flagfile.to_flag(key, "PATH" if key == "data_dir" else value)
        for key, value in overrides.items()
    ]
    return shlex.join(["python", "run.py", "--mode=study", f"--study={name}", *given])


def _print_plan(one: definition.Study, overrides: Mapping[str, Any], root: str) -> None:
    """Prints the runs of a study, their commands and the expected time."""
    tried = tuning.trials(one, overrides)
    planned = [trial.cell for trial in tried] or tuning.cells_of(one, overrides, {})
    runs = schedule.all_runs([cell.run for cell in planned])
    done = schedule.finished(runs, root)
    for run in runs:
        state = "done" if run.identity in done else "to do"
        console.say(f"{run.title} ({state})")
        console.say(f"    {shlex.join(['python', 'run.py', *run.arguments(root)])}")
    count = len(one.all_labels()) * len(one.seeds)
    if tried:
        console.say(f"Then {text.count(count, 'run')} with the settings that are best in these.")
    waiting = len(runs) - len(done) + (count if tried else 0)
    seconds = _seconds_of_a_run(one, done)
    expected = "" if seconds is None else f", about {console.duration(waiting * seconds)} in all"
    console.say(
        f"{one.name}: {text.count(len(runs), 'run')}, {len(done)} done, {waiting} to do{expected} "
        "with one job."
    )


def _seconds_of_a_run(one: definition.Study, done: Mapping[str, attempts.Record]) -> float | None:
    """Returns how long a run takes: as the finished ones took, or as the study says."""
    if done:
        return sum(record.seconds for record in done.values()) / len(done)
    return None if one.minutes is None else 60 * one.minutes


def _run(
    one: definition.Study,
    overrides: Mapping[str, Any],
    root: str,
    make_launcher: Callable[[], launchers.Launcher],
    command: str,
) -> results.Results:
    """Trains what is not done of a study, and returns its results."""
    versions = plans.register(one, os.path.join(root, one.name))
    if one.measurement is not None:
        with console.working(f"Measuring {one.name}"):
            measured = measurements.outcomes_of(one, overrides)
        return _results(one, command, measured, versions)
    chosen: dict[tuple, tuple[definition.Labels, dict[str, float]]] = {}
    tried = tuning.trials(one, overrides)
    records: dict[str, attempts.Record] = {}
    runs = [trial.cell.run for trial in tried]
    if tried:
        records = schedule.train_all(runs, root, make_launcher, what=f"{one.name}, tuning")
        chosen = tuning.choose(tried, records, root)
    planned = tuning.cells_of(one, overrides, chosen)
    records |= schedule.train_all(
        [cell.run for cell in planned], root, make_launcher, what=one.name
    )
    found = [
        outcomes.read(cell, root, records[cell.run.identity])
        for cell in planned
        if _is_done(records, cell.run)
    ]
    for outcome in found:
        hparams.write(outcome, root)
    every = schedule.all_runs([*runs, *(cell.run for cell in planned)])
    failed = {
        run.title: records[run.identity].error
        for run in every
        if run.identity in records and not _is_done(records, run)
    }
    machines = sorted({results.machine_of(o.cell.run.folder(root)) for o in found})
    return _results(one, command, found, versions, failed, chosen, machines)


def _results(
    one: definition.Study,
    command: str,
    found: Sequence[outcomes.Outcome],
    versions: Sequence[Mapping[str, Any]],
    failed: Mapping[str, str] | None = None,
    chosen: Mapping[tuple, tuple[definition.Labels, Mapping[str, float]]] | None = None,
    machines: Sequence[str] = (),
) -> results.Results:
    """Returns the results with their verdicts; see `results.Results`."""
    return results.Results(
        study=one,
        command=command,
        finished=found,
        expected=len(one.all_labels()) * len(one.seeds),
        failed=failed or {},
        verdicts=verdicts.judge(one.orders, found),
        versions=versions,
        chosen=chosen or {},
        machines=machines,
    )


def _is_done(records: Mapping[str, attempts.Record], run: cells.Run) -> bool:
    record = records.get(run.identity)
    return record is not None and record.status == attempts.DONE


def _write(found: results.Results, output: str, root: str, overrides: Mapping[str, Any]) -> None:
    """Writes the page, the figure and the results of a study, and prints the verdicts."""
    directory.ensure_writable(output, flag="study_results")
    name = found.study.name
    figures = []
    if found.finished:
        figures.append(f"{name}.svg")
        storage.replace(os.path.join(output, figures[0]), study_figures.draw(found))
    picture = measurements.picture_of(found.study, overrides)
    if picture is not None:
        figures.append(f"{name}_picture.svg")
        content = evaluation_files.to_svg(picture, (7.0, 5.0))
        storage.replace(os.path.join(output, figures[-1]), content)
    page = os.path.join(output, f"{name}.md")
    storage.replace(page, study_page.write(found, figures))
    storage.write_json(os.path.join(output, f"{name}.json"), results.to_json(found, root))
    rows = [
        [cell.replace("**", "") for cell in study_page.order_row(one)] for one in found.verdicts
    ]
    console.table(found.study.title, list(study_page.ORDER_HEADER), rows)
    console.say(f"{page}: the results, with {name}.svg and {name}.json.")
