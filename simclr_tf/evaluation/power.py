"""How many seeds a comparison needs, and which differences it could have seen."""

from __future__ import annotations

import bisect
import functools

import numpy as np
import scipy

_SIGNIFICANCE, _POWER = 0.05, 0.8
_MOST_SEEDS = 1000
_POINTS = 4000  # Of the distribution of an estimated deviation.


def power(effect: float, deviation: float, seeds: int) -> float:
    """Returns how likely a paired t-test over seeds finds a difference, at two-sided 5%.

    Args:
        effect: the true difference.
        deviation: the standard deviation of the differences between seeds, above 0.
        seeds: their number, at least 2.
    """
    freedom = seeds - 1
    shift = effect / deviation * np.sqrt(seeds)
    critical = scipy.stats.t.ppf(1 - _SIGNIFICANCE / 2, freedom)
    # The mean over the estimated deviation, which varies; scipy's noncentral t distribution is NaN
    # for large differences.
    limits = critical * _relative_deviations(freedom)
    return float(np.mean(scipy.special.ndtr(shift - limits) + scipy.special.ndtr(-shift - limits)))


@functools.cache
def _relative_deviations(freedom: int) -> np.ndarray:
    """Returns equally likely estimates of a standard deviation of 1, (_POINTS,)."""
    quantiles = (np.arange(_POINTS) + 0.5) / _POINTS
    return np.sqrt(scipy.stats.chi2.ppf(quantiles, freedom) / freedom)


def smallest_difference(deviation: float, seeds: int) -> float:
    """Returns the smallest true difference that is found with a probability of 80%.

    Args:
        deviation: the standard deviation of the differences between seeds.
        seeds: their number; with fewer than 2, nothing can be found.
    """
    if seeds < 2:
        return float("inf")
    if deviation == 0:
        return 0.0
    most = deviation
    while power(most, deviation, seeds) < _POWER:  # Always ends: power rises to 1.
        most *= 2
    return float(
        scipy.optimize.brentq(lambda effect: power(effect, deviation, seeds) - _POWER, 0.0, most)
    )


def needed_seeds(effect: float, deviation: float) -> int | None:
    """Returns how many seeds find a difference with a probability of 80%.

    Args:
        effect: the true difference, above 0.
        deviation: the standard deviation of the differences between seeds.

    Returns:
        The number; None if it is more than 1,000.
    """
    if deviation == 0:
        return 2
    # Power rises with the number of seeds.
    counts = range(2, _MOST_SEEDS + 1)
    position = bisect.bisect_left(counts, _POWER, key=lambda n: power(effect, deviation, n))
    return counts[position] if position < len(counts) else None
