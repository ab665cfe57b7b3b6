"""Calibration: whether a predicted probability is the frequency of being right."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy

from simclr_tf.evaluation import outcome

if TYPE_CHECKING:
    from matplotlib import figure

_BINS = 15
# Logarithm of the smallest probability, as in scikit-learn's log_loss.
_SMALLEST = float(np.log(np.finfo(np.float64).eps))


class Bins(NamedTuple):
    """Predictions grouped by confidence, without empty groups.

    Attributes:
        confidence: (b,) mean probability of the predicted class.
        accuracy: (b,) fraction of right predictions.
        weight: (b,) fraction of all predictions; sums to 1.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    weight: np.ndarray

    def error(self) -> float:
        """Returns the expected calibration error: mean of |accuracy - confidence| by weight."""
        return float(np.sum(self.weight * np.abs(self.accuracy - self.confidence)))


def evaluate(inputs: outcome.Inputs) -> outcome.Outcome:
    """Measures the calibration of the classifier's probabilities.

    ECE has 15 bins of equal width (Guo et al. 2017), adaptive ECE 15 bins of equally many examples
    (Nguyen and O'Connor 2015). NLL is the mean negative log probability of the class in nats, and
    Brier the mean squared distance to the one-hot label, from 0 to 2. With a temperature, ECE and
    NLL of the scaled scores are measured, too.
    """
    log_p = scipy.special.log_softmax(inputs.test_scores.astype(np.float64), 1)
    labels = inputs.test_labels
    bins = equal_width(log_p, labels)
    result = outcome.Outcome()
    for name, what, value in (
        ("ece", "expected calibration error (15 bins)", bins.error()),
        ("adaptive_ece", "the same, bins of equal size", equal_size(log_p, labels).error()),
    ):
        result.add_number(f"calibration/{name}", what, value, f"{value:.2%}")
    for name, what, value in (
        ("nll", "negative log likelihood", negative_log_likelihood(log_p, labels)),
        ("brier", "Brier score", brier(log_p, labels)),
    ):
        result.add_number(f"calibration/{name}", what, value, f"{value:.3f}")
    if inputs.temperature is not None:
        _add_scaled(result, inputs, inputs.temperature)
    result.figures["reliability.svg"] = lambda target: _draw(target, bins)
    return result


def _add_scaled(result: outcome.Outcome, inputs: outcome.Inputs, temperature: float) -> None:
    """Adds the temperature, and what it makes of the errors."""
    log_p = scipy.special.log_softmax(inputs.test_scores.astype(np.float64) / temperature, 1)
    error = equal_width(log_p, inputs.test_labels).error()
    loss = negative_log_likelihood(log_p, inputs.test_labels)
    result.numbers["calibration/temperature"] = temperature
    what = f"calibration error at temperature {temperature:.3g}"
    result.add_number("calibration/scaled_ece", what, error, f"{error:.2%}")
    result.numbers["calibration/scaled_nll"] = loss


def equal_width(log_p: np.ndarray, labels: np.ndarray) -> Bins:
    """Groups predictions (n, c) into 15 intervals of confidence, closed above; labels are (n,)."""
    confidence, right = _confidence(log_p, labels)
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    return _group(confidence, right, bins)


def equal_size(log_p: np.ndarray, labels: np.ndarray) -> Bins:
    """Groups predictions (n, c) by confidence into 15 groups of equal size; labels are (n,)."""
    confidence, right = _confidence(log_p, labels)
    bins = np.empty(len(labels), int)
    bins[np.argsort(confidence, kind="stable")] = np.arange(len(labels)) * _BINS // len(labels)
    return _group(confidence, right, bins)


def negative_log_likelihood(log_p: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean negative log probability, of (n, c), of the labels (n,).

    A class that was said to be impossible counts as if it had the probability 2e-16.
    """
    of_labels = np.maximum(log_p[np.arange(len(labels)), labels], _SMALLEST)
    return float(-np.mean(of_labels))


def brier(log_p: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean over n of the sum over c of squared differences to the one-hot labels."""
    difference = np.exp(log_p)
    difference[np.arange(len(labels)), labels] -= 1
    return float(np.mean(np.sum(difference**2, 1)))


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature by which scores (n, c) are to be divided (Guo et al. 2017, sec. 4.2).

    It minimizes the negative log likelihood of the labels (n,), which must not be those of the
    evaluation split, and is between 0.01 and 100.
    """

    def loss(log_temperature: float) -> float:
        scaled = scores.astype(np.float64) / np.exp(log_temperature)
        return negative_log_likelihood(scipy.special.log_softmax(scaled, 1), labels)

    bounds = (np.log(0.01), np.log(100))
    return float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _confidence(log_p: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (n,) the probability of the predicted class, and whether it is right."""
    return np.exp(np.max(log_p, 1)), np.argmax(log_p, 1) == labels


def _group(confidence: np.ndarray, right: np.ndarray, bins: np.ndarray) -> Bins:
    counts = np.bincount(bins, minlength=_BINS)
    used = counts > 0
    sums = [np.bincount(bins, values, _BINS)[used] for values in (confidence, right)]
    counts = counts[used]
    return Bins(sums[0] / counts, sums[1] / counts, counts / len(bins))


def _draw(target: figure.Figure, bins: Bins) -> None:
    """Draws a reliability diagram: accuracy against confidence, larger dots for more examples."""
    axes = target.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="perfect calibration")
    axes.plot(bins.confidence, bins.accuracy, color="tab:blue", linewidth=1)
    axes.scatter(
        bins.confidence, bins.accuracy, 20 + 400 * bins.weight, color="tab:blue", label="classifier"
    )
    axes.set(xlabel="predicted probability", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"ECE {bins.error():.1%}")
    axes.legend(loc="upper left", markerscale=0.5)
