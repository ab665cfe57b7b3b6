"""Writes the cells of studies for the HParams dashboard of TensorBoard."""

from __future__ import annotations

import os

from tensorboard.plugins.hparams import api
import tensorflow as tf

from simclr_tf.studies import outcomes

_FOLDER, _METRIC = "hparams", "linear_eval/top_1_accuracy"


def write(outcome: outcomes.Outcome, root: str) -> None:
    """Writes the labels and the accuracy of a cell into its run directory, once.

    Args:
        outcome: the result of the cell.
        root: the folder of all studies.
    """
    run = outcome.cell.run
    folder = os.path.join(run.folder(root), _FOLDER)
    if os.path.isdir(folder):
        return
    values = {**outcome.cell.labels, **outcome.cell.tuned, "seed": outcome.cell.seed}
    writer = tf.summary.create_file_writer(folder)
    with writer.as_default():
        api.hparams(values, trial_id=run.identity)
        tf.summary.scalar(_METRIC, outcome.accuracy, step=1)
    writer.close()
