"""The results of a study, and the JSON file from which its verdicts can be computed again."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import hashlib
import math
import os
import shlex
from typing import Any

import numpy as np

from simclr_tf import errors, storage
from simclr_tf.studies import cells, definition, outcomes, verdicts

# Group of cells -> the tuned labels, and the accuracies of all of them; see `tuning.choose`.
Chosen = Mapping[tuple, tuple[definition.Labels, Mapping[str, float]]]
DEFAULT_ROOT = "runs/studies"  # Of --model_dir.


@dataclasses.dataclass(frozen=True)
class Failure:
    """A run that is not done.

    Attributes:
        title: the run in a few words.
        error: its last error.
        command: the command that trains it.
    """

    title: str
    error: str
    command: str


@dataclasses.dataclass(frozen=True)
class Results:
    """Everything that was measured.

    Attributes:
        study: the study.
        command: the command that runs or resumes it.
        root: the folder of all studies, as the commands on the page name it.
        finished: the results of the cells that are done.
        expected: number of cells, each seed counted, done or not.
        failures: the runs that failed or were interrupted.
        verdicts: one for each expected order.
        versions: the versions of the expected orders, see `plans.register`.
        chosen: group -> the tuned labels, and the accuracies on the images to choose on.
        machines: machine and commit of the runs, each once.
        costs: how long each run took that is done, in seconds, by its identity; also those that
            cells start from, and those to choose settings from.
    """

    study: definition.Study
    command: str
    root: str
    finished: Sequence[outcomes.Outcome]
    expected: int
    failures: Sequence[Failure]
    verdicts: Sequence[verdicts.Verdict]
    versions: Sequence[Mapping[str, Any]]
    chosen: Chosen
    machines: Sequence[str]
    costs: Mapping[str, float]

    def of_labels(self) -> list[tuple[definition.Labels, list[outcomes.Outcome]]]:
        """Returns the cells in the order of the study, each with its seeds."""
        grouped: list[tuple[definition.Labels, list[outcomes.Outcome]]] = []
        for labels in self.study.all_labels():
            found = [one for one in self.finished if one.cell.labels == labels]
            if found:
                grouped.append((labels, found))
        return grouped


def machine_of(folder: str) -> str:
    """Returns the machine and the commit of a run in a few words."""
    stored: Mapping[str, Any] = {}
    with contextlib.suppress(errors.UserError):
        stored = storage.read_json(os.path.join(folder, "environment.json"))
    return machine(stored)


def machine(stored: Mapping[str, Any]) -> str:
    """Returns a machine and a commit in a few words.

    Args:
        stored: the content of environment.json, which may lack entries.
    """
    commit = str(stored.get("commit") or "unknown")[:9]
    return (
        f"{stored.get('host_cores', '?')} cores ({stored.get('host_cpu', 'unknown processor')}), "
        f"TensorFlow {stored.get('tensorflow', '?')}, commit {commit}"
    )


def arguments_of(run: cells.Run, root: str = DEFAULT_ROOT) -> list[str]:
    """Returns the arguments that train a run, with PATH for the folder of its data.

    Args:
        run: the run.
        root: the folder of all studies, as the arguments name it.
    """
    return [
        "--data_dir=PATH" if argument.startswith("--data_dir=") else argument
        for argument in run.arguments(root)
    ]


def command_of(run: cells.Run, root: str = DEFAULT_ROOT) -> str:
    """Returns the command that trains a run, see `arguments_of`."""
    return shlex.join(["python", "run.py", *arguments_of(run, root)])


def to_json(results: Results, root: str) -> dict[str, Any]:
    """Returns what is written to the JSON file of a study."""
    study = results.study
    names = sorted(results.finished[0].right) if results.finished else []
    drawn = (study.figure.metric, *study.figure.metrics.values())
    metrics = {*drawn, *(side.metric for one in study.orders for side in one.sides)}
    metrics -= {definition.ACCURACY}

    def right(one: outcomes.Outcome) -> str | None:
        if len(one.right) != len(names) or not all(name in one.right for name in names):
            return None  # It was evaluated on other images.
        return packed(np.array([one.right[name] for name in names]))

    return {
        "study": study.name,
        "command": results.command,
        "orders_sha256": study.orders_hash,
        "orders_versions": list(results.versions),
        "machines": list(results.machines),
        "costs": {run: round(seconds, 1) for run, seconds in results.costs.items()},
        # The bits of "right" are in the order of the sorted names.
        "images": len(names),
        "images_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "cells": [
            {
                "labels": dict(one.cell.labels),
                "tuned": dict(one.cell.tuned),
                "seed": one.cell.seed,
                **({} if study.measurement else _run(one, root, results.root)),
                "accuracy": _finite(one.accuracy),
                "numbers": {name: _finite(one.number(name)) for name in sorted(metrics)},
                "right": right(one),
                "columns": {
                    title: _finite(one.number(metric)) for title, metric in study.columns.items()
                },
            }
            for one in results.finished
        ],
        "failed": [dataclasses.asdict(one) for one in results.failures],
        "orders": [_verdict(one) for one in results.verdicts],
    }


def _run(one: outcomes.Outcome, root: str, shown_root: str) -> dict[str, Any]:
    """Returns how a cell was trained, and what that cost."""
    return {
        "run": os.path.relpath(one.cell.run.folder(root), root),
        "arguments": arguments_of(one.cell.run, shown_root),
        "seconds": one.record.seconds,
        "peak_memory": one.record.peak_memory,
        "images": one.images,
        "views": one.views,
    }


def _verdict(one: verdicts.Verdict) -> dict[str, Any]:
    if one.contrast is None:
        return {"claim": one.order.claim, "verdict": one.verdict}
    return {
        "claim": one.order.claim,
        "verdict": one.verdict,
        "difference": _finite(one.contrast.difference.value),
        "difference_95": [_finite(end) for end in one.contrast.difference[1:]],
        "of_seeds": [_finite(value) for value in one.contrast.of_seeds],
        "mcnemar": list(one.contrast.mcnemar),
        "p": one.contrast.p,
        "p_adjusted": one.adjusted,
        "smallest_difference": _finite(one.smallest),
        "seeds_needed": one.seeds_needed,
    }


def _finite(value: float | None) -> float | None:
    """Returns a number that JSON can hold, None for any other."""
    return value if value is not None and math.isfinite(value) else None


def packed(right: np.ndarray) -> str:
    """Returns booleans as text, eight in a byte, in base64."""
    return base64.b64encode(np.packbits(np.asarray(right, bool))).decode()


def unpacked(text: str, count: int) -> np.ndarray:
    """Returns the booleans that `packed` wrote, (count,)."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)
