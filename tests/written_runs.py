"""Run directories whose files are written by hand, for the tests of reports."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from matplotlib import figure
import numpy as np
import tensorflow as tf
import tiny_runs

from simclr_tf import config
from simclr_tf.evaluation import outcome
from simclr_tf.report import evaluation_files
from simclr_tf.runs import directory

STEP = 40
RESULT = {
    "global_step": STEP,
    "eval/measured_on": {"eval_split": "test", "eval_examples": 200},
    "eval/examples": 200,
    "linear_eval/top_1_accuracy": 0.8350000000000001,
    "linear_eval/top_1_accuracy_95": [0.7773, 0.8801],
    "linear_eval/top_5_accuracy": 0.99,
    "linear_eval/top_5_accuracy_95": [0.9643, 0.9973],
    "eval/label_top_1_accuracy": 0.7,
    "eval/label_top_1_accuracy_95": [0.6331, 0.7593],
    "baseline/raw_pixels/top_1_accuracy": 0.41,
    "baseline/raw_pixels/top_1_accuracy_95": [0.3442, 0.4792],
    "calibration/nll": 1.2345678901234567,
    "geometry/effective_rank": 11.5,
    "train/seconds": 61.25,
}
CONFIG = config.Config(
    dataset="cifar10",
    data_dir="/data",
    train_batch_size=64,
    train_epochs=4,
    warmup_epochs=0,
    temperature=0.2,
)
IMAGES = 639  # 4 epochs of them are 40 steps of 64 images.


def write(
    folder: pathlib.Path,
    *,
    settings: config.Config = CONFIG,
    result: dict[str, Any] | None = RESULT,
    classes: tuple[str, ...] | None = ("cat", "dog", "owl"),
    metrics: dict[str, float] | None = None,
    evaluated: bool = True,
) -> pathlib.Path:
    """Writes the files of a finished run.

    Args:
        folder: the run directory, which is made.
        settings: its settings.
        result: the content of result.json; None for none.
        classes: names of the classes; None without labels.
        metrics: metrics of every record that differ from those of a healthy run.
        evaluated: whether there are files of the evaluation.
    """
    folder.mkdir(parents=True)
    directory.write_config(str(folder), dataclasses.replace(settings, model_dir=str(folder)))
    architecture = dataclasses.replace(tiny_runs.ARCHITECTURE, class_names=classes)
    directory.write_architecture(str(folder), architecture)
    write_json(folder / "data.json", {"images": IMAGES, "classes": classes})
    write_json(folder / "start.json", {"initial_weights": ["from runs/other", "stem adapted"]})
    write_json(folder / "environment.json", {"commit": "abc123-dirty", "replicas": 1})
    lines = [json.dumps(record(step, metrics or {})) for step in range(4, STEP + 1, 4)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "views.png").write_bytes(png())
    if result is not None:
        write_json(folder / "result.json", result)
    if evaluated and classes is not None:
        _write_evaluation(folder, classes)
    return folder


def record(step: int, changes: dict[str, float]) -> dict[str, float]:
    """Returns a line of the metrics of a healthy run."""
    usual = {
        "train/contrast_loss": 4.8 - step / 20,
        "train/contrast_acc": 0.1 + step / 100,
        "train/supervised_loss": 1.0,
        "train/supervised_acc": 0.6,
        "train/feature_spread": 0.4,
        "train/feature_rank": 9.0,
        "train/positive_cosine": 0.8,
        "train/negative_cosine": 0.2,
        "train/gradient_norm": 3.0,
        "train/images_per_second": 400.0,
        "train/input_wait": 0.01,
        "learning_rate": 0.1,
    }
    return {"step": step, **usual, **changes}


def png() -> bytes:
    """Returns a small picture."""
    return tf.io.encode_png(np.zeros((8, 30, 3), np.uint8)).numpy()


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def _write_evaluation(folder: pathlib.Path, classes: tuple[str, ...]) -> None:
    rows = [["class", "examples", "accuracy"], *([name, "10", "0.5"] for name in classes)]

    def draw(target: figure.Figure) -> None:
        target.text(0.5, 0.5, classes[0])

    found = outcome.Outcome(
        tables={"per_class.csv": rows},
        figures={"confusion.svg": draw},
        sheets={"neighbours.png": [(classes[0], [outcome.Tile(np.zeros((8, 8, 3)))])]},
    )
    evaluation_files.write(str(folder), STEP, {"all": found})
