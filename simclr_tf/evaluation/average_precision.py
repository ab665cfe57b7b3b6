"""Average precision of the scores of classes, of images that may have several of them.

Labels are those of `data.indicators`: an image that counts neither as an example of a class nor as
a counterexample is left out of the ranking of that class, as in PASCAL VOC.

The 11-point average precision (PASCAL VOC 2007) is the mean over recalls of 0, 0.1, ..., 1 of the
largest precision at that recall or a larger one. Images with equal scores enter the ranking
together, so it does not depend on their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy

from simclr_tf.evaluation import intervals

_RECALLS = 10  # Intervals between the eleven recalls.
_DRAWS = 2000
# Exchanges of a permutation test. Each ranks all images again for every class.
SAMPLES = 10_000
# The most weights of images in memory at once.
_AT_ONCE = 400_000


def eleven_point(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the 11-point average precision (c,) of each class; nan for one without an example.

    Args:
        scores: (n, c), larger ones first.
        labels: (n, c).
    """
    once, found = np.ones((len(scores), 1), np.int32), np.full(labels.shape[1], np.nan)
    found[np.any(labels == 1, 0)] = [
        _interpolated(*one.totals(once))[0] for one in _rankings(scores, labels)
    ]
    return found


def all_points(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the average precision (c,) of each class; nan for one without an example.

    That is the mean of the precisions at each example of the class, without interpolation, as
    scikit-learn computes it.

    Args:
        scores: (n, c), larger ones first.
        labels: (n, c).
    """
    from sklearn import metrics

    found = np.full(labels.shape[1], np.nan)
    for column in np.flatnonzero(np.any(labels == 1, 0)):
        rows = labels[:, column] >= 0
        found[column] = metrics.average_precision_score(labels[rows, column], scores[rows, column])
    return found


def interval(scores: np.ndarray, labels: np.ndarray, *, seed: int) -> intervals.Interval:
    """Returns the mean over classes of the 11-point average precision, with its 95% interval.

    The interval is a bias-corrected bootstrap over images. A resample in which a class has no
    example leaves that class out of its mean. Where the mean is 1, the interval has no width.

    Args:
        scores: (n, c), larger ones first.
        labels: (n, c); classes without an example are left out.
        seed: seed of the resamples.
    """
    count = len(scores)
    rankings = _rankings(scores, labels)
    rng, means = np.random.default_rng(seed), list[np.ndarray]()
    for size in _blocks(_DRAWS, count):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size)
        weights = np.ascontiguousarray(drawn.T, np.int32)
        means.append(_mean([_interpolated(*one.totals(weights)) for one in rankings]))
    value = float(np.nanmean(eleven_point(scores, labels)))
    return intervals.bias_corrected(value, np.concatenate(means))


def p_value(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray, *, seed: int, samples: int = SAMPLES
) -> float:
    """Returns the two-sided p-value of the difference of two mean 11-point average precisions.

    If the classifiers are equally good, exchanging their scores for a random half of the images
    gives differences as likely as the observed one (a permutation test). Of each class the ranks
    of the scores are exchanged instead, of which average precision is a function: two classifiers
    may have scores of different scale, so a mixture of them would rank badly.

    Args:
        first: (n, c) scores of the first.
        second: (n, c) those of the second, of the same images and classes.
        labels: (n, c).
        seed: seed of the exchanges.
        samples: number of exchanges.
    """
    both = np.concatenate([_ranks(first, labels), _ranks(second, labels)])
    rankings = _rankings(both, np.concatenate([labels, labels]))
    all_images = [one.totals(np.ones((len(both), 1), np.int32)) for one in rankings]

    def difference(exchanged: np.ndarray) -> np.ndarray:
        counts = [one.totals(np.concatenate([1 - exchanged, exchanged])) for one in rankings]
        return _mean([_interpolated(*one) for one in counts]) - _mean(
            [
                _interpolated(hits - of_first[0], images - of_first[1])
                for (hits, images), of_first in zip(all_images, counts, strict=True)
            ]
        )

    observed = abs(difference(np.zeros((len(labels), 1), np.int32))[0])
    rng, as_large = np.random.default_rng(seed), 0
    for size in _blocks(samples, len(both)):
        drawn = np.abs(difference(rng.integers(0, 2, (len(labels), size), np.int32)))
        # Sums of fractions in another order differ in the last bits.
        as_large += int(np.sum(drawn >= observed * (1 - 1e-9)))
    # The observed difference is one of the possible ones, so that no p-value is 0.
    return (as_large + 1) / (samples + 1)


class _Ranking(NamedTuple):
    """The images of a class from the largest score to that of its last example.

    Images of equal scores form a level; levels without an example belong to the next one with
    some. There are e levels.

    Attributes:
        order: (k,) positions of the images that count for the class.
        starts: (e,) where each level starts in this order.
        examples: (p,) positions of the examples of the class, in the same order.
        first: (e,) where the examples of each level start.
    """

    order: np.ndarray
    starts: np.ndarray
    examples: np.ndarray
    first: np.ndarray

    def totals(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns how many examples (e, d), and how many images, are in all levels so far.

        Args:
            weights: (n, d) int32, how often each image counts.
        """
        images, hits = (
            np.add.reduceat(np.take(weights, positions, 0), starts, 0, np.int32)
            for positions, starts in ((self.order, self.starts), (self.examples, self.first))
        )
        return np.cumsum(hits, 0, np.int32), np.cumsum(images, 0, np.int32)


def _rankings(scores: np.ndarray, labels: np.ndarray) -> list[_Ranking]:
    """Returns the rankings of the classes that have an example."""
    rankings = []
    for column in np.flatnonzero(np.any(labels == 1, 0)):
        rows = np.flatnonzero(labels[:, column] >= 0)
        order = rows[np.argsort(-scores[rows, column], kind="stable")]
        falling, examples = -scores[order, column], np.flatnonzero(labels[order, column] == 1)
        after = np.searchsorted(falling, falling[examples], side="right")
        after, first = np.unique(after, return_index=True)
        starts = np.append(0, after[:-1])
        rankings.append(_Ranking(order[: after[-1]], starts, order[examples], first))
    return rankings


def _interpolated(hits: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Returns the 11-point average precision (d,); nan without an example.

    Args:
        hits: (e, d), see `_Ranking.totals`.
        images: (e, d).
    """
    precision = hits / np.maximum(images, 1)
    best = np.maximum.accumulate(precision[::-1], 0)[::-1]  # At this recall or a larger one.
    total, draws = hits[-1], np.arange(hits.shape[1])
    # In integers, because 0.1 * 3 is more than 3 / 10.
    reached = [
        np.count_nonzero(_RECALLS * hits < number * total, 0) for number in range(_RECALLS + 1)
    ]
    mean = np.mean([best[level, draws] for level in reached], 0)
    return np.where(total > 0, mean, np.nan)


def _mean(precisions: list[np.ndarray]) -> np.ndarray:
    """Returns the mean (d,) over the classes whose precision (d,) is not nan; nan without any."""
    found = np.array(precisions)
    known = ~np.isnan(found)
    total = np.where(known, found, 0).sum(0)
    return np.divide(total, known.sum(0), out=np.full(len(total), np.nan), where=known.any(0))


def _ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the ranks (n, c) of the scores of each class among the images that count for it."""
    ranks = np.zeros(scores.shape)
    for column, label in enumerate(labels.T):
        rows = label >= 0
        ranks[rows, column] = scipy.stats.rankdata(scores[rows, column])
    return ranks


def _blocks(draws: int, width: int) -> Iterator[int]:
    """Yields the sizes of blocks of draws whose weights fit in memory."""
    most = max(1, _AT_ONCE // width)
    for start in range(0, draws, most):
        yield min(most, draws - start)
