"""Linear evaluation: a linear classifier on frozen features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from simclr_tf.evaluation import calibration, held_out, logistic

# l2 strengths to choose from (SimCLR, appendix B.8), as their inverses: from strong to weak.
STRENGTHS = tuple(float(f"{value:.3g}") for value in np.logspace(-5, 6, 45))
# The search first tries every eighth one, then halves the distance around the best.
_COARSE = 8
# Fits of the longest search, and the last one.
MOST_FITS = 13
# Of the solver: in the last fit, and while strengths are compared.
MAX_ITERATIONS = 300
PATH_ITERATIONS = 100
_ROWS_AT_ONCE = 8192


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A linear classifier of standardised features.

    Attributes:
        scaling: mean and standard deviation of the features.
        solution: weights and biases of the classes that the training features have.
        classes: (k,) these classes.
        num_classes: c.
    """

    scaling: logistic.Scaling
    solution: logistic.Solution
    classes: np.ndarray
    num_classes: int

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Returns the unnormalised log probabilities (m, c) float32 of features (m, f).

        Those of classes that the training features lack are -inf.
        """
        full = np.full((len(features), self.num_classes), -np.inf, np.float32)
        for start in range(0, len(features), _ROWS_AT_ONCE):
            block = slice(start, start + _ROWS_AT_ONCE)
            standardised = self.scaling.apply(features[block])
            full[block, self.classes] = (
                standardised @ self.solution.weights.T + self.solution.biases
            )
        return full


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted classifier, and what was chosen for it without other features.

    Attributes:
        classifier: the classifier.
        strength: the chosen inverse l2 strength.
        temperature: divides the scores so that they are calibrated on the held-out features.
        converged: whether the last fit converged before its iteration limit.
        held_out_accuracy: accuracy of the chosen strength on the held-out features; nan if all
            features to learn from had one class, so that there was nothing to choose.
    """

    classifier: Classifier
    strength: float
    temperature: float
    converged: bool
    held_out_accuracy: float = float("nan")

    def scores(self, features: np.ndarray) -> np.ndarray:
        """See `Classifier.scores`."""
        return self.classifier.scores(features)


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    seed: int,
    splits: Sequence[held_out.Split] | None = None,
    progress: Callable[[int], None] = lambda fits: None,
) -> Fit:
    """Fits multinomial logistic regression by L-BFGS (SimCLR, appendix B.8), see `minimisation`.

    Features are standardised. The l2 strength is chosen on a stratified fifth of the features, then
    the classifier is fitted on all of them. Features that it will be evaluated on are not known
    here, so they can choose nothing.

    Args:
        features: (n, f) float32 features to fit.
        labels: (n,) their classes.
        num_classes: c.
        seed: determines which features are held out.
        splits: splits of the features to choose the strength on, by the accuracy over all of them;
            None for a stratified fifth that is held out. With no split, the strength is 1.
        progress: called with the number of strengths tried so far, at most `MOST_FITS`.
    """
    data = logistic.Features.of(features)
    if splits is None:
        splits = [held_out.stratified_fifth(labels, seed=seed)]
    splits = [split for split in splits if len(np.unique(labels[split.fit])) > 1]
    chosen = _Chosen(1.0, 1.0, float("nan"), None)
    if splits:
        chosen = _choose(_Path(data, labels, splits, num_classes, progress))
    classifier = _fit(data, labels, num_classes, chosen.strength, chosen.start)
    progress(MOST_FITS)
    return Fit(
        classifier,
        chosen.strength,
        chosen.temperature,
        classifier.solution.converged,
        chosen.accuracy,
    )


class Search:
    """A search of the strength with the best score on held-out features, from coarse to fine.

    Attributes:
        scores: position in `STRENGTHS` -> score, of those that were tried. Each is tried once.
    """

    def __init__(
        self,
        score: Callable[[int], float],
        *,
        error: float,
        progress: Callable[[int], None] = lambda fits: None,
    ) -> None:
        """Creates the search.

        Args:
            score: fits a strength, given its position, and returns its score.
            error: how much lower a score must be to be clearly worse.
            progress: called with the number of strengths tried so far.
        """
        self._score, self._error, self._progress = score, error, progress
        self.scores: dict[int, float] = {}

    def run(self) -> int:
        """Returns the position in `STRENGTHS` of the best one that the search finds."""
        best, step = self._best(range(0, len(STRENGTHS), _COARSE)), _COARSE
        while step > 1:
            step //= 2
            near = (best - step, best, best + step)
            best = self._best([position for position in near if 0 <= position < len(STRENGTHS)])
        return best

    def _best(self, positions: Sequence[int]) -> int:
        """Returns the position of the strength with the best score, on a tie the strongest.

        From strong to weak regularisation; each fit starts from the previous solution, which is
        close. Stops early where weaker regularisation is clearly worse.
        """
        tried: list[float] = []
        for position in positions:
            if position not in self.scores:
                self.scores[position] = self._score(position)
                self._progress(len(self.scores))
            tried.append(self.scores[position])
            # From here on, weaker regularisation overfits even more, and its fits are the slowest.
            if len(tried) > 2 and max(tried[-2:]) < max(tried) - self._error:
                break
        return positions[int(np.argmax(tried))]


