"""Small studies and results of theirs, shared by several test files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import pathlib
import sys
import time
from typing import Any

import numpy as np

from simclr_tf.studies import attempts, cells, definition, outcomes, reading, results, verdicts

# Two cells with two seeds each, of which one is expected to be higher.
TEXT = """
title = "Width of the head"
question = "Does a wider head help?"
finding = "A wider head helps."
source = "a paper, section 1"
paper_scale = "There: ImageNet."
seeds = [0, 1]

[flags]
dataset = "digits"
train_epochs = 3

[axes.width]
title = "width"
values.8 = { proj_out_dim = 8 }
values.16 = { proj_out_dim = 16 }

[[orders]]
claim = "16 above 8"
higher = { width = "16" }
lower = { width = "8" }

[figure]
kind = "bars"
x = "width"
"""


def write(folder: pathlib.Path, text: str = TEXT, *, name: str = "tiny") -> pathlib.Path:
    """Writes the file of a study."""
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def read(folder: pathlib.Path, text: str = TEXT, *, name: str = "tiny") -> definition.Study:
    """Returns a study of a text."""
    return reading.read(write(folder, text, name=name))


def run(study: definition.Study, labels: Mapping[str, str], seed: int = 0, **overrides: Any) -> Any:
    """Returns the run of a cell."""
    return cells.make_run(study, labels, seed, overrides=overrides)


def outcome(
    study: definition.Study,
    labels: Mapping[str, str],
    seed: int,
    right: Sequence[bool],
    numbers: Mapping[str, Any] | None = None,
    *,
    prefix: str = "image",
) -> outcomes.Outcome:
    """Returns the result of a cell with a seed, which is right about some images."""
    cell = cells.Cell(labels, seed, run(study, labels, seed))
    names = {f"{prefix} {index:05d}": bool(one) for index, one in enumerate(right)}
    return outcomes.Outcome(cell, names, numbers or {}, 640, 1280, record())


def record(status: str = attempts.DONE, *, error: str = "", seconds: float = 90) -> attempts.Record:
    """Returns the record of a run that took a minute and a half."""
    return attempts.Record(status, ("true",), seconds, 60.0, 2**30, 1, "host", 1, error)


def outcomes_of(
    study: definition.Study, accuracies: Mapping[str, float], *, images: int = 1000
) -> list[outcomes.Outcome]:
    """Returns results of all cells, with accuracies by the label of the first axis."""
    found = []
    first = study.axes[0].name
    for labels in study.all_labels():
        for seed in study.seeds:
            # The same images are easy for every network, as of real ones.
            ease = np.random.default_rng(0).uniform(size=images)
            noise = np.random.default_rng([seed, len(found)]).normal(0, 0.02, images)
            right = ease + noise < accuracies[labels[first]]
            found.append(outcome(study, labels, seed, right))
    return found


def results_of(
    study: definition.Study, found: Sequence[outcomes.Outcome], **changes: Any
) -> results.Results:
    """Returns the results of a study."""
    values: dict[str, Any] = {
        "study": study,
        "command": "python run.py --mode=study --study=tiny",
        "root": "runs/studies",
        "finished": found,
        "expected": len(study.all_labels()) * len(study.seeds),
        "failures": [],
        "verdicts": verdicts.judge(study, found),
        "versions": [{"date": "2026-01-02T03:04:05+00:00", "sha256": study.orders_hash}],
        "chosen": {},
        "machines": ["2 cores (a processor), TensorFlow 2, commit 012345678"],
        "costs": {one.cell.run.identity: one.record.seconds for one in found},
    }
    return results.Results(**{**values, **changes})


# A program that writes a file, and then waits for a signal.
WAITS = "import sys, time; open('{}', 'w').close(); time.sleep(60)"


def python(code: str) -> list[str]:
    """Returns the command of a small program."""
    return [sys.executable, "-c", code]


def wait_for(path: pathlib.Path) -> None:
    """Waits until a file is there."""
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written")
