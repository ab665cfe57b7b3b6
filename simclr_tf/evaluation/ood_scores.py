"""How much images resemble those of a training split, by features and by class scores.

A higher score means more like the training images, whichever score it is.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy

from simclr_tf.evaluation import neighbours

# The most neighbours of the score by neighbours.
NEIGHBOURS = 50
_ROWS_AT_ONCE = 8192
# Keeps the covariance of features that never vary invertible.
_SMALLEST = 1e-12


def by_neighbour(train: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Returns minus the distance to the k-th nearest training row (Sun et al. 2022).

    Args:
        train: (n, f) features of the training split; of more than 50 rows, k is 50, else n.
        features: (m, f) features to score. Both are scaled to length 1.

    Returns:
        (m,) float64.
    """
    found = np.empty(len(features))
    k = min(NEIGHBOURS, len(train))
    for part, _, similarities in neighbours.nearest(features, train, k):
        found[part] = -np.sqrt(np.maximum(2 - 2 * similarities[:, -1].astype(np.float64), 0))
    return found


@dataclasses.dataclass(frozen=True)
class Gaussians:
    """Gaussians of one covariance, one for each class.

    Attributes:
        means: (k, f) float64, of the classes, after whitening.
        whitening: (f, f) float64: x @ whitening has unit covariance within classes.
    """

    means: np.ndarray
    whitening: np.ndarray

    @classmethod
    def fit(cls, train: np.ndarray, labels: np.ndarray) -> Gaussians:
        """Fits them to training features (n, f) of classes (n,).

        The covariance within classes is shrunk towards a multiple of the identity by the amount
        that Ledoit and Wolf (2004) derive from the features.
        """
        from sklearn import covariance

        train = train.astype(np.float64)
        classes, positions = np.unique(labels, return_inverse=True)
        means = np.stack([train[labels == one].mean(0) for one in classes])
        shrunk, _ = covariance.ledoit_wolf(train - means[positions], assume_centered=True)
        size = len(shrunk)
        shrunk += (1e-9 * np.trace(shrunk) / size + _SMALLEST) * np.eye(size)
        lower = scipy.linalg.cholesky(shrunk, lower=True)
        whitening = scipy.linalg.solve_triangular(lower, np.eye(size), lower=True).T
        return cls(means @ whitening, whitening)

    def score(self, features: np.ndarray) -> np.ndarray:
        """Returns minus the squared Mahalanobis distance to the nearest class (Lee et al. 2018).

        Args:
            features: (m, f).

        Returns:
            (m,) float64.
        """
        found = np.empty(len(features))
        for start in range(0, len(features), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            rows = features[part].astype(np.float64) @ self.whitening  # (b, f)
            distances = (
                np.sum(rows**2, 1)[:, np.newaxis]
                - 2 * rows @ self.means.T
                + np.sum(self.means**2, 1)
            )
            found[part] = -np.min(distances, 1)
        return found


def by_probability(scores: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the largest probability (Hendrycks and Gimpel 2017).

    It orders images as the probability does, without rounding large ones to 1.

    Args:
        scores: (m, c) unnormalised log probabilities.
    """
    return np.max(scipy.special.log_softmax(scores.astype(np.float64), 1), 1)


def by_energy(scores: np.ndarray) -> np.ndarray:
    """Returns minus the energy, the log-sum-exp of the class scores (m, c) (Liu et al. 2020)."""
    return scipy.special.logsumexp(scores.astype(np.float64), 1)
