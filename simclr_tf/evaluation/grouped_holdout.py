"""Which images are held out of a fit to choose its strength on, where images are in groups."""

from __future__ import annotations

import warnings

import numpy as np

from simclr_tf.evaluation import held_out

_FOLDS = 5


def splits(
    labels: np.ndarray, groups: np.ndarray, *, seed: int, few: bool = False
) -> list[held_out.Split]:
    """Returns splits of the images that hold out whole groups, about a fifth of the images each.

    The images are divided into five folds of whole groups, stratified by class as far as groups
    allow, by scikit-learn's StratifiedGroupKFold. Of these, the first is held out that leaves the
    most classes to fit, so that a class in one group is fitted.

    Args:
        labels: (n,) classes.
        groups: (n,) the group of each image.
        seed: seed of the draw.
        few: holds out each fold once, unless there are many images.

    Returns:
        The splits; none if all images are one group, which cannot be divided.
    """
    number = min(_FOLDS, len(np.unique(groups)))
    if number < 2:
        return []
    with warnings.catch_warnings():
        # Classes with fewer images than folds, and labels of many classes.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        folds = [fold for fold in _folds(labels, groups, number, seed) if len(fold)]
    found = [held_out.Split(np.delete(np.arange(len(labels)), fold), fold) for fold in folds]
    if few and len(labels) < held_out.ENOUGH:
        return found
    return [max(found, key=lambda split: len(np.unique(labels[split.fit])))]


def _folds(labels: np.ndarray, groups: np.ndarray, number: int, seed: int) -> list[np.ndarray]:
    """Returns the held-out positions of each fold; stratified, unless all classes are too small."""
    from sklearn import model_selection

    if np.unique(labels, return_counts=True)[1].max() < number:
        splitter = model_selection.GroupKFold(number)
    else:
        splitter = model_selection.StratifiedGroupKFold(number, shuffle=True, random_state=seed)
    return [np.sort(held) for _, held in splitter.split(labels, labels, groups)]