class _Fold:
    """Classifiers of several strengths, fitted to some features and scored on others."""

    def __init__(
        self,
        data: logistic.Features,
        labels: np.ndarray,
        split: held_out.Split,
        num_classes: int,
    ) -> None:
        self._classes, positions = _classes(labels, split.fit)
        self._solver = logistic.solver(data, positions, rows=split.fit)
        self._scaling, self._num_classes = data.scaling, num_classes
        self.held = data.values[split.held], labels[split.held]
        self.classifiers: dict[int, Classifier] = {}

    def hits(self, position: int) -> int:
        """Fits a classifier, and returns how many of its predictions are right.

        The fit starts from the solution of a stronger regularisation, which is close.
        """
        stronger = [other for other in self.classifiers if other < position]
        start = self.classifiers[max(stronger)].solution if stronger else None
        solution = self._solver.fit(STRENGTHS[position], start, PATH_ITERATIONS)
        classifier = Classifier(self._scaling, solution, self._classes, self._num_classes)
        self.classifiers[position] = classifier
        return int(np.sum(np.argmax(classifier.scores(self.held[0]), 1) == self.held[1]))

    def known_scores(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns scores of the held-out features of classes that were fitted, and the classes."""
        known = np.isin(self.held[1], self._classes)
        return self.classifiers[position].scores(self.held[0][known]), self.held[1][known]


class _Path:
    """Classifiers of several strengths, each fitted once, scored on held-out features."""

    def __init__(
        self,
        data: logistic.Features,
        labels: np.ndarray,
        splits: Sequence[held_out.Split],
        num_classes: int,
        progress: Callable[[int], None] = lambda fits: None,
    ) -> None:
        self._folds = [_Fold(data, labels, one, num_classes) for one in splits]
        self._count = sum(len(fold.held[1]) for fold in self._folds)
        # The largest standard error of an accuracy.
        self._search = Search(self._score, error=0.5 / np.sqrt(self._count), progress=progress)

    def search(self) -> int:
        """Returns the position in `STRENGTHS` of the best one that the search finds."""
        return self._search.run()

    def classifier(self, position: int) -> Classifier:
        """Returns the classifier of a strength that was tried, of the first split."""
        return self._folds[0].classifiers[position]

    def held_scores(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the scores (k, c) of held-out features by one strength, and their classes.

        Features of classes that were not fitted are left out, because no temperature helps them.
        """
        scores, labels = zip(*(fold.known_scores(position) for fold in self._folds))
        return np.concatenate(scores), np.concatenate(labels)

    def accuracy(self, position: int) -> float:
        """Returns its accuracy on the held-out features."""
        return self._search.scores[position]

    def _score(self, position: int) -> float:
        return sum(fold.hits(position) for fold in self._folds) / self._count


class _Chosen(NamedTuple):
    """What held-out features chose: see `Fit`, and where the last fit starts."""

    strength: float
    temperature: float
    accuracy: float
    start: Classifier | None


def _choose(path: _Path) -> _Chosen:
    """Searches the strength; the features that the path keeps are freed with it."""
    best, temperature = path.search(), 1.0
    scores, known = path.held_scores(best)
    if len(known):
        temperature = calibration.fit_temperature(scores, known)
    return _Chosen(STRENGTHS[best], temperature, path.accuracy(best), path.classifier(best))


def _fit(
    data: logistic.Features,
    labels: np.ndarray,
    num_classes: int,
    strength: float,
    start: Classifier | None = None,
) -> Classifier:
    """Fits all features, beginning with a classifier if it is of the same classes."""
    classes, positions = _classes(labels, np.arange(len(labels)))
    same = start is not None and np.array_equal(start.classes, classes)
    found = logistic.solver(data, positions).fit(
        strength, start.solution if same and start is not None else None, MAX_ITERATIONS
    )
    return Classifier(data.scaling, found, classes, num_classes)


def _classes(labels: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes (k,) of some rows, and the position among them of every label.

    The position of a label that no such row has is 0.
    """
    classes = np.unique(labels[rows])
    positions = np.searchsorted(classes, labels)
    known = np.isin(labels, classes)
    return classes, np.where(known, positions, 0)


def top_k_hits(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Returns (n,) bool, whether the label has one of the k largest scores.

    Args:
        scores: (n, c).
        labels: (n,) classes.
        k: number of guesses; if there are fewer classes, all of them are guessed. Of equal scores
            the first counts as larger; a class with the score -inf is never guessed.
    """
    guesses = np.argsort(-scores, 1, kind="stable")[:, :k]  # (n, k)
    possible = np.take_along_axis(scores, guesses, 1) > -np.inf
    return np.any((guesses == labels[:, np.newaxis]) & possible, 1)
