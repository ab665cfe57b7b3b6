"""Which weights are at a path: those of a run of ours, or of google-research/simclr."""

from __future__ import annotations

import os

import tensorflow as tf

from simclr_tf.reference import loading
from simclr_tf.runs import directory


def find_reference(path: str) -> loading.Foreign | None:
    """Opens weights of google-research/simclr.

    Args:
        path: see `reference.files.find`.

    Returns:
        The weights; None at a run of ours, and where nothing has the reference's names.

    Raises:
        UserError: see `reference.loading.find`.
    """
    folder = path if tf.io.gfile.isdir(path) else os.path.dirname(path)
    if directory.read_architecture(folder) is not None:
        return None
    return loading.find(path)
