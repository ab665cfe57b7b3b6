"""Trains a run for each draw of few labels, and summarises their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import os
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, storage
from simclr_tf.runs import checkpoints, directory, resuming

RESULT = "result.json"
# Numbers of a result that do not say how good a run is.
_NOT_COMPARED = ("train/", "eval/seconds", "eval/examples", "few_labels/")


def folder_of(model_dir: str, draw: int) -> str:
    """Returns the run directory of a draw."""
    return os.path.join(model_dir, f"draw-{draw}")


def train_draws(
    config: config_lib.Config,
    train_and_evaluate: Callable[[config_lib.Config], Any],
    *,
    batch_size_given: bool = True,
) -> None:
    """Trains and evaluates a run for each draw, and writes the summary of their results.

    The summary is written after each run. A run that is in it is not repeated, unless its settings
    differ.

    Args:
        config: the settings, with the number of draws.
        train_and_evaluate: trains and evaluates a run, given its settings.
        batch_size_given: see `opening.open_run`.

    Raises:
        UserError: if the run directory has a run itself, or for whatever a run cannot do.
    """
    model_dir = _check_folder(config)
    path = os.path.join(model_dir, RESULT)
    before = storage.read_json(path)["draws"] if tf.io.gfile.exists(path) else []
    results = {}
    for draw in range(config.label_draw, config.label_draw + config.label_draws):
        folder = folder_of(model_dir, draw)
        of_draw = dataclasses.replace(config, model_dir=folder, label_draw=draw, label_draws=1)
        if draw in before and _is_same_run(of_draw, folder, batch_size_given=batch_size_given):
            console.say(f"Draw {draw} is finished: {folder}.")
        else:
            console.say(f"Draw {draw} ({draw - config.label_draw + 1} of {config.label_draws}).")
            train_and_evaluate(of_draw)
        results[draw] = storage.read_json(os.path.join(folder, RESULT))
        summary = summarize(results)
        storage.write_json(path, summary)
    _print(model_dir, summary)


def _check_folder(config: config_lib.Config) -> str:
    """Returns the folder for the runs of the draws, which must not be a run itself."""
    if config.model_dir is None:
        raise errors.UserError("--model_dir is missing; name a folder for the runs of the draws.")
    if checkpoints.latest(config.model_dir) is not None:
        raise errors.UserError(
            f"--model_dir={config.model_dir} contains a run, and "
            f"--label_draws={config.label_draws} makes a folder for the runs of its draws; use "
            "another --model_dir."
        )
    return config.model_dir


def _is_same_run(config: config_lib.Config, folder: str, *, batch_size_given: bool) -> bool:
    """Returns whether a run directory has a run with the same settings."""
    stored = directory.read_config(folder)
    if stored is None:
        return False
    if not batch_size_given:
        config = dataclasses.replace(config, train_batch_size=stored.train_batch_size)
    return not resuming.changed_settings(stored, config)


def summarize(results: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the mean and the standard deviation of the numbers that all draws have.

    Args:
        results: number of a draw -> its result.

    Returns:
        {"draws": numbers of the draws, "values": {name: numbers of the draws}, "mean": {name:
        number}, "std": {name: standard deviation of a sample}}; no deviation of a single draw.
    """
    first, *others = results.values()
    names = [
        name
        for name, value in first.items()
        if isinstance(value, float) and all(isinstance(o.get(name), float) for o in others)
    ]
    names = [name for name in names if not name.startswith(_NOT_COMPARED)]
    values = {name: [float(one[name]) for one in results.values()] for name in names}
    return {
        "draws": list(results),
        "values": values,
        "mean": {name: float(np.mean(numbers)) for name, numbers in values.items()},
        "std": {
            name: float(np.std(numbers, ddof=1))
            for name, numbers in values.items()
            if len(numbers) > 1
        },
    }


def _print(model_dir: str, summary: dict[str, Any]) -> None:
    rows = []
    for name in summary["mean"]:
        if name.endswith("accuracy"):
            mean, deviation = summary["mean"][name], summary["std"][name]
            each = ", ".join(f"{value:.1%}" for value in summary["values"][name])
            rows.append([name, f"{mean:.1%}", f"{100 * deviation:.1f}", each])
    header = ["accuracy", "mean", "standard deviation, points", "each draw"]
    console.table(f"{len(summary['draws'])} draws of the labels", header, rows)
    console.say(f"The run of each draw is in {folder_of(model_dir, summary['draws'][0])}, ...")
