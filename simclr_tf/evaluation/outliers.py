"""Images that are unlike all others, compared with what is usual in their class."""

from __future__ import annotations

import numpy as np

# Scores from which an image is an outlier (Iglewicz and Hoaglin 1993).
CUTOFF = 3.5
# The standard deviation of a normal distribution, divided by its median absolute deviation.
_NORMAL = 1.4826


def scores(distances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns how unusual the distance of each image to its nearest images is, (n,).

    The score is the distance from the median of the class, in units of a standard deviation that
    is estimated from the median absolute deviation, so that outliers do not hide each other.
    Images without a label are one class.

    Args:
        distances: (n,) mean cosine distance to the nearest images.
        labels: (n,) classes, -1 where there is none.
    """
    result = np.zeros(len(distances))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        median = np.median(distances[rows])
        deviation = _NORMAL * np.median(np.abs(distances[rows] - median))
        result[rows] = (distances[rows] - median) / max(deviation, 1e-6)
    return result
