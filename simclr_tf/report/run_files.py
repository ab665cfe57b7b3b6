"""Reads a run directory for its report: what is there, what is missing, and what is damaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import csv
import dataclasses
import io
import itertools
import os
import re
from typing import Any, TypeVar

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import errors, storage, text
from simclr_tf.models import simclr
from simclr_tf.report import evaluation_files, metric_columns
from simclr_tf.runs import (
    bad_step,
    best,
    description,
    directory,
    environment,
    metrics_log,
    resuming,
    unreadable,
)

REPORT = "report.html"
_VIEWS = "views.png"
# Files that only a run directory has.
_MARKS = (directory.FLAGS, metrics_log.METRICS, "result.json", "architecture.json")
# The most results of earlier steps that are read.
_MOST_RESULTS = 100
# How many runs of a folder a message names, and how many of its folders are looked into.
_MOST_NAMED, _MOST_FOLDERS = 3, 50
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """What the files of a run directory say. What is None or empty is not there.

    Attributes:
        folder: the run directory.
        config: the settings.
        history: changes of the settings at which the run was resumed.
        metrics: what training recorded.
        result: the numbers of the last evaluation, by their names in result.json.
        results: step -> the numbers of every evaluated step.
        environment: versions, devices and host.
        data: number and classes of the training images.
        initial_weights: sentences on where the initial weights come from.
        architecture: the network.
        best: the evaluations during training.
        bad_step: what is known about a step that was not finite.
        excluded: the unreadable images that were excluded, with the reasons.
        evaluated_step: the step that tables, figures and pictures belong to.
        tables: name of a CSV file -> its rows.
        figures: name of an SVG file -> its content.
        pictures: name of a PNG file -> its content.
        views: the picture of the first views.
        problems: a sentence for every file that cannot be read.
    """

    folder: str
    config: config_lib.Config | None
    history: tuple[dict[str, Any], ...]
    metrics: metric_columns.Metrics
    result: Mapping[str, Any]
    results: Mapping[int, Mapping[str, Any]]
    environment: Mapping[str, Any]
    data: Mapping[str, Any]
    initial_weights: tuple[str, ...]
    architecture: simclr.Architecture | None
    best: best.Best | None
    bad_step: Mapping[str, Any]
    excluded: tuple[str, ...]
    evaluated_step: int | None
    tables: Mapping[str, list[list[str]]]
    figures: Mapping[str, bytes]
    pictures: Mapping[str, bytes]
    views: bytes | None
    problems: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes that the network distinguishes; None if there are none, or if unknown."""
        return None if self.architecture is None else self.architecture.class_names


def read(folder: str) -> RunFiles:
    """Reads a run directory. A damaged file becomes one of the `problems`.

    Args:
        folder: the run directory.

    Raises:
        UserError: if there is no run.
    """
    check_is_run(folder)
    reader = _Reader(folder)
    result = reader.json("result.json")
    step = _evaluated_step(reader, result)
    tables, figures, pictures = reader.evaluation(step)
    return RunFiles(
        folder=folder,
        config=reader.attempt(lambda: directory.read_config(folder)),
        history=reader.history(),
        metrics=reader.metrics(),
        result=result,
        results=reader.results(),
        environment=reader.json(environment.ENVIRONMENT),
        data=reader.json(resuming.DATA),
        initial_weights=_initial_weights(reader.json(description.START)),
        architecture=reader.attempt(lambda: directory.read_architecture(folder)),
        best=reader.attempt(lambda: best.read(folder)),
        bad_step=reader.json(os.path.join(directory.BAD_STEP, bad_step.FACTS)),
        excluded=_excluded(reader.json(unreadable.LIST)),
        evaluated_step=step,
        tables=tables,
        figures=figures,
        pictures=pictures,
        views=reader.content(_VIEWS),
        problems=tuple(reader.problems),
    )


