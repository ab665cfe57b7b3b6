"""Natural shifts: accuracy and calibration on other data sets of the same classes."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import scipy

from simclr_tf.evaluation import calibration, intervals, outcome

if TYPE_CHECKING:
    from matplotlib import figure


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The predictions for n images.

    Attributes:
        scores: (n, c) unnormalised log probabilities of all classes.
        labels: (n,) the classes, of the same numbering.
    """

    scores: np.ndarray
    labels: np.ndarray

    @property
    def hits(self) -> np.ndarray:
        """(n,) bool, which predictions are right."""
        return np.argmax(self.scores, 1) == self.labels


def evaluate(test: Predictions, others: Mapping[str, Predictions]) -> outcome.Outcome:
    """Compares predictions for other data sets with those for the evaluation split.

    Args:
        test: predictions for the evaluation split.
        others: name of a data set -> the predictions for it.

    Returns:
        The accuracy and calibration error of each, and by how much the accuracy is lower than that
        of the images of the evaluation split that are of the same classes.
    """
    result, found = outcome.Outcome(), {"evaluation split": intervals.accuracy(test.hits)}
    table = [["dataset", "images", "classes", "accuracy", "low", "high", "ece", "drop"]]
    for name, one in others.items():
        classes = np.unique(one.labels)
        same = test.hits[np.isin(test.labels, classes)]
        found[name] = intervals.accuracy(one.hits)
        result.add(f"shifts/{name}/accuracy", f"accuracy on {name}", found[name])
        log_p = scipy.special.log_softmax(one.scores.astype(np.float64), 1)
        error = calibration.equal_width(log_p, one.labels).error()
        what = f"calibration error on {name}"
        result.add_number(f"shifts/{name}/ece", what, error, f"{error:.2%}")
        row = [name, str(len(one.labels)), str(len(classes)), *map(repr, (*found[name], error))]
        if len(same):
            drop = difference(intervals.accuracy(same), found[name])
            result.add(f"shifts/{name}/drop", f"drop of accuracy on {name}", drop)
            row.append(repr(drop.value))
        table.append(row)
    result.tables["shifts.csv"] = table
    result.figures["shifts.svg"] = lambda target: _draw(target, found)
    return result


def difference(one: intervals.Interval, other: intervals.Interval) -> intervals.Interval:
    """Returns one accuracy minus another, of other images, with its interval (Newcombe 1998)."""
    value = one.value - other.value
    low = value - np.hypot(one.value - one.low, other.high - other.value)
    high = value + np.hypot(one.high - one.value, other.value - other.low)
    return intervals.Interval(value, float(low), float(high))


def _draw(target: figure.Figure, accuracies: Mapping[str, intervals.Interval]) -> None:
    """Draws accuracies with their intervals, the evaluation split on top."""
    axes = target.subplots()
    rows = range(len(accuracies))
    values = np.array(list(accuracies.values()))  # (r, 3)
    around = np.abs(values[:, 1:] - values[:, :1]).T
    axes.errorbar(values[:, 0], rows, xerr=around, fmt="o", capsize=4)
    axes.set_yticks(rows, list(accuracies))
    axes.invert_yaxis()
    axes.set(xlabel="accuracy, with its 95% interval", xlim=(0, 1))
