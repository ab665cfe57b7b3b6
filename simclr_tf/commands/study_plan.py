"""What a study will train: the list of studies, and the cells, commands and time of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import pathlib
import shlex
from typing import Any

from simclr_tf import console, text
from simclr_tf.studies import attempts, cells, definition, reading, schedule, tuning


def print_list(folder: pathlib.Path) -> None:
    """Prints name, question and size of every study.

    Args:
        folder: the folder of the studies that come with the program.
    """
    rows = []
    for path in sorted(folder.glob("*.toml")):
        one = reading.read(path)
        count = _count(one)
        minutes = "" if one.minutes is None else console.duration(60 * one.minutes * count)
        rows.append([one.name, one.question, one.source, str(count), minutes])
    console.table("Studies", ["name", "question", "source", "runs", "time on one core"], rows)


def _count(one: definition.Study) -> int:
    """Returns how many runs a study has, those to choose settings from included."""
    if one.measurement is not None:
        return 0
    return len(one.all_labels()) * len(one.seeds) + len(tuning.trials(one, {}))


def check(one: definition.Study, overrides: Mapping[str, Any], root: str) -> None:
    """Refuses settings that cannot be combined, of any cell.

    Args:
        one: the study.
        overrides: flags of the command line.
        root: the folder of all studies.

    Raises:
        UserError: for the first of them.
    """
    tried = tuning.trials(one, overrides)
    for trial in tried:
        cells.check(one, trial.cell.run, root)
    for cell in tuning.cells_of(one, overrides, _any_choice(tried)):
        cells.check(one, cell.run, root)


def _any_choice(
    tried: Sequence[tuning.Trial],
) -> dict[tuple, tuple[definition.Labels, dict[str, float]]]:
    """Returns settings for each group: any may be chosen, and the last ones are as good."""
    return {trial.group: (trial.tuned, {}) for trial in tried}


def waiting(one: definition.Study, overrides: Mapping[str, Any], root: str) -> list[cells.Run]:
    """Returns the runs that are not done; of settings that are not chosen yet, with any of them.

    Args:
        one: the study; one that trains nothing has no runs.
        overrides: flags of the command line.
        root: the folder of all studies.

    Raises:
        UserError: if a run was trained with other settings.
    """
    if one.measurement is not None:
        return []
    tried = tuning.trials(one, overrides)
    of_trials = [trial.cell.run for trial in tried]
    chosen = tuning.choose(tried, schedule.finished(of_trials, root), root)
    planned = tuning.cells_of(one, overrides, {**_any_choice(tried), **chosen})
    runs = schedule.all_runs([*of_trials, *(cell.run for cell in planned)])
    done = schedule.finished(runs, root)
    return [run for run in runs if run.identity not in done]


def print_plan(one: definition.Study, overrides: Mapping[str, Any], root: str) -> None:
    """Prints the runs of a study, their commands and the expected time.

    Args:
        one: the study.
        overrides: flags of the command line.
        root: the folder of all studies.
    """
    if one.measurement is not None:
        console.say(f"{one.name}: trains nothing.")
        return
    tried = tuning.trials(one, overrides)
    planned = [trial.cell for trial in tried] or tuning.cells_of(one, overrides, {})
    runs = schedule.all_runs([cell.run for cell in planned])
    done = schedule.finished(runs, root)
    for run in runs:
        state = "done" if run.identity in done else "to do"
        console.say(f"{run.title} ({state})")
        # Printed as it is: a command that is cut short cannot be run.
        print(f"    {shlex.join(['python', 'run.py', *run.arguments(root)])}")
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
