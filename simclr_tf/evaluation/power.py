"""How many seeds a comparison needs, and which differences it could have seen."""

from __future__ import annotations

import numpy as np
from scipy import optimize, stats

_SIGNIFICANCE, _POWER = 0.05, 0.8
_MOST_SEEDS = 1000


def power(effect: float, deviation: float, seeds: int) -> float:
    """Returns how likely a paired t-test over seeds finds a difference, at two-sided 5%.

    Args:
        effect: the true difference.
        deviation: the standard deviation of the differences between seeds, above 0.
        seeds: their number, at least 2.
    """
    freedom = seeds - 1
    shift = effect / deviation * np.sqrt(seeds)
    critical = stats.t.ppf(1 - _SIGNIFICANCE / 2, freedom)
    # SciPy gives NaN where a tail is nearly 0 or nearly 1.
    found = stats.nct.sf(critical, freedom, shift)
    other = np.nan_to_num(stats.nct.cdf(-critical, freedom, shift))
    return 1.0 if np.isnan(found) else float(found + other)


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
    most = deviation / 10
    while power(most, deviation, seeds) < _POWER:  # Always ends: power rises to 1.
        most *= 2
    return float(
        optimize.brentq(lambda effect: power(effect, deviation, seeds) - _POWER, 0.0, most)
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
    enough = (n for n in range(2, _MOST_SEEDS + 1) if power(effect, deviation, n) >= _POWER)
    return next(enough, None)
