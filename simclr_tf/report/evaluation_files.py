"""The files of an evaluation: its tables, figures and pictures."""

from __future__ import annotations

from collections.abc import Mapping
import csv
import io
import os

import matplotlib as mpl
from matplotlib import figure
import tensorflow as tf

from simclr_tf import storage
from simclr_tf.evaluation import outcome
from simclr_tf.report import contact_sheet

FOLDER = "evaluation"
_INCHES = (7.0, 6.0)


def write(model_dir: str, step: int, outcomes: Mapping[str, outcome.Outcome]) -> str | None:
    """Writes the tables, figures and pictures of evaluations to MODEL_DIR/evaluation/STEP.

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
        files.update({name: to_csv(rows) for name, rows in found.tables.items()})
        files.update({name: to_svg(draw) for name, draw in found.figures.items()})
    pictures = {
        name: contact_sheet.draw(rows)
        for found in outcomes.values()
        for name, rows in found.pictures.items()
    }
    if not files and not pictures:
        return None
    tf.io.gfile.makedirs(folder)
    for name, content in files.items():
        storage.replace(os.path.join(folder, name), content)
    for name, picture in pictures.items():
        storage.write_png(os.path.join(folder, name), picture)
    return folder


def remove(model_dir: str, step: int) -> None:
    """Deletes the tables and figures of a step, if there are any."""
    folder = os.path.join(model_dir, FOLDER, str(step))
    if tf.io.gfile.isdir(folder):
        tf.io.gfile.rmtree(folder)


def to_csv(rows: list[list[str]]) -> str:
    """Returns the content of a CSV file with these rows."""
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(rows)
    return content.getvalue()


def to_svg(draw: outcome.Draw, inches: tuple[float, float] = _INCHES) -> str:
    """Returns a figure as SVG, the same bytes for the same content.

    Args:
        draw: draws into an empty figure.
        inches: width and height of the figure.
    """
    target = figure.Figure(figsize=inches, layout="constrained")
    draw(target)
    content = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "simclr", "svg.fonttype": "none"}):
        target.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()
