"""Selective prediction: how wrong a classifier is that abstains where it is least certain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy

from simclr_tf.evaluation import outcome

if TYPE_CHECKING:
    from matplotlib import figure

_COVERAGES = (0.9, 0.75, 0.5)


def evaluate(inputs: outcome.Inputs) -> outcome.Outcome:
    """Returns accuracies of the most certain predictions, and the area under the risk curve.

    Risk at a coverage is the error among that fraction of the predictions, the most probable ones
    (Geifman and El-Yaniv 2017). Its area is the mean of the risks at 1/n, 2/n, ..., 1.
    """
    order, risks = risk_curve(inputs.test_scores, inputs.test_labels)
    hits = np.argmax(inputs.test_scores, 1) == inputs.test_labels
    result = outcome.Outcome()
    for coverage in _COVERAGES:
        kept = order[: max(1, round(coverage * len(order)))]
        what = f"accuracy of the {coverage:.0%} most certain"
        name = f"selective/accuracy_at_{coverage:g}"
        result.add(name, what, inputs.interval(hits, kept))
    area = float(np.mean(risks))
    result.add_number("selective/area", "area under risk and coverage", area, f"{area:.4f}")
    result.figures["risk_coverage.svg"] = lambda target: _draw(target, risks)
    return result


def risk_curve(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orders predictions from the most to the least certain.

    Args:
        scores: (n, c) unnormalised log probabilities.
        labels: (n,) classes.

    Returns:
        The order (n,), equally certain ones as they come; and the error (n,) among the first 1, 2,
        ..., n.
    """
    certainty = np.max(scipy.special.log_softmax(scores.astype(np.float64), 1), 1)
    order = np.argsort(-certainty, kind="stable")
    wrong = np.argmax(scores, 1) != labels
    return order, np.cumsum(wrong[order]) / np.arange(1, len(labels) + 1)


def _draw(target: figure.Figure, risks: np.ndarray) -> None:
    axes = target.subplots()
    coverage = np.arange(1, len(risks) + 1) / len(risks)
    axes.plot(coverage, risks)
    axes.set(xlabel="fraction of images classified", ylabel="error among them", xlim=(0, 1))
    axes.set_ylim(bottom=0)
