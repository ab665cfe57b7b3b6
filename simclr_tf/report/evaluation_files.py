"""The files of an evaluation: tables, figures and the prediction for every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import csv
import io
import os

import matplotlib as mpl
from matplotlib import figure
import numpy as np
import pyarrow as pa
from pyarrow import parquet
from scipy import special
import tensorflow as tf

from simclr_tf import storage
from simclr_tf.evaluation import outcome

FOLDER = "evaluation"
PREDICTIONS = "predictions.parquet"
_INCHES = (7.0, 6.0)


def write(model_dir: str, step: int, outcomes: Mapping[str, outcome.Outcome]) -> str | None:
    """Writes the tables and figures of evaluations to MODEL_DIR/evaluation/STEP.

    Args:
        model_dir: the run directory.
        step: the step of the evaluated weights.
        outcomes: name of an evaluation -> what it found.

    Returns:
        The folder; None if there was nothing to write.

    Raises:
        UserError: if a file cannot be written.
    """
    folder = os.path.join(model_dir, FOLDER, str(step))
    files: dict[str, str] = {}
    for found in outcomes.values():
        files.update({name: _csv(rows) for name, rows in found.tables.items()})
        files.update({name: _svg(draw) for name, draw in found.figures.items()})
    if not files:
        return None
    tf.io.gfile.makedirs(folder)
    for name, content in files.items():
        storage.replace(os.path.join(folder, name), content)
    return folder


def write_predictions(
    model_dir: str,
    names: Sequence[str],
    labels: np.ndarray,
    scores: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Writes MODEL_DIR/predictions.parquet: one row for every evaluated image, in stored order.

    Args:
        model_dir: the run directory.
        names: (n,) names of the images.
        labels: (n,) their classes.
        scores: (n, c) unnormalised log probabilities.
        class_names: names of the c classes.

    Raises:
        UserError: if the file cannot be written.
    """
    classes = np.array(class_names, object)
    predicted = np.argmax(scores, 1)
    probability = np.exp(np.max(special.log_softmax(scores.astype(np.float64), 1), 1))
    table = pa.table(
        {
            "name": pa.array(names, pa.string()),
            "label": pa.array(classes[labels], pa.string()),
            "prediction": pa.array(classes[predicted], pa.string()),
            "probability": pa.array(probability, pa.float64()),
        }
    )
    content = io.BytesIO()
    parquet.write_table(table, content)
    storage.replace(os.path.join(model_dir, PREDICTIONS), content.getvalue())


def _csv(rows: list[list[str]]) -> str:
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(rows)
    return content.getvalue()


def _svg(draw: outcome.Draw) -> str:
    """Returns a figure as SVG, the same bytes for the same content."""
    target = figure.Figure(figsize=_INCHES, layout="constrained")
    draw(target)
    content = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "simclr", "svg.fonttype": "none"}):
        target.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()
