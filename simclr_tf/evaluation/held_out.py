"""Which training images the strength of a linear classifier is chosen on."""

from __future__ import annotations

from typing import NamedTuple
import warnings

import numpy as np

_HELD_OUT = 0.2
_FOLDS = 5
# With fewer images, a fifth of them is too few to compare strengths on: an accuracy of 400 images
# has a standard error of up to 2.5 points.
ENOUGH = 2000


class Split(NamedTuple):
    """A split of training images.

    Attributes:
        fit: positions of those to fit.
        held: positions of those that are held out.
    """

    fit: np.ndarray
    held: np.ndarray


def stratified_fifth(labels: np.ndarray, *, seed: int) -> Split:
    """Holds out a fifth of the images, stratified by class if each class has enough.

    Args:
        labels: (n,) classes.
        seed: seed of the draw.
    """
    from sklearn import model_selection

    counts = np.unique(labels, return_counts=True)[1]
    size = round(_HELD_OUT * len(labels))
    by_class = labels if counts.min() >= 2 and size >= len(counts) else None
    with warnings.catch_warnings():
        # Labels of many classes are taken for those of a regression.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        rows, held = model_selection.train_test_split(
            np.arange(len(labels)), test_size=_HELD_OUT, random_state=seed, stratify=by_class
        )
    return Split(rows, held)


def of_few(labels: np.ndarray, *, seed: int) -> list[Split]:
    """Returns five splits that hold out each image once, stratified by class.

    The images of each class are dealt to the five in random order. A class with a single image is
    never held out, so the classifier always knows all classes. If there are many images, the first
    split is enough.

    Args:
        labels: (n,) classes.
        seed: seed of the order.

    Returns:
        The splits; none if every class has only one image.
    """
    rng = np.random.default_rng(seed)
    fold = np.full(len(labels), -1)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            fold[members] = np.arange(len(members)) % _FOLDS
    numbers = [number for number in range(_FOLDS) if np.any(fold == number)]
    splits = [Split(np.flatnonzero(fold != n), np.flatnonzero(fold == n)) for n in numbers]
    return splits[:1] if len(labels) >= ENOUGH else splits
