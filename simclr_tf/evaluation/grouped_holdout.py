"""Which images are held out of a fit to choose its strength on, where images are in groups."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn import model_selection

_FOLDS = 5


def hold_out(labels: np.ndarray, groups: np.ndarray, *, seed: int) -> np.ndarray:
    """Returns the positions of about a fifth of the images, which are whole groups.

    The images are divided into five folds of whole groups, stratified by class as far as groups
    allow, by scikit-learn's StratifiedGroupKFold. Of these, the first is held out that leaves the
    most classes to fit, so that a class in one group is fitted.

    Args:
        labels: (n,) classes.
        groups: (n,) the group of each image, of at least two groups.
        seed: seed of the draw.

    Raises:
        ValueError: if there is only one group.
    """
    number = min(_FOLDS, len(np.unique(groups)))
    if number < 2:
        raise ValueError("a single group cannot be divided")
    with warnings.catch_warnings():
        # Classes with fewer images than folds, and labels of many classes.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        folds = [fold for fold in _folds(labels, groups, number, seed) if len(fold)]
    return max(folds, key=lambda held: len(np.unique(np.delete(labels, held))))


def _folds(labels: np.ndarray, groups: np.ndarray, number: int, seed: int) -> list[np.ndarray]:
    """Returns the held-out positions of each fold; stratified, unless all classes are too small."""
    if np.unique(labels, return_counts=True)[1].max() < number:
        splitter = model_selection.GroupKFold(number)
    else:
        splitter = model_selection.StratifiedGroupKFold(number, shuffle=True, random_state=seed)
    return [np.sort(held) for _, held in splitter.split(labels, labels, groups)]
