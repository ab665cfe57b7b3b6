"""Retrieval of images of the same class by cosine similarity."""

from __future__ import annotations

import numpy as np

from simclr_tf.data import shown
from simclr_tf.evaluation import neighbours, outcome, thumbnails

_RANKS = (1, 5, 10)
# Of the picture.
_DRAWN_QUERIES, _DRAWN_NEIGHBOURS = 12, 8


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
        what = f"an image of the class among the {k} nearest" if k > 1 else "nearest image's class"
        result.add(f"retrieval/recall_at_{k}", what, inputs.interval(found[k], is_query))
    value = float(np.mean(precision[is_query]))
    result.add_number("retrieval/map_at_r", "mAP@R", value, f"{value:.3f}")
    result.numbers["retrieval/queries"] = int(is_query.sum())
    if inputs.thumbnails is not None and len(inputs.thumbnails.rows) > 1:
        result.sheets["neighbours.png"] = _pictures(inputs, inputs.thumbnails)
    return result


def _pictures(
    inputs: outcome.Inputs, small: thumbnails.Thumbnails
) -> list[tuple[str, list[outcome.Tile]]]:
    """Returns rows of images: some that the seed draws, each with its nearest ones.

    Neighbours are those among the images with thumbnails. Their frames are green if they are of the
    same class, and red otherwise.
    """
    features, labels = inputs.test_features[small.rows], inputs.test_labels[small.rows]
    count = min(_DRAWN_QUERIES, len(labels))
    queries = np.random.default_rng(inputs.seed).choice(len(labels), count, replace=False)
    k = min(_DRAWN_NEIGHBOURS, len(labels) - 1)
    indices, cosines = neighbours.nearest_in_parts(features[queries], [features], k, own=queries)
    rows = []
    for query, near, similar in zip(queries, indices, cosines, strict=True):
        names = inputs.test_names
        caption = "" if names is None else names[small.rows[query]]
        tiles = [outcome.Tile(small.images[query] / 255, ("", inputs.class_names[labels[query]]))]
        for index, cosine in zip(near, similar, strict=True):
            lines = (f"{cosine:.3f}", inputs.class_names[labels[index]])
            frame = "green" if labels[index] == labels[query] else "red"
            tiles.append(outcome.Tile(small.images[index] / 255, lines, frame))
        rows.append((shown.with_channels(caption, small.channels), tiles))
    return rows


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
