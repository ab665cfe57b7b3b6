"""95% intervals of accuracies, and of means of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy

from simclr_tf.evaluation import grouped

_CONFIDENCE = 0.95
_DRAWS = 2000


class Interval(NamedTuple):
    """An estimate with its 95% interval.

    Attributes:
        value: the estimate.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """Returns the estimate and its interval, as in "84.2% (82.1-86.0)"."""
        return f"{self.value:.1%} ({100 * self.low:.1f}-{100 * self.high:.1f})"


def accuracy(hits: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0) -> Interval:
    """Returns the fraction of hits, with Wilson's interval (Wilson 1927).

    Args:
        hits: (n,) bool, which of n > 0 examples were right.
        groups: (n,) the group of each example, for an interval by a bootstrap over groups; None if
            the examples are independent.
        seed: seed of the bootstrap.
    """
    if groups is not None:
        return _of_groups(hits, groups, seed)
    count, right = len(hits), int(np.sum(hits))
    low, high = scipy.stats.binomtest(right, count).proportion_ci(_CONFIDENCE, method="wilson")
    return Interval(right / count, float(low), float(high))


def _of_groups(hits: np.ndarray, groups: np.ndarray, seed: int) -> Interval:
    """Returns the fraction of hits, with its interval over groups."""
    value, count = float(np.mean(hits)), len(np.unique(groups))
    if count == 1:
        return Interval(value, 0.0, 1.0)  # Says nothing of other groups.
    if value in (0, 1):  # The bootstrap would have no width.
        return wilson(value, count)
    low, high = grouped.ratio_limits(hits, groups, seed=seed)
    return Interval(value, min(low, value), max(high, value))


def wilson(value: float, count: float) -> Interval:
    """Returns a fraction with Wilson's interval, see `accuracy`.

    Args:
        value: the fraction of right predictions.
        count: of how many independent predictions, which need not be a whole number.
    """
    z = float(scipy.stats.norm.ppf((1 + _CONFIDENCE) / 2))
    centre = (value + z**2 / (2 * count)) / (1 + z**2 / count)
    variance = value * (1 - value) / count + z**2 / (4 * count**2)
    half = z * variance**0.5 / (1 + z**2 / count)
    return Interval(value, max(0.0, min(centre - half, value)), min(1.0, max(centre + half, value)))


def mean_per_class(
    hits: np.ndarray, labels: np.ndarray, *, seed: int, groups: np.ndarray | None = None
) -> Interval:
    """Returns the mean over classes of their accuracies, with its interval.

    The accuracy of each class is drawn from its beta distribution given the hits, with Jeffreys'
    prior (Brown et al. 2001), so that a class without errors still has an uncertain accuracy.

    Args:
        hits: (n,) bool, which examples were right.
        labels: (n,) their classes; those without examples do not count.
        seed: seed of the draws.
        groups: (n,) the group of each example, for a bootstrap over groups; None if the examples
            are independent.
    """
    classes, positions = np.unique(labels, return_inverse=True)
    counts = np.bincount(positions, minlength=len(classes))
    rates = np.bincount(positions, hits, len(classes)) / counts  # (c,)
    value = float(np.mean(rates))
    if groups is not None:
        if len(np.unique(groups)) == 1 or value in (0, 1):
            return _of_groups(hits, groups, seed)._replace(value=value)
        low, high = grouped.mean_per_class_limits(hits, labels, groups, seed=seed)
        return Interval(value, min(low, value), max(high, value))
    right = rates * counts
    size = (_DRAWS, len(classes))
    drawn = np.random.default_rng(seed).beta(right + 0.5, counts - right + 0.5, size)
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.percentile(np.mean(drawn, 1), [tail, 100 - tail])
    return Interval(value, min(float(low), value), max(float(high), value))


def bias_corrected(value: float, draws: np.ndarray) -> Interval:
    """Returns an average precision, or another number, with the interval of a bootstrap.

    In a resample images are there more than once and enter the ranking together, so average
    precision is larger than that of as many other images. The levels of the percentiles are
    therefore shifted by how often resamples are below the number (Efron's bias correction).

    Args:
        value: the number; nan if it is not defined.
        draws: (d,) what it is in resamples, nan where it is not defined.
    """
    draws = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(draws):
        return Interval(float(value), float("nan"), float("nan"))
    below = (np.sum(draws < value) + np.sum(draws <= value)) / 2
    shift = 2 * scipy.stats.norm.ppf(np.clip(below, 0.5, len(draws) - 0.5) / len(draws))
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(
        draws, scipy.stats.norm.cdf(shift + scipy.stats.norm.ppf([tail, 1 - tail]))
    )
    return Interval(float(value), min(float(low), float(value)), max(float(high), float(value)))