def _initial_weights(start: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the sentences of a run's start.json; none of a run of an older version."""
    found = start.get(description.INITIAL_WEIGHTS)
    return tuple(map(str, found)) if isinstance(found, list) else ()


def is_run(folder: str) -> bool:
    """Returns whether a folder is a run directory."""
    return any(tf.io.gfile.exists(os.path.join(folder, name)) for name in _MARKS)


def check_is_run(folder: str) -> None:
    """Refuses what is not a run directory, and that of several draws of the labels.

    Args:
        folder: a path.

    Raises:
        UserError: with what it is, and what to give instead.
    """
    if not tf.io.gfile.exists(folder):
        raise errors.UserError(
            f"The run directory {folder} does not exist; check --model_dir and --runs."
        )
    if not tf.io.gfile.isdir(folder):
        above = os.path.dirname(folder)
        instead = f"give its run directory, {above}" if is_run(above) else "give a run directory"
        raise errors.UserError(f"{folder} is a file; {instead}.")
    if not is_run(folder):
        inside = _runs_in(folder)
        if inside:
            raise errors.UserError(
                f"{folder} is a folder of runs and not a run directory; give some of its runs, "
                f"such as {', '.join(inside)} (--mode=runs --under={folder} lists them all)."
            )
        raise errors.UserError(
            f"{folder} has no run ({', '.join(_MARKS)} are missing); name a run directory."
        )
    draws = [name for name in storage.names_in(folder) if re.fullmatch(r"draw-\d+", name)]
    if draws and not tf.io.gfile.exists(os.path.join(folder, directory.FLAGS)):
        runs = ",".join(os.path.join(folder, name) for name in sorted(draws))
        raise errors.UserError(
            f"{folder} has the runs of {len(draws)} draws of the labels, each with a report of its "
            f"own; --mode=report --runs={runs} compares them."
        )


def _runs_in(folder: str) -> list[str]:
    """Returns the first runs in a folder, or in the folders in it."""
    found = []
    folders = _folders_in(folder)
    for one in itertools.chain(folders, itertools.chain.from_iterable(map(_folders_in, folders))):
        if is_run(one):
            found.append(one)
        if len(found) == _MOST_NAMED:
            break
    return found


def _folders_in(folder: str) -> list[str]:
    """Returns the first folders in a folder; none if it cannot be listed."""
    try:
        names = sorted(name.rstrip("/") for name in storage.names_in(folder))
    except errors.UserError:
        return []
    inside = (os.path.join(folder, name) for name in names)
    return list(itertools.islice(filter(tf.io.gfile.isdir, inside), _MOST_FOLDERS))


class _Reader:
    """Reads files of a run directory, and collects what is wrong with them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.problems: list[str] = []

    def attempt(self, read: Callable[[], _T]) -> _T | None:
        """Returns what a function reads; None if the file is damaged."""
        try:
            return read()
        except errors.UserError as error:
            self.problems.append(str(error))
            return None

    def _exists(self, name: str) -> bool:
        return tf.io.gfile.exists(os.path.join(self._folder, name))

    def json(self, name: str) -> dict[str, Any]:
        """Returns the object in a JSON file; an empty one if the file is missing or damaged."""
        path = os.path.join(self._folder, name)
        value = self.attempt(lambda: storage.read_json(path)) if self._exists(name) else {}
        if value is not None and not isinstance(value, dict):
            self.problems.append(f"{path} is damaged (it is not an object); restore or remove it.")
        return value if isinstance(value, dict) else {}

    def content(self, name: str) -> bytes | None:
        """Returns the bytes of a file; None if it is missing or cannot be read."""
        path = os.path.join(self._folder, name)
        return self.attempt(lambda: storage.read_bytes(path)) if self._exists(name) else None

    def metrics(self) -> metric_columns.Metrics:
        """Returns what training recorded."""
        found = metric_columns.parse(self.content(metrics_log.METRICS) or b"")
        if found.damaged:
            self.problems.append(
                f"{os.path.join(self._folder, metrics_log.METRICS)} has "
                f"{text.count(found.damaged, 'damaged line')}, left out here."
            )
        return found

    def history(self) -> tuple[dict[str, Any], ...]:
        """Returns the changes of the settings."""
        lines = (self.content(resuming.HISTORY) or b"").splitlines()
        parsed = list(map(metric_columns.parse_line, lines))
        entries = [one for one in parsed if one and isinstance(one.get("changes"), dict)]
        if len(entries) < len(lines):
            path = os.path.join(self._folder, resuming.HISTORY)
            self.problems.append(f"{path} has damaged lines, left out here.")
        return tuple(entries)

    def results(self) -> dict[int, dict[str, Any]]:
        """Returns the numbers of every evaluated step, of the last ones if there are many."""
        names = self.attempt(lambda: storage.names_in(self._folder)) or []
        matches = (re.fullmatch(r"result_(\d+)\.json", name) for name in names)
        steps = sorted(int(match[1]) for match in matches if match)[-_MOST_RESULTS:]
        return {step: self.json(f"result_{step}.json") for step in steps}

    def evaluation(
        self, step: int | None
    ) -> tuple[dict[str, list[list[str]]], dict[str, bytes], dict[str, bytes]]:
        """Returns the tables, figures and pictures of the evaluation of a step."""
        folder = os.path.join(evaluation_files.FOLDER, str(step))
        path = os.path.join(self._folder, folder)
        found: dict[str, dict[str, bytes]] = {".csv": {}, ".svg": {}, ".png": {}}
        for name in sorted(self.attempt(lambda: storage.names_in(path)) or []):
            kind = os.path.splitext(name)[1]
            content = self.content(os.path.join(folder, name)) if kind in found else None
            if content is not None:
                found[kind][name] = content
        tables = {
            name: rows
            for name, content in found[".csv"].items()
            if (rows := self._table(os.path.join(path, name), content))
        }
        return tables, found[".svg"], found[".png"]

    def _table(self, path: str, content: bytes) -> list[list[str]]:
        """Returns the rows of a CSV file; none if it is damaged."""
        try:
            return list(csv.reader(io.StringIO(content.decode(errors="replace"), newline="")))
        except csv.Error as error:
            self.problems.append(f"{path} is damaged ({error}); --mode=eval writes it again.")
            return []


def _evaluated_step(reader: _Reader, result: Mapping[str, Any]) -> int | None:
    """Returns the step of the last evaluation, by result.json."""
    step = result.get("global_step")
    if result and type(step) is not int:
        reader.problems.append(
            "result.json does not name the step that it belongs to, so the files of the evaluation "
            "are not shown; --mode=eval writes it again."
        )
    return step if type(step) is int else None


def _excluded(stored: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the excluded images with the reasons."""
    splits = stored.get("splits")
    found = []
    for split in splits.values() if isinstance(splits, dict) else ():
        images = split.get("left_out") if isinstance(split, dict) else None
        if isinstance(images, dict):
            found += [f"{name} {why}" for name, why in images.items()]
    return tuple(found)
