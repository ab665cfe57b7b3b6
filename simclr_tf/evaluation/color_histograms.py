"""How well crops of one image are recognised by their colours alone (SimCLR, figure 6)."""

from __future__ import annotations

import numpy as np

BINS = 32


def histograms(views: np.ndarray) -> np.ndarray:
    """Returns the histograms of the three channels of each view, one after the other.

    Args:
        views: (n, s, s, 3) in [0, 1].

    Returns:
        (n, 3 * BINS) fractions of the pixels; those of a channel sum to 1.
    """
    count, size = views.shape[0], views.shape[1] * views.shape[2]
    bins = np.minimum((views.reshape(count, size, 3) * BINS).astype(np.int64), BINS - 1)
    # Each view and channel has a range of numbers of its own.
    offsets = (np.arange(count)[:, None, None] * 3 + np.arange(3)) * BINS
    found = np.bincount((bins + offsets).ravel(), minlength=count * 3 * BINS)
    return found.reshape(count, 3 * BINS) / size


def recognised(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns for which images the second view has the histogram nearest to that of the first.

    The distance of two histograms is the sum of the absolute differences.

    Args:
        first: (n, s, s, 3) in [0, 1], a view of each image.
        second: (n, s, s, 3), another view of each, in the same order.

    Returns:
        (n,) bool. Where several views are equally near, none is recognised.
    """
    queries, candidates = histograms(first), histograms(second)
    right = np.empty(len(queries), bool)
    for row, query in enumerate(queries):
        distances = np.abs(candidates - query).sum(1)
        nearest = distances == distances.min()
        right[row] = nearest[row] and nearest.sum() == 1
    return right
