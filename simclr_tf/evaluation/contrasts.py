"""Tests an expected order of accuracies of several networks and seeds on the same images."""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import NamedTuple

import numpy as np
import scipy

from simclr_tf.evaluation import intervals, permutation

_RESAMPLES = 10_000
_CHUNK = 250  # Resamples at a time, so that their weights need little memory.


class Contrast(NamedTuple):
    """The difference of two sides.

    Attributes:
        difference: the higher side minus the lower one, with its 95% interval over images.
        of_seeds: the difference of each seed.
        p: two-sided p-value of no difference.
        mcnemar: p-value of McNemar's exact test for each seed; empty if a side is not one network.
    """

    difference: intervals.Interval
    of_seeds: tuple[float, ...]
    p: float
    mcnemar: tuple[float, ...] = ()


def of_means(
    higher: np.ndarray,
    lower: np.ndarray,
    *,
    higher_minus: np.ndarray | None = None,
    lower_minus: np.ndarray | None = None,
    seed: int = 0,
) -> Contrast:
    """Compares the means of the accuracies of two sides.

    The seeds of a network are tested on the same images, so their McNemar tests are not independent
    and must not be multiplied. Instead, the differences of all seeds are added for each image. If
    no side is better, the sign of such a sum is random: a sign-flip test over images, which is
    McNemar's test if there is one seed and one network on each side.

    The interval is a bootstrap over images. Neither it nor the p-value covers the choice of the
    seeds; `of_seeds` shows how much that matters.

    Args:
        higher: (c, s, n) bool, which of n images the c networks of a side, each trained with s
            seeds, classify right.
        lower: (d, s, n), the other side.
        higher_minus: (e, s, n), what is subtracted from the first side, if that is a gain.
        lower_minus: (f, s, n), likewise for the other side.
        seed: seed of the draws.
    """
    # (s, n): the difference of every seed and image.
    per_seed = _gain(higher, higher_minus) - _gain(lower, lower_minus)
    per_image = per_seed.mean(0)
    resampled = _resampled(per_image[None], lambda means: means[0], seed)
    low, high = np.percentile(resampled, [2.5, 97.5])
    value = float(per_image.mean())
    single = len(higher) == len(lower) == 1 and higher_minus is None and lower_minus is None
    return Contrast(
        intervals.Interval(value, min(float(low), value), max(float(high), value)),
        tuple(float(one) for one in per_seed.mean(1)),
        permutation.sign_flip_p_value(per_image, seed=seed),
        tuple(_mcnemar(*pair) for pair in zip(higher[0], lower[0], strict=True)) if single else (),
    )


def _gain(side: np.ndarray, minus: np.ndarray | None) -> np.ndarray:
    """Returns the mean over networks, (s, n), minus that of what is subtracted."""
    mean = side.mean(0, dtype=np.float64)
    return mean if minus is None else mean - minus.mean(0, dtype=np.float64)


def _mcnemar(higher: np.ndarray, lower: np.ndarray) -> float:
    """Returns the p-value of McNemar's exact test."""
    only_higher, only_lower = int(np.sum(higher & ~lower)), int(np.sum(lower & ~higher))
    count = only_higher + only_lower
    return float(scipy.stats.binomtest(only_higher, count).pvalue) if count else 1.0


def of_spreads(higher: np.ndarray, lower: np.ndarray, *, seed: int = 0) -> Contrast:
    """Compares how much the accuracies of the networks of two sides differ from each other.

    The spread of a side is the standard deviation of the accuracies of its networks, each the mean
    over its seeds. Interval and p-value are a bootstrap over images: the p-value is twice the
    smaller of the fractions of resamples in which either side has the larger spread.

    Args:
        higher: (c, s, n) bool, as in `of_means`; c is at least 2.
        lower: (d, s, n).
        seed: seed of the draws.
    """
    networks = np.concatenate([higher, lower]).mean(1, dtype=np.float64)  # (c + d, n)
    split = len(higher)

    def spread(means: np.ndarray) -> np.ndarray:
        return np.std(means[:split], 0, ddof=1) - np.std(means[split:], 0, ddof=1)

    resampled = _resampled(networks, spread, seed)
    value = float(spread(networks.mean(1)[:, None])[0])
    low, high = np.percentile(resampled, [2.5, 97.5])
    smaller = min(np.sum(resampled <= 0), np.sum(resampled >= 0))
    of_seeds = np.subtract(
        *(np.std(side.mean(2, dtype=np.float64), 0, ddof=1) for side in (higher, lower))
    )
    return Contrast(
        intervals.Interval(value, min(float(low), value), max(float(high), value)),
        tuple(float(one) for one in of_seeds),
        min(1.0, float(2 * (smaller + 1) / (len(resampled) + 1))),
    )


def _resampled(
    scores: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int
) -> np.ndarray:
    """Returns a statistic of the means of scores over resampled images.

    Args:
        scores: (k, n) scores of k networks for n images.
        statistic: from means, (k, draws), to (draws,).
        seed: seed of the draws.
    """
    count = scores.shape[1]
    rng = np.random.default_rng(seed)
    uniform = np.full(count, 1 / count)
    drawn = []
    for _ in range(_RESAMPLES // _CHUNK):
        weights = rng.multinomial(count, uniform, _CHUNK)  # (draws, n)
        drawn.append(statistic(scores @ weights.T / count))
    return np.concatenate(drawn)


def of_numbers(higher: np.ndarray, lower: np.ndarray) -> Contrast:
    """Compares numbers that are not accuracies on the same images, by a t-test over seeds.

    Args:
        higher: (s,) a number for each seed.
        lower: (s,) that of the other side, with the same seeds.
    """
    differences = np.asarray(higher, np.float64) - np.asarray(lower, np.float64)
    value, count = float(differences.mean()), len(differences)
    if count < 2 or np.ptp(differences) == 0:
        # Says nothing of other seeds.
        return Contrast(
            intervals.Interval(value, -math.inf, math.inf), tuple(map(float, differences)), 1.0
        )
    half = scipy.stats.t.ppf(0.975, count - 1) * differences.std(ddof=1) / np.sqrt(count)
    p = float(scipy.stats.ttest_1samp(differences, 0).pvalue)
    return Contrast(
        intervals.Interval(value, value - half, value + half), tuple(map(float, differences)), p
    )
