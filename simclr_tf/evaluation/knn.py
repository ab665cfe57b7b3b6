"""Classification by the nearest training images, without fitting anything."""

from __future__ import annotations

import numpy as np

from simclr_tf.evaluation import neighbours, outcome

# The weighted vote of Wu et al. 2018 (sec. 3.4): k = 200, temperature 0.1. The other numbers of
# neighbours show how local the classes are.
NEIGHBOURS = (1, 20, 200)
TEMPERATURE = 0.1


def evaluate(inputs: outcome.Inputs) -> outcome.Outcome:
    """Returns the accuracy of a weighted vote of the k nearest training images, for each k."""
    result = outcome.Outcome()
    present = [k for k in NEIGHBOURS if k <= len(inputs.train_features)]
    predicted = predictions(
        inputs.train_features,
        inputs.train_labels,
        inputs.test_features,
        present,
        num_classes=len(inputs.class_names),
    )
    for k, labels in predicted.items():
        hits = labels == inputs.test_labels
        what = f"{k} nearest neighbour{'s' if k > 1 else ''}"
        result.add(f"knn/{k}/top_1_accuracy", what, inputs.interval(hits))
    return result


def label_votes(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, neighbour_counts: list[int]
) -> dict[int, np.ndarray]:
    """Returns, for each k, the vote (m, c) of the k nearest training rows for each class.

    It is the fraction, from 0 to 1, of the weights of `predictions` of those that show the class,
    among those of which that is known; 0 if it is known of none.

    Args:
        train: (n, f).
        train_labels: (n, c), see `data.indicators`.
        test: (m, f).
        neighbour_counts: the numbers k, each at most n.
    """
    shown, known = (
        (train_labels == 1).astype(np.float64),
        (train_labels >= 0).astype(np.float64),
    )
    votes = {k: np.zeros((len(test), train_labels.shape[1])) for k in neighbour_counts}
    for part, indices, similarities in neighbours.nearest(test, train, max(neighbour_counts)):
        weights = np.exp((similarities - similarities[:, :1]).astype(np.float64) / TEMPERATURE)
        for k, found in votes.items():
            nearest, own = indices[:, :k], weights[:, :k, np.newaxis]  # (b, k), (b, k, 1)
            total = np.sum(own * known[nearest], 1)
            sums = np.sum(own * shown[nearest], 1)
            found[part] = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    return votes


def predictions(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    neighbour_counts: list[int],
    *,
    num_classes: int,
) -> dict[int, np.ndarray]:
    """Returns, for each k, the class (m,) with the largest vote of the k nearest training rows.

    A neighbour of cosine similarity s votes for its class with weight exp(s / 0.1). Of classes with
    equal votes the first wins.

    Args:
        train: (n, f).
        train_labels: (n,) classes.
        test: (m, f).
        neighbour_counts: the numbers k, each at most n.
        num_classes: c.
    """
    predicted = {k: np.zeros(len(test), np.int64) for k in neighbour_counts}
    for part, indices, similarities in neighbours.nearest(test, train, max(neighbour_counts)):
        # Divided by the largest weight, which changes no vote and keeps the weights below 1.
        weights = np.exp((similarities - similarities[:, :1]).astype(np.float64) / TEMPERATURE)
        rows = np.arange(len(indices))[:, np.newaxis] * num_classes
        cells = rows + train_labels[indices]  # (b, k) cell of each vote in the (b, c) sums
        for k, labels in predicted.items():
            sums = np.bincount(
                cells[:, :k].ravel(), weights[:, :k].ravel(), len(indices) * num_classes
            )
            labels[part] = np.argmax(sums.reshape(-1, num_classes), 1)
    return predicted
