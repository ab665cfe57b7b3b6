"""class_scores.parquet: scores of every class for every evaluated image, which may show several."""

from __future__ import annotations

import dataclasses
import io
import json
import os

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import tensorflow as tf

from simclr_tf import errors, storage, text

FILE = "class_scores.parquet"
_CLASSES = "classes"  # Key in the metadata of the file.
# What reading a file raises that is damaged, or that another program wrote.
_UNREADABLE = (AttributeError, KeyError, OSError, TypeError, ValueError, tf.errors.OpError)


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """What classifiers predict for n images that may show several of c classes.

    Attributes:
        class_names: names of the c classes.
        names: (n,) object, names of the images.
        labels: (n, c) int8, see `data.indicators`.
        scores: (n, c) float32, log odds that an image shows a class.
    """

    class_names: tuple[str, ...]
    names: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def write(folder: str, found: ClassScores) -> None:
    """Writes class_scores.parquet: one row for every evaluated image, in stored order.

    Raises:
        UserError: if the file cannot be written.
    """
    table = pa.table(
        {
            "name": pa.array(found.names, pa.string()),
            "labels": pa.array(list(found.labels), pa.list_(pa.int8())),
            "scores": pa.array(list(found.scores), pa.list_(pa.float32())),
        }
    )
    table = table.replace_schema_metadata({_CLASSES: json.dumps(found.class_names)})
    content = io.BytesIO()
    parquet.write_table(table, content)
    storage.replace(os.path.join(folder, FILE), content.getvalue())


def remove(folder: str) -> None:
    """Deletes class_scores.parquet, if there is one."""
    path = os.path.join(folder, FILE)
    if tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path):
        tf.io.gfile.remove(path)


def read(folder: str) -> ClassScores:
    """Reads class_scores.parquet.

    Raises:
        UserError: if there is none, or it cannot be read.
    """
    path = os.path.join(folder, FILE)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            table = parquet.read_table(io.BytesIO(file.read()))
        columns = table.to_pydict()
        return ClassScores(
            class_names=tuple(json.loads(table.schema.metadata[_CLASSES.encode()])),
            names=np.array(columns["name"], object),
            labels=np.array(columns["labels"], np.int8),
            scores=np.array(columns["scores"], np.float32),
        )
    except (pa.ArrowException, *_UNREADABLE) as error:
        raise errors.UserError(
            f"{path} cannot be read ({text.reason(error)}); delete {folder} to compute it again."
        ) from error
