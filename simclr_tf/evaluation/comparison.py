"""Compares the predictions of two classifiers for the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from simclr_tf.evaluation import grouped, intervals, permutation

_RESAMPLES = 20_000


class Comparison(NamedTuple):
    """A paired comparison of two classifiers on n images.

    Attributes:
        difference: accuracy of the second minus that of the first, with its 95% interval.
        only_first: number of images that only the first classifies right.
        only_second: number that only the second classifies right.
        p: p-value of McNemar's exact test, or of a sign-flip test of the groups' differences.
    """

    difference: intervals.Interval
    only_first: int
    only_second: int
    p: float


def compare(
    first: np.ndarray, second: np.ndarray, *, seed: int, groups: np.ndarray | None = None
) -> Comparison:
    """Compares which images two classifiers classify right.

    If neither is better, an image that only one of them classifies right is equally likely to be
    either's, so the count is binomial (McNemar 1947; the exact two-sided test). The interval is a
    percentile bootstrap over the images. Where images are in groups, both are over groups instead,
    see `permutation.grouped_p_value` and `grouped.ratio_limits`.

    Args:
        first: (n,) bool, which images the first classifies right.
        second: (n,) bool, those of the second, in the same order.
        seed: seed of the draws.
        groups: (n,) the group of each image; None if images are independent.
    """
    only_first = int(np.sum(first & ~second))
    only_second = int(np.sum(second & ~first))
    value = (only_second - only_first) / len(first)
    if groups is None:
        low, high, p = _of_independent(len(first), only_first, only_second, seed)
    else:
        signed = second.astype(np.int64) - first
        low, high = -1.0, 1.0  # A single group says nothing of others.
        if len(np.unique(groups)) > 1:
            low, high = grouped.ratio_limits(signed, groups, seed=seed, draws=_RESAMPLES)
        p = permutation.grouped_p_value(first, second, groups, seed=seed)
    interval = intervals.Interval(value, min(low, value), max(high, value))
    return Comparison(interval, only_first, only_second, p)


def _of_independent(
    count: int, only_first: int, only_second: int, seed: int
) -> tuple[float, float, float]:
    """Returns the ends of the interval and the p-value for independent images."""
    fractions = np.array([only_first, only_second, count - only_first - only_second]) / count
    drawn = np.random.default_rng(seed).multinomial(count, fractions, _RESAMPLES)
    differences = (drawn[:, 1] - drawn[:, 0]) / count
    low, high = np.percentile(differences, [2.5, 97.5])
    discordant = only_first + only_second
    p = scipy.stats.binomtest(only_first, discordant).pvalue if discordant else 1.0
    return float(low), float(high), float(p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for the number of comparisons (Holm 1979), in the same order."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(np.maximum.accumulate(factors * np.asarray(p_values)[order]), 1)
    result = np.empty(len(p_values))
    result[order] = adjusted
    return [float(p) for p in result]
