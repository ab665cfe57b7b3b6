"""What was measured of a network, and what the measurements share."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from simclr_tf.evaluation import (
    class_ranking,
    features,
    intervals,
    linear,
    outcome,
    several_labels,
)


@dataclasses.dataclass
class Scores:
    """What was measured.

    Attributes:
        numbers: for result.json, by name.
        outcomes: name of an evaluation -> what it found.
        test: what was extracted from the evaluated images; None if they have no labels.
        class_scores: (m, c) unnormalised log probabilities of the classifier that evaluations
            read, or of several labels log odds; None without one.
    """

    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    outcomes: dict[str, outcome.Outcome] = dataclasses.field(default_factory=dict)
    test: features.Extracted | None = None
    class_scores: np.ndarray | None = None


def accuracies(
    prefix: str,
    scores: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns top-1 and top-5 accuracy with their intervals, by their names in result.json.

    Of several labels, these are mean average precision and mean ROC AUC.

    Args:
        prefix: begins the names.
        scores: (m, c), larger for more probable classes.
        labels: (m,) classes, or (m, c) of several.
        groups: (m,) the groups of the images; None if images are independent.
        seed: seed of the intervals over groups.
    """
    if labels.ndim > 1:
        found = class_ranking.rank(scores, labels, seed=seed, groups=groups)
        return several_labels.numbers(prefix, found)
    return _of_one_label(prefix, scores, labels, groups, seed)


def _of_one_label(
    prefix: str, scores: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, seed: int
) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for k in (1, 5):
        found = intervals.accuracy(linear.top_k_hits(scores, labels, k), groups, seed=seed)
        numbers[f"{prefix}top_{k}_accuracy"] = found.value
        numbers[f"{prefix}top_{k}_accuracy_95"] = [found.low, found.high]
    return numbers
