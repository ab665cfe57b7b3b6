"""class_counts.json: how many training images show each class, for losses that weigh classes."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, storage
from simclr_tf.data import indicators, subsets
from simclr_tf.runs import dataset

FILE = "class_counts.json"


def count(config: config_lib.Config, data: dataset.Data) -> np.ndarray | None:
    """Counts the examples of each class in the training split.

    Of a data set that can only be streamed, every record is read once.

    Args:
        config: the settings.
        data: the data set.

    Returns:
        (c, 2) int64 numbers of images that show each class, and of those that do not; None if the
        loss does not weigh classes.

    Raises:
        UserError: if a class has no example.
    """
    if not config.class_balance:
        return None
    names = data.source.class_names
    assert names is not None
    with console.working("Counting the images of each class"):
        labels = subsets.read_names_and_labels(data.source, data.train_split)[1]
    if labels.ndim == 1:
        shown = np.bincount(labels[labels >= 0], minlength=len(names))
        counts = np.stack([shown, np.sum(shown) - shown], 1)
    else:
        of = (indicators.PRESENT, indicators.ABSENT)
        counts = np.stack([np.sum(labels == value, 0) for value in of], 1)
    for index in np.flatnonzero(counts[:, 0] == 0):
        raise errors.UserError(
            f"--class_balance={config.class_balance:g} weighs each class by its images, and the "
            f"split {data.train_split!r} has none of {names[index]!r}; set --train_split to images "
            "of all classes, or leave it out."
        )
    return counts


def write(model_dir: str, counts: np.ndarray | None) -> None:
    """Writes class_counts.json, if classes were counted.

    Raises:
        UserError: if the file cannot be written.
    """
    if counts is not None:
        storage.write_json(os.path.join(model_dir, FILE), {"counts": counts.tolist()})


def read(model_dir: str) -> np.ndarray | None:
    """Returns what class_counts.json holds; None if there is none.

    Raises:
        UserError: if it is damaged.
    """
    path = os.path.join(model_dir, FILE)
    if not tf.io.gfile.exists(path):
        return None
    try:
        return np.array(storage.read_json(path)["counts"], np.int64).reshape(-1, 2)
    except (KeyError, TypeError, ValueError) as error:
        raise errors.UserError(
            f"{path} is damaged (it does not hold counts); restore it from another copy of the run."
        ) from error
