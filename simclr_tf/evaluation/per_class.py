"""Accuracy of each class, and which classes are taken for which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simclr_tf.evaluation import intervals, mistakes, outcome

if TYPE_CHECKING:
    from matplotlib import figure

# The most pairs of classes that the table for people lists.
_LISTED_PAIRS = 3
# More classes have no legible names along the edges of a picture.
_NAMED_CLASSES = 40


def evaluate(inputs: outcome.Inputs) -> outcome.Outcome:
    """Returns the mean accuracy per class, the confusion matrix, and pictures of mistakes."""
    from sklearn import metrics

    predicted = np.argmax(inputs.test_scores, 1)
    labels, names = inputs.test_labels, inputs.class_names
    result = outcome.Outcome()
    result.add(
        "per_class/mean_accuracy",
        "mean of the classes' accuracies",
        intervals.mean_per_class(
            predicted == labels, labels, seed=inputs.seed, groups=inputs.test_groups
        ),
    )
    matrix = metrics.confusion_matrix(labels, predicted, labels=np.arange(len(names)))
    for true, guess, count in _confused_pairs(matrix)[:_LISTED_PAIRS]:
        images = f"{count:,} of {matrix[true].sum():,}"
        result.rows.append((f"{names[true]} taken for {names[guess]}", images))
    result.tables["per_class.csv"] = _class_table(inputs, predicted)
    result.tables["confusion.csv"] = [
        ["class", *names],
        *([name, *map(str, row)] for name, row in zip(names, matrix, strict=True)),
    ]
    result.figures["confusion.svg"] = lambda target: _draw(target, matrix, names)
    if inputs.thumbnails is not None:
        sheet = mistakes.pictures(inputs, inputs.thumbnails)
        result.sheets |= {"mistakes.png": sheet} if sheet else {}
    return result


def _confused_pairs(matrix: np.ndarray) -> list[tuple[int, int, int]]:
    """Returns (class, predicted class, count) of all wrong predictions, the most frequent first."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")
    order = order[: np.count_nonzero(wrong)]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(true), int(guess), int(wrong[true, guess])) for true, guess in pairs]


def _class_table(inputs: outcome.Inputs, predicted: np.ndarray) -> list[list[str]]:
    """Returns the rows of per_class.csv; classes without examples have no accuracy."""
    rows = [["class", "examples", "accuracy", "low", "high"]]
    for label, name in enumerate(inputs.class_names):
        of_class = inputs.test_labels == label
        count = int(of_class.sum())
        if count:
            found = inputs.interval(predicted == label, of_class)
            rows.append([name, str(count), *(f"{value:.4f}" for value in found)])
        else:
            rows.append([name, "0", "", "", ""])
    return rows


def _draw(target: figure.Figure, matrix: np.ndarray, names: tuple[str, ...]) -> None:
    """Draws the confusion matrix, each row as fractions of its class."""
    axes = target.subplots()
    totals = np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axes.imshow(matrix / totals, cmap="Blues", vmin=0, vmax=1)
    target.colorbar(image, label="fraction of the class")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class")
    if len(names) <= _NAMED_CLASSES:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
