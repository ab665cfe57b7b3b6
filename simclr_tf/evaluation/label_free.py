"""Numbers for representations without any labels, from several views of each image."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy

from simclr_tf.evaluation import geometry, intervals, neighbours, outcome

# Added to the variances within images, and to the probabilities, in LiDAR (its appendix).
_DELTA, _EPSILON = 1e-4, 1e-7


@dataclasses.dataclass(frozen=True)
class Views:
    """What the network computes from random views of images.

    Attributes:
        features: (n, v, f) float32, of v views of each of n images.
        projection: (n, v, d) float32.
    """

    features: np.ndarray
    projection: np.ndarray


def evaluate(views: Views) -> outcome.Outcome:
    """Measures how far views of an image agree, and in how many directions images differ.

    Retrieval asks, for the first view of every image, whether the most similar second view is that
    of the same image; chance is 1 / n.
    """
    unit = neighbours.unit_rows(views.features.reshape(-1, views.features.shape[-1]))
    unit = unit.reshape(views.features.shape)
    result = outcome.Outcome()
    result.add(
        "label_free/view_retrieval",
        f"the other view is the nearest of {len(unit):,} (no labels)",
        intervals.accuracy(retrieved(views.features[:, 0], views.features[:, 1])),
    )
    for name, what, value in (
        ("rankme", "RankMe of the features", geometry.effective_rank(views.features[:, 0])),
        ("lidar", "LiDAR of the features", lidar(views.features)),
        ("rankme_projection", "RankMe of g(h)", geometry.effective_rank(views.projection[:, 0])),
        ("lidar_projection", "LiDAR of g(h)", lidar(views.projection)),
        ("alignment", "alignment: squared distance of two views", alignment(unit)),
        ("uniformity", "uniformity of images", geometry.uniformity(unit[:, 0])),
    ):
        if value is not None:
            result.add_number(f"label_free/{name}", what, value, f"{value:.3g}")
    result.numbers["label_free/images"], result.numbers["label_free/views"] = unit.shape[:2]
    return result


def retrieved(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns (n,) bool, whether row i of `second` (n, f) is the nearest to row i of `first`."""
    found = [indices[:, 0] for _, indices, _ in neighbours.nearest(first, second, 1)]
    return np.concatenate(found) == np.arange(len(first))


def alignment(unit: np.ndarray) -> float:
    """Returns the mean squared distance of the first two views (Wang and Isola 2020, alpha = 2).

    Args:
        unit: (n, v, f) features of length 1.
    """
    return float(np.mean(np.sum((unit[:, 0] - unit[:, 1]).astype(np.float64) ** 2, -1)))


def lidar(views: np.ndarray) -> float:
    """Returns the LiDAR of views (n, v, d), between 1 and d (Thilak et al. 2024).

    Every image is a class of its own. The number is the exponential of the entropy of the
    normalised eigenvalues of linear discriminant analysis: the effective number of directions in
    which images differ by more than their views do.
    """
    views = views.astype(np.float64)
    means = views.mean(1)  # (n, d)
    between = np.cov(means, rowvar=False, bias=True).reshape(views.shape[-1], -1)
    deviations = (views - means[:, np.newaxis]).reshape(-1, views.shape[-1])
    within = deviations.T @ deviations / len(deviations) + _DELTA * np.eye(views.shape[-1])
    eigenvalues = np.maximum(scipy.linalg.eigh(between, within, eigvals_only=True), 0)
    p = eigenvalues / max(eigenvalues.sum(), np.finfo(np.float64).tiny) + _EPSILON
    return float(np.exp(-np.sum(p * np.log(p))))
