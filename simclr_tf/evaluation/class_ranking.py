"""How well scores rank the images of each class, of images that may show several classes.

Labels are those of `data.indicators`; an image whose label of a class is not known is left out of
the ranking of that class. Of each class there are two numbers:

  average precision   the mean of the precisions at each of its images, without interpolation. At
                      random it is the fraction of images that show the class.
  ROC AUC             the probability that an image that shows the class has a larger score than
                      one that does not. At random it is one half.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import warnings

import numpy as np

from simclr_tf.evaluation import average_precision, intervals

_DRAWS = 1000
# The most weights of images in memory at once.
_AT_ONCE = 2_000_000


@dataclasses.dataclass(frozen=True)
class Ranking:
    """One number of each class, and what it is in resamples of the images.

    Attributes:
        values: (c,), nan where it is not defined.
        draws: (d, c) of the resamples.
    """

    values: np.ndarray
    draws: np.ndarray

    def mean(self) -> intervals.Interval:
        """Returns the mean over the classes where it is defined, with its 95% interval."""
        defined = self.draws[:, ~np.isnan(self.values)]
        return intervals.bias_corrected(_mean(self.values[np.newaxis])[0], _mean(defined))

    def of_class(self, column: int) -> intervals.Interval:
        """Returns the number of a class, with its 95% interval."""
        return intervals.bias_corrected(self.values[column], self.draws[:, column])


@dataclasses.dataclass(frozen=True)
class Rankings:
    """Both numbers of each class."""

    average_precision: Ranking
    roc_auc: Ranking


def rank(
    scores: np.ndarray, labels: np.ndarray, *, seed: int, groups: np.ndarray | None = None
) -> Rankings:
    """Returns how well scores rank the images of each class, with a bootstrap over images.

    A resample without an image of a class, or without an image that does not show it, leaves the
    class out of its mean.

    Args:
        scores: (n, c), larger ones first. Equal ones enter the ranking together.
        labels: (n, c).
        seed: seed of the resamples.
        groups: (n,) the groups of the images, which are drawn whole; None if they are independent.
    """
    precision, auc = list[np.ndarray](), list[np.ndarray]()
    for weights in _weights(len(scores), groups, seed):
        found = [_weighted(scores[:, i], labels[:, i], weights) for i in range(labels.shape[1])]
        precision.append(np.stack([one for one, _ in found], 1))
        auc.append(np.stack([one for _, one in found], 1))
    return Rankings(
        Ranking(average_precision.all_points(scores, labels), np.concatenate(precision)),
        Ranking(roc_auc(scores, labels), np.concatenate(auc)),
    )


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the area under the ROC curve (c,) of each class, as scikit-learn computes it.

    It is nan for a class that all images show, or none.

    Args:
        scores: (n, c).
        labels: (n, c).
    """
    from sklearn import metrics

    found = np.full(labels.shape[1], np.nan)
    for column in np.flatnonzero(np.any(labels == 1, 0) & np.any(labels == 0, 0)):
        rows = labels[:, column] >= 0
        found[column] = metrics.roc_auc_score(labels[rows, column], scores[rows, column])
    return found


def _weights(count: int, groups: np.ndarray | None, seed: int) -> Iterator[np.ndarray]:
    """Yields blocks (n, d) of how often each image is in each resample."""
    rng, most = np.random.default_rng(seed), max(1, _AT_ONCE // count)
    units = count if groups is None else int(groups.max()) + 1
    for start in range(0, _DRAWS, most):
        size = min(most, _DRAWS - start)
        drawn = rng.multinomial(units, np.full(units, 1 / units), size).T.astype(np.float64)
        yield drawn if groups is None else drawn[groups]


def _weighted(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns average precision and ROC AUC (d,) of a class under weights (n, d) of the images."""
    rows = np.flatnonzero(labels >= 0)
    order = rows[np.argsort(-scores[rows], kind="stable")]
    # Where the next score is smaller.
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    shown = (labels[order] == 1)[:, np.newaxis]
    drawn = weights[order]
    zero = np.zeros((1, weights.shape[1]))
    positive, negative = (
        np.concatenate([zero, np.cumsum(drawn * which, 0)[ends]]) if len(order) else zero
        for which in (shown, ~shown)
    )  # (t + 1, d) images above each threshold
    total, others = positive[-1], negative[-1]
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")
        at_least_one = np.maximum(positive[1:] + negative[1:], 1)
        precision = np.sum(np.diff(positive, axis=0) * positive[1:] / at_least_one, 0) / total
        middle = (positive[1:] + positive[:-1]) / 2
        area = np.sum(np.diff(negative, axis=0) * middle, 0) / (total * others)
    return precision, area


def _mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean (d,) of (d, c) over what is not nan; nan without any."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(1)
    return np.divide(total, known.sum(1), out=np.full(len(values), np.nan), where=known.any(1))
