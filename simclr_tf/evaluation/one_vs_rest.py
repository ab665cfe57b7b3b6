"""Linear evaluation of images that may have several labels: a binary classifier for each class.

Each is a logistic regression on frozen features, as for one label per image (SimCLR, appendix B.8),
fitted to the images that count as examples of its class or as counterexamples; labels are those of
`data.indicators`. All classes have the same l2 strength, the one with the largest mean 11-point
average precision on held-out images.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import numpy as np

from simclr_tf.data import indicators
from simclr_tf.evaluation import average_precision, held_out, linear, logistic


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Linear classifiers of standardised features, one for each class.

    Attributes:
        scaling: mean and standard deviation of the features.
        weights: (c, f) float32.
        biases: (c,) float32.
    """

    scaling: logistic.Scaling
    weights: np.ndarray
    biases: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Returns the log odds (m, c) float32 that images with features (m, f) show each class."""
        return self.scaling.apply(features) @ self.weights.T + self.biases


@dataclasses.dataclass(frozen=True)
class Fit:
    """Fitted classifiers, and what was chosen for them without other features.

    Attributes:
        classifier: the classifiers.
        strength: the chosen inverse l2 strength.
        converged: whether all fits converged before their iteration limit.
        held_out_precision: mean 11-point average precision of the chosen strength on the held-out
            features; nan if these did not suffice to choose one.
    """

    classifier: Classifier
    strength: float
    converged: bool
    held_out_precision: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """See `Classifier.scores`."""
        return self.classifier.scores(features)


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    split: held_out.Split | None = None,
    progress: Callable[[int], None] = lambda fits: None,
) -> Fit:
    """Fits a logistic regression to each class by L-BFGS, on all features.

    Args:
        features: (n, f) float32 features to fit.
        labels: (n, c); every class has an example and a counterexample.
        seed: determines which features are held out.
        split: which features to choose the strength on; None for a fifth, see `fifth`. Classes
            that cannot be fitted without these, or that have no example among them, do not count.
            If no class is left, the strength is 1.
        progress: called with the number of strengths tried so far, at most `linear.MOST_FITS`.
    """
    data = logistic.Features.of(features)
    path = _Path(data, labels, split or fifth(labels, seed=seed))
    strength, precision, starts = 1.0, float("nan"), dict[int, logistic.Solution]()
    if path.classes:
        search = linear.Search(path.score, error=path.error, progress=progress)
        best = search.run()
        strength, precision = linear.STRENGTHS[best], search.scores[best]
        starts = path.solutions[best]
    solutions = {
        column: _solver(data, labels, column).fit(
            strength, starts.get(column), linear.MAX_ITERATIONS
        )
        for column in range(labels.shape[1])
    }
    progress(linear.MOST_FITS)
    converged = all(solution.converged for solution in solutions.values())
    return Fit(_classifier(data.scaling, solutions), strength, converged, precision)


def fifth(labels: np.ndarray, *, seed: int) -> held_out.Split:
    """Holds out a fifth of the images, stratified by the rarest class of each.

    Args:
        labels: (n, c).
        seed: seed of the draw.
    """
    return held_out.stratified_fifth(indicators.rarest(labels), seed=seed)


class _Path:
    """Classifiers of several strengths, fitted to some features and scored on others.

    Attributes:
        classes: the columns of the classes that count.
        solutions: position in `linear.STRENGTHS` -> class -> its solution.
    """

    def __init__(
        self,
        data: logistic.Features,
        labels: np.ndarray,
        split: held_out.Split,
    ) -> None:
        self._data, self._labels = data, labels
        self._rows = split.fit
        fitted, held = labels[split.fit], labels[split.held]
        counts = np.any(fitted == 1, 0) & np.any(fitted == 0, 0) & np.any(held == 1, 0)
        self.classes = [int(column) for column in np.flatnonzero(counts)]
        self._held = data.values[split.held], held[:, self.classes]
        self.solutions: dict[int, dict[int, logistic.Solution]] = {}

    @property
    def error(self) -> float:
        """About the largest standard error of a mean average precision of the held-out images.

        That of one class is about that of a fraction of its examples.
        """
        examples = np.sum(self._held[1] == 1, 0)
        return float(0.5 * np.sqrt(np.sum(1 / examples)) / len(examples))

    def score(self, position: int) -> float:
        """Fits a strength, and returns the mean 11-point average precision of held-out features.

        Each fit starts from the solution of a stronger regularisation, which is close.
        """
        stronger = [other for other in self.solutions if other < position]
        starts = self.solutions[max(stronger)] if stronger else {}
        self.solutions[position] = {
            column: _solver(self._data, self._labels, column, self._rows).fit(
                linear.STRENGTHS[position], starts.get(column), linear.PATH_ITERATIONS
            )
            for column in self.classes
        }
        scores = _classifier(self._data.scaling, self.solutions[position]).scores(self._held[0])
        return float(np.mean(average_precision.eleven_point(scores, self._held[1])))


def _solver(
    data: logistic.Features,
    labels: np.ndarray,
    column: int,
    rows: np.ndarray | None = None,
) -> logistic.Solver:
    """Returns the solver of a class, for those of the rows that count for it; None for all."""
    rows = np.arange(len(labels)) if rows is None else rows
    rows = rows[labels[rows, column] >= 0]
    return logistic.solver(data, labels[:, column], rows=rows)


def _classifier(scaling: logistic.Scaling, solutions: dict[int, logistic.Solution]) -> Classifier:
    """Returns classifiers of log odds, which of two classes are those of the second."""
    weights = [np.diff(one.weights, axis=0)[0] for one in solutions.values()]
    biases = [np.diff(one.biases)[0] for one in solutions.values()]
    return Classifier(scaling, np.array(weights), np.array(biases))
