"""Retrieval of images of the same class by cosine similarity."""

from __future__ import annotations

import numpy as np

from simclr_tf.evaluation import intervals, neighbours, outcome

_RANKS = (1, 5, 10)


def evaluate(inputs: outcome.Inputs) -> outcome.Outcome:
    """Ranks the evaluation images by their similarity to each of them.

    Recall at k is the fraction of queries with an image of their class among the k most similar
    ones. mAP@R (Musgrave et al. 2020, sec. 3.2) looks at as many neighbours as there are other
    images of the class, R: it is the mean over queries of sum_i precision(i) * relevant(i) / R.
    A query does not retrieve itself; images without another one of their class are no queries.
    """
    result = outcome.Outcome()
    labels = inputs.test_labels
    others = np.bincount(labels)[labels] - 1  # (m,) R of each image
    is_query = others > 0
    if not is_query.any():
        result.rows.append(("retrieval", "no two images of one class"))
        return result
    ranks = [k for k in _RANKS if k < len(labels)]
    found, precision = _retrieve(inputs.test_features, labels, others, ranks)
    for k in ranks:
        hits = found[k][is_query]
        what = f"an image of the class among the {k} nearest" if k > 1 else "nearest image's class"
        result.add(f"retrieval/recall_at_{k}", what, intervals.accuracy(hits))
    value = float(np.mean(precision[is_query]))
    result.add_number("retrieval/map_at_r", "mAP@R", value, f"{value:.3f}")
    result.numbers["retrieval/queries"] = int(is_query.sum())
    return result


def _retrieve(
    features: np.ndarray, labels: np.ndarray, others: np.ndarray, ranks: list[int]
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Returns, for each k, whether (m,) the k nearest hold an image of the class; and AP@R (m,)."""
    found = {k: np.zeros(len(labels), bool) for k in ranks}
    precision = np.zeros(len(labels))
    depth = max(int(others.max()), *ranks)
    positions = np.arange(1, depth + 1)
    for part, indices, _ in neighbours.nearest(features, features, depth, exclude_self=True):
        relevant = labels[indices] == labels[part, np.newaxis]  # (b, depth)
        for k, hits in found.items():
            hits[part] = relevant[:, :k].any(1)
        counted = relevant & (positions <= others[part, np.newaxis])
        sums = np.sum(np.cumsum(counted, 1) / positions * counted, 1)
        precision[part] = sums / np.maximum(others[part], 1)
    return found, precision
