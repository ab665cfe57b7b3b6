"""What is measured of images that may show several classes, and what is not and why."""

from __future__ import annotations

from collections.abc import Iterable
import math
from typing import Any

import numpy as np

from simclr_tf.evaluation import class_ranking, intervals, knn, outcome

MEAN_PRECISION, MEAN_AUC = "mean_average_precision", "mean_roc_auc"
TABLE = "class_ranking.csv"
_ONE_CLASS = "it compares the one predicted class with the one class of an image"
_SCORED_BY_ACCURACY = "its result is an accuracy, of one class per image"
# Why others are not.
REASONS = {
    "top_1_accuracy": _ONE_CLASS,
    "top_5_accuracy": "it asks whether the one class is among five guesses",
    "per_class": f"{_ONE_CLASS}; {TABLE} has the numbers of each class",
    "retrieval": "another image is right if it has the class of the query",
    "calibration": "it reads the probability of the one predicted class",
    "selective": "it reads the probability of the one predicted class",
    "cosines of classes": "a pair of images is of one class or of two",
    "clusters": "clusters are compared with one class per image",
    "map": "its points have the colour of one class each",
    "probes": _SCORED_BY_ACCURACY,
    "projection": _SCORED_BY_ACCURACY,
    "robustness": _SCORED_BY_ACCURACY,
    "shifts": _SCORED_BY_ACCURACY,
    "ood": "it reads the probability of the one predicted class",
}


def numbers(prefix: str, found: class_ranking.Rankings) -> dict[str, Any]:
    """Returns the means over classes with their intervals, by their names in result.json.

    Means that are not defined are left out.

    Args:
        prefix: begins the names.
        found: the rankings of the classes.
    """
    result: dict[str, Any] = {}
    for name, ranking in ((MEAN_PRECISION, found.average_precision), (MEAN_AUC, found.roc_auc)):
        mean = ranking.mean()
        if not math.isnan(mean.value):
            result[f"{prefix}{name}"] = mean.value
            result[f"{prefix}{name}_95"] = [mean.low, mean.high]
    return result


def of_classes(found: class_ranking.Rankings, inputs: outcome.Inputs) -> outcome.Outcome:
    """Returns a table with the numbers of each class, and the best and the worst of them.

    Args:
        found: the rankings of the classes.
        inputs: what evaluations read, with labels (m, c).
    """
    result, labels = outcome.Outcome(), inputs.test_labels
    rows = [
        [
            *("class", "examples", "counterexamples", "not_known"),
            *("average_precision", "average_precision_low", "average_precision_high"),
            *("roc_auc", "roc_auc_low", "roc_auc_high"),
        ]
    ]
    for column, name in enumerate(inputs.class_names):
        counts = [int(np.sum(labels[:, column] == value)) for value in (1, 0, -1)]
        values = (*found.average_precision.of_class(column), *found.roc_auc.of_class(column))
        shown = ["" if math.isnan(value) else f"{value:.4f}" for value in values]
        rows.append([name, *map(str, counts), *shown])
    result.tables[TABLE] = rows
    precisions = found.average_precision.values
    scored = np.flatnonzero(~np.isnan(precisions))
    result.numbers["classes/scored"] = len(scored)
    result.rows.append(("classes with an image to find", f"{len(scored)} of {len(precisions)}"))
    auc = found.roc_auc.mean()
    if not math.isnan(auc.value):
        result.rows.append(("mean ROC AUC of the classifier", auc.percent()))
    if len(scored) > 1:
        for what, choose in (("best", np.argmax), ("worst", np.argmin)):
            column = int(scored[choose(precisions[scored])])
            frequency = f"{np.mean(labels[labels[:, column] >= 0, column] == 1):.1%}"
            value = found.average_precision.of_class(column).percent()
            what = f"{what} average precision: {inputs.class_names[column]} (in {frequency})"
            result.rows.append((what, value))
    return result


def nearest(inputs: outcome.Inputs) -> outcome.Outcome:
    """Returns the mean average precision of the votes of the k nearest training images.

    Args:
        inputs: what evaluations read, with labels (n, c) and (m, c).
    """
    result = outcome.Outcome()
    counts = [k for k in knn.NEIGHBOURS if k <= len(inputs.train_features)]
    votes = knn.label_votes(
        inputs.train_features, inputs.train_labels, inputs.test_features, counts
    )
    for k, scores in votes.items():
        found = class_ranking.rank(
            scores, inputs.test_labels, seed=inputs.seed, groups=inputs.test_groups
        )
        mean: intervals.Interval = found.average_precision.mean()
        if not math.isnan(mean.value):
            what = f"{k} nearest neighbour{'s' if k > 1 else ''}, mean average precision"
            result.add(f"knn/{k}/{MEAN_PRECISION}", what, mean)
    return result


def left_out(names: Iterable[str]) -> dict[str, str]:
    """Returns what is not measured of several labels, and why.

    Args:
        names: the evaluations that were asked for.
    """
    asked = ["top_1_accuracy", "top_5_accuracy", *names]
    asked += ["cosines of classes"] if "geometry" in asked else []
    return {name: REASONS[name] for name in asked if name in REASONS}
