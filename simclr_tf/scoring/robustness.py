"""The evaluation on corrupted images, and its comparison with another run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from simclr_tf import console, errors, storage, text
from simclr_tf.data import labels
from simclr_tf.evaluation import outcome, robustness
from simclr_tf.runs import opening
from simclr_tf.scoring import corrupted, extraction

if TYPE_CHECKING:
    from simclr_tf.scoring import network

# The key in result.json of what the numbers are of.
_IMAGES = "robustness/images"
_PICTURE = "corruptions.png"


def check(run: opening.Run) -> None:
    """Opens what it needs, so that what is wrong with it is reported before long work.

    Raises:
        UserError: if the corrupted data set or the results of the baseline cannot be read.
    """
    config = run.config
    _baseline(run)
    if config.corrupted_dataset is not None:
        corrupted.open_prepared(config, config.corruption_names[0], config.severities[0])


def evaluate(context: network.Context) -> outcome.Outcome:
    """Evaluates the classifier on images with each corruption of each severity.

    Raises:
        UserError: for whatever the user can fix.
    """
    run, found = context.run, list[corrupted.Corrupted]()
    config = run.config
    baseline = _baseline(run)
    kinds = len(config.corruption_names) * len(config.severities)
    make = corrupted.prepared if config.corrupted_dataset is not None else corrupted.made
    with console.Progress("corruptions, each of each severity", kinds) as progress:
        for one in make(context):
            found.append(one)
            progress.update(len(found) - 1, f"{one.cell.corruption} {one.cell.severity}")
    clean, *cells = [one.cell for one in found]
    result = robustness.evaluate(clean, cells, baseline)
    result.numbers[_IMAGES] = _images(run)
    if config.corrupted_dataset is None:
        result.pictures[_PICTURE] = _picture(found)
    return result


def _picture(found: list[corrupted.Corrupted]) -> list[tuple[str, np.ndarray]]:
    """Returns the rows of a picture: an image under each corruption, by severity."""
    (clean, original), *others = found
    levels = dict.fromkeys(str(cell.severity) for cell, _ in others)
    rows = {f"{clean.corruption}; then severity {', '.join(levels)}": [original]}
    for cell, example in others:
        rows.setdefault(cell.corruption.replace("_", " "), []).append(example)
    return [(caption, np.stack(images) / 255) for caption, images in rows.items()]


def _images(run: opening.Run) -> dict[str, Any]:
    """Returns which images are corrupted, and how; two runs are comparable if it is equal."""
    config, data = run.config, run.data
    return {
        "dataset": data.source.name,
        "eval_split": data.eval_split,
        "corrupted_dataset": config.corrupted_dataset,
        "corruption_examples": config.corruption_examples,
        "eval_examples": extraction.number_of_examples(run, data.eval_split),
        "eval_labels": labels.fingerprint(data.source, data.eval_split),
    }


def _baseline(run: opening.Run) -> tuple[str, robustness.Scores] | None:
    """Returns the name and the scores of --baseline_run; None without one.

    Raises:
        UserError: if it was not evaluated in the same way.
    """
    folder = run.config.baseline_run
    if folder is None:
        return None
    numbers = storage.read_json(os.path.join(folder, "result.json"))
    scores = robustness.scores_in(numbers)
    needed = [
        robustness.CLEAN,
        *((name, one) for name in run.config.corruption_names for one in run.config.severities),
    ]
    if scores is None:
        raise errors.UserError(
            f"--baseline_run={folder} was not evaluated on corrupted images; run "
            f"--mode=eval --model_dir={folder} --evaluations=robustness first."
        )
    missing = [f"{name} {severity}" for name, severity in needed if (name, severity) not in scores]
    if missing:
        raise errors.UserError(
            f"--baseline_run={folder} was not evaluated with {text.shortened(missing)}; evaluate "
            "it with the same --corruptions and --corruption_severities."
        )
    stored, wanted = numbers.get(_IMAGES, {}), _images(run)
    differing = [
        f"{name} is {stored.get(name)} there and {value} here"
        for name, value in wanted.items()
        if stored.get(name) != value
    ]
    if differing:
        raise errors.UserError(
            f"--baseline_run={folder} was evaluated on other images ({'; '.join(differing)}); "
            "evaluate both in the same way."
        )
    return os.path.basename(folder.rstrip("/")), scores
