"""A permutation test between two classifiers of the same images."""

from __future__ import annotations

import numpy as np

SAMPLES = 100_000


def p_value(
    first: np.ndarray,
    second: np.ndarray,
    *,
    seed: int,
    labels: np.ndarray | None = None,
    samples: int = SAMPLES,
) -> float:
    """Returns the two-sided p-value of the difference of two accuracies.

    If the classifiers are equally good, it is random which of them is right about an image that
    only one of them classifies right. Exchanging the two for a random half of the images therefore
    gives differences as likely as the observed one. Only the images that they differ in matter, so
    an exchange is a binomial draw for each class.

    Args:
        first: (n,) bool, which images the first classifies right.
        second: (n,) bool, those of the second, in the same order.
        seed: seed of the draws.
        labels: (n,) classes, to test the difference of the means per class; None to test that of
            the accuracies over all images.
        samples: number of draws.
    """
    groups = np.zeros(len(first), np.int64) if labels is None else labels
    rng = np.random.default_rng(seed)
    observed, drawn = 0.0, np.zeros(samples)
    for group in np.unique(groups):
        of_group = groups == group
        only_first = int(np.sum(first & ~second & of_group))
        only_second = int(np.sum(second & ~first & of_group))
        discordant, count = only_first + only_second, int(np.sum(of_group))
        observed += (only_first - only_second) / count
        if discordant:
            drawn += (2 * rng.binomial(discordant, 0.5, samples) - discordant) / count
    # Sums of fractions in another order differ in the last bits.
    as_large = np.sum(np.abs(drawn) >= abs(observed) * (1 - 1e-9))
    # The observed difference is one of the possible ones, so that no p-value is 0.
    return float((as_large + 1) / (samples + 1))
