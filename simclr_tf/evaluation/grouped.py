"""Intervals of images in groups: a bootstrap over groups, because their images are not independent.

Images of one patient, slide or scene are right or wrong together, so an interval that counts each
of them as an example of its own is too narrow (Cameron, Gelbach and Miller 2008).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy

DRAWS = 10_000
_DRAWS_PER_CLASS = 2000
# The most numbers of times that groups are drawn, in memory at once.
_AT_ONCE = 4_000_000
_TAILS = (2.5, 97.5)


def ratio_limits(
    values: np.ndarray, groups: np.ndarray, *, seed: int, draws: int = DRAWS
) -> tuple[float, float]:
    """Returns a 95% percentile interval of the mean of values, by a bootstrap over groups.

    Groups are drawn with replacement, as many as there are, each with all of its images. A group
    has only its size and its sum, so those that are equal in both are drawn together.

    Args:
        values: (n,) whole numbers, such as hits, one for each image.
        groups: (n,) the group of each image.
        seed: seed of the draws.
        draws: number of draws.
    """
    _, positions = np.unique(groups, return_inverse=True)
    sums = np.rint(np.bincount(positions, values)).astype(np.int64)
    kinds = np.stack([sums, np.bincount(positions)], 1)
    kinds, counts = np.unique(kinds, axis=0, return_counts=True)
    total = int(counts.sum())
    rng, means = np.random.default_rng(seed), list[np.ndarray]()
    for size in _blocks(draws, len(kinds)):
        drawn = rng.multinomial(total, counts / total, size) @ kinds  # (size, 2)
        means.append(drawn[:, 0] / drawn[:, 1])
    low, high = np.percentile(np.concatenate(means), _TAILS)
    return float(low), float(high)


def mean_per_class_limits(
    hits: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, seed: int
) -> tuple[float, float]:
    """Returns a 95% percentile interval of the mean over classes of their accuracies.

    A draw of groups may lack classes. Its mean is that of the others.

    Args:
        hits: (n,) bool, which images were right.
        labels: (n,) their classes.
        groups: (n,) their groups.
        seed: seed of the draws.
    """
    classes, of_class = np.unique(labels, return_inverse=True)
    names, of_group = np.unique(groups, return_inverse=True)
    shape = len(names), len(classes)
    right = scipy.sparse.csr_matrix((np.asarray(hits, float), (of_group, of_class)), shape)
    images = scipy.sparse.csr_matrix((np.ones(len(labels)), (of_group, of_class)), shape)
    rng, means = np.random.default_rng(seed), list[np.ndarray]()
    for size in _blocks(_DRAWS_PER_CLASS, max(shape)):
        weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size)
        drawn, present = weights @ right, weights @ images  # (size, c)
        rates = np.divide(drawn, present, out=np.zeros_like(drawn), where=present > 0)
        means.append(rates.sum(1) / (present > 0).sum(1))
    low, high = np.percentile(np.concatenate(means), _TAILS)
    return float(low), float(high)


def _blocks(draws: int, width: int) -> Iterator[int]:
    """Yields the sizes of blocks of draws whose arrays of some width fit in memory."""
    most = max(1, _AT_ONCE // width)
    for start in range(0, draws, most):
        yield min(most, draws - start)
