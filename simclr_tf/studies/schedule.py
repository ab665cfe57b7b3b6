"""Trains the runs of a study: each once, after the run that it starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import sys
import time

from simclr_tf import console, errors, text
from simclr_tf import preemption as preemption_lib
from simclr_tf.models import simclr
from simclr_tf.runs import directory, resuming
from simclr_tf.studies import attempts, cell_titles, cells, launchers

_LOOK_SECONDS = 0.2


def all_runs(runs: Iterable[cells.Run]) -> list[cells.Run]:
    """Returns runs with the runs that they start from before them, each once."""
    found: dict[str, cells.Run] = {}
    for run in runs:
        for one in (run.parent, run):
            if one is not None:
                found.setdefault(one.identity, one)
    return list(found.values())


def finished(runs: Iterable[cells.Run], root: str) -> dict[str, attempts.Record]:
    """Returns the records of the runs that are done, by their identity.

    Raises:
        UserError: if one was trained with other settings, because their defaults have changed.
    """
    done = {}
    for run in all_runs(runs):
        record = attempts.read(run.folder(root))
        if record is not None and record.status == attempts.DONE:
            _check_settings(run, root)
            done[run.identity] = record
    return done


def _check_settings(run: cells.Run, root: str) -> None:
    """Refuses a finished run that a version of the program with other defaults has trained."""
    folder = run.folder(root)
    stored = directory.read_config(folder)
    if stored is None:
        return
    # The program chooses the batch size by the number of images, and takes the architecture from
    # the weights that a run starts from.
    chosen = ("train_batch_size", *(simclr.ARCHITECTURE_SETTINGS if run.parent else ()))
    taken = {name: getattr(stored, name) for name in chosen if name not in run.flags}
    given = dataclasses.replace(run.config(root), **taken)
    changes = resuming.changed_settings(stored, given)
    if changes:
        raise errors.UserError(
            f"{run.title} is done in {folder}, but with other settings "
            f"({text.shortened(list(map(str, changes)))}), because their defaults have changed; "
            "remove that folder to train it again, or use another --model_dir."
        )


def command(run: cells.Run, root: str) -> list[str]:
    """Returns what trains a run."""
    return [sys.executable, "-m", "simclr_tf", *run.arguments(root)]


def train_all(
    runs: Sequence[cells.Run],
    root: str,
    make_launcher: Callable[[], launchers.Launcher],
    preemption: preemption_lib.Preemption,
    *,
    what: str,
) -> dict[str, attempts.Record]:
    """Trains the runs that are not done, and those that they start from.

    A run that fails does not stop the others; those that start from it are left out.

    Args:
        runs: the runs.
        root: the folder of all studies.
        make_launcher: makes the launcher; not called if everything is done.
        preemption: says whether the program must end.
        what: the name of the task, for the progress.

    Returns:
        The records of all runs, also those that failed, by their identity. What starts from a run
        that failed has none.

    Raises:
        Preempted: after a signal, when the runs have saved their checkpoints.
    """
    waiting = all_runs(runs)
    records = finished(runs, root)
    for run in waiting:
        if run.identity in records:
            cell_titles.add(run.folder(root), run.title)
    waiting = [run for run in waiting if run.identity not in records]
    if not waiting:
        return records
    launcher = make_launcher()
    finished_all = False
    with preemption.training():
        try:
            finished_all = _train(waiting, records, root, launcher, preemption, what)
        finally:
            sentence = launcher.close()
            if not finished_all:
                console.say(sentence)
    return records


def _train(
    waiting: list[cells.Run],
    records: dict[str, attempts.Record],
    root: str,
    launcher: launchers.Launcher,
    preemption: preemption_lib.Preemption,
    what: str,
) -> bool:
    """Trains the waiting runs and adds their records; returns whether none was left waiting."""
    running: dict[str, tuple[cells.Run, launchers.Job]] = {}
    total, last = len(waiting) + len(records), (-1, "")
    with console.Progress(what, total, len(records), line_every=0) as progress:
        while (waiting or running) and not preemption.requested:
            for identity, (run, job) in list(running.items()):
                if job.done():
                    del running[identity]
                    records[identity] = _ended(run, job, root)
            for run in _ready(waiting, records)[: launcher.jobs - len(running)]:
                waiting.remove(run)
                cell_titles.add(run.folder(root), run.title)
                job = launcher.submit(command(run, root), run.folder(root))
                running[run.identity] = run, job
            for run in _without_start(waiting, records):
                waiting.remove(run)
                console.warn(f"{run.title} is left out, because its first stage is not done.")
            shown = total - len(waiting) - len(running), _titles(running)
            if shown != last:  # Otherwise a log has a line at every look.
                progress.update(*shown)
                last = shown
            if running:
                time.sleep(_LOOK_SECONDS)
    return not (waiting or running)


def _ready(waiting: Sequence[cells.Run], records: dict[str, attempts.Record]) -> list[cells.Run]:
    """Returns the runs that can be trained now."""
    return [
        run
        for run in waiting
        if run.parent is None
        or (run.parent.identity in records and _is_done(records[run.parent.identity]))
    ]


def _without_start(
    waiting: Sequence[cells.Run], records: dict[str, attempts.Record]
) -> list[cells.Run]:
    """Returns the runs whose first stage has ended without being done."""
    return [
        run
        for run in waiting
        if run.parent is not None
        and run.parent.identity in records
        and not _is_done(records[run.parent.identity])
    ]


def _is_done(record: attempts.Record) -> bool:
    return record.status == attempts.DONE


def _ended(run: cells.Run, job: launchers.Job, root: str) -> attempts.Record:
    """Returns how a run ended, and prints what went wrong."""
    record = job.result()
    if not _is_done(record):
        what = "failed" if record.status == attempts.FAILED else "was interrupted"
        console.warn(
            f"{run.title} {what}: {record.error.rstrip('.')}. Its output is in {run.folder(root)}/"
            f"{attempts.OUTPUT}; the same study runs it again."
        )
    return record


def _titles(running: dict[str, tuple[cells.Run, launchers.Job]]) -> str:
    """Returns what is being trained, in a few words."""
    titles = [run.title for run, _ in running.values()]
    return text.shortened(titles, most=1)
