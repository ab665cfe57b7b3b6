"""Labels that are probably wrong, by confident learning (Northcutt et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import warnings

import numpy as np
import scipy

from simclr_tf.evaluation import linear

_FOLDS = 5
# Fits of all folds together.
MOST_FITS = _FOLDS * linear.MOST_FITS


@dataclasses.dataclass(frozen=True)
class Doubtful:
    """Images whose label is probably wrong, the least probable label first.

    Attributes:
        rows: (d,) numbers of the images.
        suggested: (d,) the class that is more probable.
        given_probability: (d,) probability of the given label.
        suggested_probability: (d,) probability of the suggested class.
    """

    rows: np.ndarray
    suggested: np.ndarray
    given_probability: np.ndarray
    suggested_probability: np.ndarray


def out_of_fold(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    num_classes: int,
    seed: int,
    progress: Callable[[int], None] = lambda fits: None,
) -> np.ndarray:
    """Returns probabilities (n, c) by logistic regressions that were not fitted to the image.

    They are those of the linear evaluation, calibrated on images that they were not fitted to.

    Args:
        features: (n, f).
        labels: (n,) classes; at least two of them, and one with two groups.
        groups: (n,) images of a group, such as duplicates, are in one fold, so that none confirms
            the label of another.
        num_classes: c.
        seed: seed of the folds.
        progress: called with the number of fits so far, at most `MOST_FITS`.
    """
    fold = _folds(labels, groups, seed)
    folds = int(fold.max()) + 1
    probabilities = np.zeros((len(labels), num_classes))
    for number in range(folds):
        rest, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)

        def report(fits: int, before: int = number * linear.MOST_FITS) -> None:
            progress(before + fits)

        fit = linear.fit(
            features[rest],
            labels[rest],
            num_classes=num_classes,
            seed=seed,
            progress=report,
        )
        scores = fit.scores(features[held]).astype(np.float64) / fit.temperature
        probabilities[held] = scipy.special.softmax(scores, 1)
    if folds < _FOLDS:
        progress(MOST_FITS)
    return probabilities


def _folds(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Returns the fold of each image (n,); the classes of the groups are spread evenly."""
    from sklearn import model_selection

    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    counts = np.bincount(labels[first])
    splitter = model_selection.StratifiedKFold(
        min(_FOLDS, int(counts.max())), shuffle=True, random_state=seed
    )
    fold = np.zeros(len(first), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # A class may have fewer images than folds.
        for number, (_, held_out) in enumerate(splitter.split(first, labels[first])):
            fold[held_out] = number
    return fold[group]


def find(probabilities: np.ndarray, labels: np.ndarray) -> Doubtful:
    """Finds labels that are probably wrong, as many as confident learning estimates there are.

    A class is confident of an image if its probability there is at least the mean of those of the
    images with its label. Among the confident images, the fraction with label i and confident class
    j estimates how many images with label i are of class j. As many are taken: those for which the
    probability of j exceeds that of i by most, and at all (pruning by noise rate).

    Args:
        probabilities: (n, c), by classifiers that did not learn from the image.
        labels: (n,) the given classes.
    """
    own = probabilities[np.arange(len(labels)), labels]
    counts = _estimated_counts(probabilities, labels, own)
    suggested = np.full(len(labels), -1)
    margin = np.zeros(len(labels))
    for given, other in zip(*np.nonzero(counts), strict=True):
        rows = np.flatnonzero(labels == given)
        margins = probabilities[rows, other] - own[rows]
        chosen = np.argsort(-margins, kind="stable")[: counts[given, other]]
        chosen = chosen[margins[chosen] > margin[rows[chosen]]]
        suggested[rows[chosen]], margin[rows[chosen]] = other, margins[chosen]
    rows = np.flatnonzero(suggested >= 0)
    rows = rows[np.argsort(own[rows], kind="stable")]
    return Doubtful(rows, suggested[rows], own[rows], probabilities[rows, suggested[rows]])


def _estimated_counts(probabilities: np.ndarray, labels: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Returns (c, c) how many images with the label of a row are of the class of a column.

    The diagonal is zero.
    """
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, own, classes)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    confident = np.where(probabilities >= thresholds, probabilities, -np.inf)
    rows = np.flatnonzero(np.isfinite(confident.max(1)))
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[rows], np.argmax(confident[rows], 1)), 1)
    joint *= (counts / np.maximum(joint.sum(1), 1))[:, np.newaxis]
    np.fill_diagonal(joint, 0)
    return np.rint(joint).astype(np.int64)
