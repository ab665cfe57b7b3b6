"""The scores of a transfer, and which of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from simclr_tf import errors
from simclr_tf.evaluation import comparison, intervals
from simclr_tf.runs import class_scores
from simclr_tf.runs import predictions as predictions_lib
from simclr_tf.transfer import cells, measures, networks, targets

LINEAR, FINE_TUNED = "linear", "finetune"
# Scores whose p-value is larger are not said to differ.
LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class Score:
    """How well a network does on the evaluation split of a data set.

    Attributes:
        target: the data set.
        network: the network.
        column: LINEAR or FINE_TUNED.
        measure: what is measured of its predictions.
        chosen: what was chosen without the evaluation split, such as the learning rate.
        folder: where they are stored.
    """

    target: targets.Target
    network: networks.Network
    column: str
    measure: measures.Measure
    chosen: Mapping[str, Any]
    folder: str

    @property
    def shown(self) -> intervals.Interval:
        """The measurement that SimCLR reports for the data set."""
        return self.measure.shown


@dataclasses.dataclass(frozen=True)
class Tested:
    """A score with its difference from the best one of the same data set and column.

    Attributes:
        score: the score.
        p: p-value of the permutation test; None for the best one.
        p_adjusted: the same, adjusted for the number of tests by Holm's method.
    """

    score: Score
    p: float | None
    p_adjusted: float | None

    @property
    def is_best(self) -> bool:
        """Whether it is the best, or does not differ from it significantly."""
        return self.p_adjusted is None or self.p_adjusted > LEVEL


def read(target: targets.Target, network: networks.Network, column: str, folder: str) -> Score:
    """Reads the score that a finished cell stored."""
    chosen, seed = cells.read_numbers(folder), target.config.seed
    measure: measures.Measure
    if target.data.source.several_labels:
        measure = measures.MeanAveragePrecision(class_scores.read(folder), seed)
    else:
        by_class = target.metric == targets.MEAN_PER_CLASS
        measure = measures.Accuracies(predictions_lib.read(folder), by_class, seed)
    return Score(target, network, column, measure, chosen, folder)


def value(predictions: predictions_lib.Predictions, metric: str) -> float:
    """Returns the accuracy of predictions by a metric of `targets`."""
    right = predictions.right
    if metric == targets.TOP_1:
        return float(np.mean(right))
    classes = np.unique(predictions.labels)
    return float(np.mean([np.mean(right[predictions.labels == one]) for one in classes]))


def test(scores: Sequence[Score], *, seed: int) -> list[Tested]:
    """Tests every score against the best one of its data set and column, on the same images.

    Args:
        scores: the scores.
        seed: seed of the permutation tests.
    """
    p_values = [_p_value(score, _best_beside(score, scores), seed) for score in scores]
    adjusted = iter(comparison.holm([p for p in p_values if p is not None]))
    return [
        Tested(score, p, None if p is None else next(adjusted))
        for score, p in zip(scores, p_values, strict=True)
    ]


def _best_beside(score: Score, scores: Iterable[Score]) -> Score:
    """Returns the best score of the same data set and column, the first of equal ones."""
    beside = [
        one for one in scores if one.target.name == score.target.name and one.column == score.column
    ]
    return max(beside, key=lambda one: one.shown.value)


def _p_value(score: Score, best: Score, seed: int) -> float | None:
    if score is best:
        return None
    same = map(np.array_equal, score.measure.images, best.measure.images)
    if not all(same):
        raise errors.UserError(
            f"{score.folder} and {best.folder} have predictions for different images; delete one "
            "of these folders to compute it again."
        )
    return score.measure.p_value(best.measure, seed=seed)


def to_json(tested: Sequence[Tested]) -> list[dict[str, Any]]:
    """Returns the scores for transfer.json, one entry for each."""
    entries = []
    for one in tested:
        score = one.score
        entries.append(
            {
                "dataset": score.target.name,
                "network": score.network.name,
                "column": score.column,
                "metric": score.target.metric,
                "value": score.shown.value,
                "value_95": [score.shown.low, score.shown.high],
                **score.measure.numbers,
                "p": one.p,
                "p_adjusted": one.p_adjusted,
                "best": one.is_best,
                "chosen": dict(score.chosen),
                "images": len(score.measure.images[0]),
                "folder": score.folder,
            }
        )
    return entries
