"""What is measured of the predictions for a data set: accuracies, or average precision."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Protocol

import numpy as np

from simclr_tf.evaluation import average_precision, class_ranking, intervals, permutation
from simclr_tf.runs import class_scores, predictions


class Measure(Protocol):
    """The measurements of a network on a data set."""

    @property
    def shown(self) -> intervals.Interval:
        """The one that SimCLR reports for the data set."""

    @property
    def numbers(self) -> dict[str, Any]:
        """All of them by name, with their intervals as NAME_95."""

    @property
    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """The names and the labels of the images."""

    def p_value(self, best: Any, *, seed: int) -> float:
        """Returns the p-value of its difference from the same measure of another network.

        Args:
            best: that measure, of the same images.
            seed: seed of the permutation test.
        """


@dataclasses.dataclass(frozen=True)
class Accuracies:
    """Of predictions of one class per image.

    Attributes:
        predictions: for every evaluated image.
        by_class: whether the mean over classes is shown, or else that over images.
        seed: seed of intervals.
    """

    predictions: predictions.Predictions
    by_class: bool
    seed: int

    @property
    def shown(self) -> intervals.Interval:
        """See `Measure`."""
        return self.mean_per_class if self.by_class else self.top_1

    @functools.cached_property
    def top_1(self) -> intervals.Interval:
        """The accuracy over all images."""
        return intervals.accuracy(self.predictions.right)

    @functools.cached_property
    def mean_per_class(self) -> intervals.Interval:
        """The mean over classes of their accuracies."""
        right, labels = self.predictions.right, self.predictions.labels
        return intervals.mean_per_class(right, labels, seed=self.seed)

    @property
    def numbers(self) -> dict[str, Any]:
        """See `Measure`."""
        top_1, mean = self.top_1, self.mean_per_class
        return {
            "top_1_accuracy": top_1.value,
            "top_1_accuracy_95": [top_1.low, top_1.high],
            "mean_per_class_accuracy": mean.value,
            "mean_per_class_accuracy_95": [mean.low, mean.high],
        }

    @property
    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Measure`."""
        return self.predictions.names, self.predictions.labels

    def p_value(self, best: Accuracies, *, seed: int) -> float:
        """See `Measure`."""
        right, labels = self.predictions.right, self.predictions.labels
        return permutation.p_value(
            best.predictions.right, right, seed=seed, labels=labels if self.by_class else None
        )


@dataclasses.dataclass(frozen=True)
class MeanAveragePrecision:
    """Of scores of all classes, for images that may show several.

    Attributes:
        found: labels and scores of every evaluated image.
        seed: seed of the interval.
    """

    found: class_scores.ClassScores
    seed: int

    @functools.cached_property
    def shown(self) -> intervals.Interval:
        """The mean over classes of their 11-point average precision."""
        return average_precision.interval(self.found.scores, self.found.labels, seed=self.seed)

    @property
    def numbers(self) -> dict[str, Any]:
        """See `Measure`; the numbers of each class have no interval.

        A class that all images show has no ROC AUC.
        """
        scores, labels = self.found.scores, self.found.labels

        def by_class(values: np.ndarray) -> dict[str, float | None]:
            found = (None if np.isnan(value) else float(value) for value in values)
            return dict(zip(self.found.class_names, found))

        areas = class_ranking.roc_auc(scores, labels)
        known = areas[~np.isnan(areas)]
        return {
            "mean_average_precision_11": self.shown.value,
            "mean_average_precision_11_95": [self.shown.low, self.shown.high],
            "mean_average_precision": float(np.mean(average_precision.all_points(scores, labels))),
            "average_precision_11": by_class(average_precision.eleven_point(scores, labels)),
            "mean_roc_auc": float(np.mean(known)) if len(known) else None,
            "roc_auc": by_class(areas),
        }

    @property
    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Measure`."""
        return self.found.names, self.found.labels

    def p_value(self, best: MeanAveragePrecision, *, seed: int) -> float:
        """See `Measure`."""
        return average_precision.p_value(
            best.found.scores, self.found.scores, self.found.labels, seed=seed
        )
