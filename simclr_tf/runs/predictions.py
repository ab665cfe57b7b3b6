"""predictions.parquet: the prediction of a run for every evaluated image."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import io
import os

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import scipy
import tensorflow as tf

from simclr_tf import errors, storage, text
from simclr_tf.runs import class_scores

FILE = "predictions.parquet"
_STEP = "global_step"  # Key in the metadata of the file.
# What reading a file raises that is damaged, or that another program wrote.
_UNREADABLE = (KeyError, OSError, TypeError, ValueError, tf.errors.OpError)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a run predicts for n images.

    Attributes:
        step: the step of its weights.
        names: (n,) object, names of the images.
        labels: (n,) object, names of their classes.
        predicted: (n,) object, names of the predicted classes.
        probability: (n,) float64, probability of the predicted class.
        groups: (n,) object, names of the groups of the images; None if images are independent.
    """

    step: int
    names: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    groups: np.ndarray | None = None

    @property
    def right(self) -> np.ndarray:
        """(n,) bool, which predictions are right."""
        return self.labels == self.predicted


def of_scores(
    step: int,
    names: Sequence[str],
    labels: np.ndarray,
    scores: np.ndarray,
    class_names: Sequence[str],
    *,
    groups: np.ndarray | None = None,
) -> Predictions:
    """Returns the predictions of unnormalised log probabilities.

    Args:
        step: the step of the weights.
        names: (n,) names of the images.
        labels: (n,) their classes.
        scores: (n, c).
        class_names: names of the c classes.
        groups: (n,) names of the groups of the images; None if images are independent.
    """
    classes = np.array(class_names, object)
    log_p = scipy.special.log_softmax(scores.astype(np.float64), 1)
    return Predictions(
        step,
        np.array(names, object),
        classes[labels],
        classes[np.argmax(scores, 1)],
        np.exp(np.max(log_p, 1)),
        groups,
    )


def write(model_dir: str, predictions: Predictions) -> None:
    """Writes predictions.parquet: one row for every evaluated image, in stored order.

    Raises:
        UserError: if the file cannot be written.
    """
    columns = {
        "name": pa.array(predictions.names, pa.string()),
        "label": pa.array(predictions.labels, pa.string()),
        "prediction": pa.array(predictions.predicted, pa.string()),
        "probability": pa.array(predictions.probability, pa.float64()),
    }
    if predictions.groups is not None:
        columns["group"] = pa.array(predictions.groups, pa.string())
    table = pa.table(columns).replace_schema_metadata({_STEP: str(predictions.step)})
    content = io.BytesIO()
    parquet.write_table(table, content)
    storage.replace(os.path.join(model_dir, FILE), content.getvalue())


def remove(model_dir: str) -> None:
    """Deletes predictions.parquet, if there is one."""
    path = os.path.join(model_dir, FILE)
    if tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path):
        tf.io.gfile.remove(path)


def read(model_dir: str) -> Predictions:
    """Reads predictions.parquet.

    Raises:
        UserError: if there is none, or it cannot be read.
    """
    path = os.path.join(model_dir, FILE)
    if not tf.io.gfile.exists(path):
        if not tf.io.gfile.isdir(model_dir):
            raise errors.UserError(f"The run directory {model_dir} does not exist; check --runs.")
        if tf.io.gfile.exists(os.path.join(model_dir, class_scores.FILE)):
            raise errors.UserError(
                f"The images of {model_dir} may have several labels, and runs are compared by "
                "predictions of one; compare class_ranking.csv in the evaluation/ of both instead, "
                "or transfer both to these images (--mode=transfer), which tests the difference."
            )
        raise errors.UserError(
            f"{path} does not exist; python run.py --mode=eval --model_dir={model_dir} writes it, "
            "if the images have labels."
        )
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            table = parquet.read_table(io.BytesIO(file.read()))
        columns = table.to_pydict()
        return Predictions(
            step=int(table.schema.metadata[_STEP.encode()]),
            names=np.array(columns["name"], object),
            labels=np.array(columns["label"], object),
            predicted=np.array(columns["prediction"], object),
            probability=np.array(columns["probability"], np.float64),
            groups=np.array(columns["group"], object) if "group" in columns else None,
        )
    except (pa.ArrowException, *_UNREADABLE) as error:
        raise errors.UserError(
            f"{path} cannot be read ({text.reason(error)}); --mode=eval writes it again."
        ) from error
