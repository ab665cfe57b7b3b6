"""A permutation test between two classifiers of the same images."""

from __future__ import annotations

import numpy as np

SAMPLES = 100_000
# With up to so many groups that differ, all exchanges are counted, at most 65,536.
_MOST_ENUMERATED = 16


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


def grouped_p_value(
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int,
    samples: int = SAMPLES,
) -> float:
    """Returns the two-sided p-value of the difference of two accuracies on images in groups.

    Images of a group are not independent, so the two classifiers are exchanged for whole groups,
    which changes the sign of a group's difference (a sign-flip test). The p-value is exact if few
    groups differ.

    Args:
        first: (n,) bool, which images the first classifies right.
        second: (n,) bool, those of the second, in the same order.
        groups: (n,) the group of each image.
        seed: seed of the draws.
        samples: number of draws, where not all exchanges are counted.
    """
    _, positions = np.unique(groups, return_inverse=True)
    signed = np.bincount(positions, second.astype(np.int64) - first)
    return _flipped(signed[signed != 0], seed, samples)


def sign_flip_p_value(scores: np.ndarray, *, seed: int, samples: int = SAMPLES) -> float:
    """Returns the two-sided p-value of a mean of 0, where the sign of each score is random.

    The test is exact if few scores are not 0, see `grouped_p_value`, which is the same test.

    Args:
        scores: (n,) differences, one for each image or group.
        seed: seed of the draws.
        samples: number of draws, where not all signs are counted.
    """
    # Equal differences must have equal values, whatever the rounding of the means they are from.
    scores = np.round(np.asarray(scores, np.float64), 9)
    return _flipped(scores[scores != 0], seed, samples)


def _flipped(differences: np.ndarray, seed: int, samples: int) -> float:
    """Returns the p-value of a sum of differences whose signs are random, none of them 0."""
    # Sums of fractions in another order differ in the last bits.
    observed = abs(differences.sum()) * (1 - 1e-9)
    if len(differences) <= _MOST_ENUMERATED:
        sums = np.zeros(1)
        for difference in differences:
            sums = np.concatenate([sums + difference, sums - difference])
        return float(np.mean(np.abs(sums) >= observed))
    rng, drawn = np.random.default_rng(seed), np.zeros(samples)
    # Differences of equal size are exchanged together, by a binomial draw.
    for size, count in zip(*np.unique(np.abs(differences), return_counts=True), strict=True):
        drawn += size * (2.0 * rng.binomial(count, 0.5, samples) - count)
    return float((np.sum(np.abs(drawn) >= observed) + 1) / (samples + 1))
