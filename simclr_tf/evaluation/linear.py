"""Linear evaluation: a linear classifier on frozen features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import warnings

import numpy as np
from sklearn import model_selection

from simclr_tf.evaluation import calibration, logistic

# l2 strengths to choose from (SimCLR, appendix B.8), as their inverses: from strong to weak.
STRENGTHS = tuple(float(f"{value:.3g}") for value in np.logspace(-5, 6, 45))
# The search first tries every eighth one, then halves the distance around the best.
_COARSE = 8
# Fits of the longest search, and the last one.
MOST_FITS = 13
_HELD_OUT = 0.2
_MAX_ITERATIONS = 300
_PATH_ITERATIONS = 100
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
            standardised = (features[block] - self.scaling.mean) / self.scaling.scale
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
    held_out: np.ndarray | None = None,
    progress: Callable[[int], None] = lambda fits: None,
) -> Fit:
    """Fits multinomial logistic regression by L-BFGS (SimCLR, appendix B.8).

    Features are standardised. The l2 strength is chosen on a stratified fifth of the features, then
    the classifier is fitted on all of them. Features that it will be evaluated on are not known
    here, so they can choose nothing.

    Args:
        features: (n, f) float32 features to fit.
        labels: (n,) their classes.
        num_classes: c.
        seed: determines which features are held out.
        held_out: (h,) positions of the features to choose on; None for a stratified fifth.
        progress: called with the number of fits so far, at most `MOST_FITS`.
    """
    scaling = logistic.Scaling.of(features)
    if held_out is None:
        rows, held = hold_out(labels, seed)
    else:
        rows, held = np.setdiff1d(np.arange(len(labels)), held_out), held_out
    strength, temperature, accuracy, start = 1.0, 1.0, float("nan"), None
    if len(np.unique(labels[rows])) > 1:
        path = _Path(features, labels, scaling, rows, held, num_classes, progress)
        best = path.search()
        strength, start, accuracy = STRENGTHS[best], path.classifier(best), path.accuracy(best)
        known = np.isin(labels[held], labels[rows])  # No temperature helps the others.
        if known.any():
            scores = start.scores(features[held[known]])
            temperature = calibration.fit_temperature(scores, labels[held[known]])
    classifier = _fit(features, labels, scaling, num_classes, strength, start)
    progress(MOST_FITS)
    return Fit(classifier, strength, temperature, classifier.solution.converged, accuracy)


def hold_out(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions of the rows to fit, and of a fifth to choose on, with all classes."""
    counts = np.unique(labels, return_counts=True)[1]
    held_out = round(_HELD_OUT * len(labels))
    by_class = labels if counts.min() >= 2 and held_out >= len(counts) else None
    with warnings.catch_warnings():
        # Labels of many classes are taken for those of a regression.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        rows, held = model_selection.train_test_split(
            np.arange(len(labels)), test_size=_HELD_OUT, random_state=seed, stratify=by_class
        )
    return rows, held


class _Path:
    """Classifiers of several strengths, each fitted once, scored on held-out features."""

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        scaling: logistic.Scaling,
        rows: np.ndarray,
        held: np.ndarray,
        num_classes: int,
        progress: Callable[[int], None] = lambda fits: None,
    ) -> None:
        self._classes, positions = _classes(labels, rows)
        self._solver = logistic.solver(features, positions, scaling, rows=rows)
        self._scaling, self._num_classes, self._progress = scaling, num_classes, progress
        self._held = features[held], labels[held]
        self._classifiers: dict[int, Classifier] = {}
        self._accuracies: dict[int, float] = {}

    def search(self) -> int:
        """Returns the position in `STRENGTHS` of the best one that the search finds."""
        best, step = self.best(range(0, len(STRENGTHS), _COARSE)), _COARSE
        while step > 1:
            step //= 2
            near = (best - step, best, best + step)
            best = self.best([position for position in near if 0 <= position < len(STRENGTHS)])
        return best

    def best(self, positions: Sequence[int]) -> int:
        """Returns the position in `STRENGTHS` of the most accurate one, on a tie the strongest.

        From strong to weak regularisation; each fit starts from the previous solution, which is
        close. Stops early where weaker regularisation is clearly worse.
        """
        tried: list[float] = []
        for position in positions:
            if position not in self._accuracies:
                self._try(position)
            tried.append(self._accuracies[position])
            if _should_stop_early(tried, len(self._held[1])):
                break
        return positions[int(np.argmax(tried))]

    def classifier(self, position: int) -> Classifier:
        """Returns the classifier of a strength that was tried."""
        return self._classifiers[position]

    def accuracy(self, position: int) -> float:
        """Returns its accuracy on the held-out features."""
        return self._accuracies[position]

    def _try(self, position: int) -> None:
        stronger = [other for other in self._classifiers if other < position]
        start = self._classifiers[max(stronger)].solution if stronger else None
        solution = self._solver.fit(STRENGTHS[position], start, _PATH_ITERATIONS)
        self._classifiers[position] = Classifier(
            self._scaling, solution, self._classes, self._num_classes
        )
        scores = self._classifiers[position].scores(self._held[0])
        hits = np.argmax(scores, 1) == self._held[1]
        self._accuracies[position] = float(np.mean(hits))
        self._progress(len(self._classifiers))


def _should_stop_early(accuracies: list[float], count: int) -> bool:
    """Returns whether the last two accuracies on `count` examples are clearly below the best.

    From there on, weaker regularisation overfits even more, and its fits are the slowest.
    """
    error = 0.5 / np.sqrt(count)  # Largest standard error of an accuracy.
    return len(accuracies) > 2 and max(accuracies[-2:]) < max(accuracies) - error


def _fit(
    features: np.ndarray,
    labels: np.ndarray,
    scaling: logistic.Scaling,
    num_classes: int,
    strength: float,
    start: Classifier | None = None,
) -> Classifier:
    """Fits all features, beginning with a classifier if it is of the same classes."""
    classes, positions = _classes(labels, np.arange(len(labels)))
    same = start is not None and np.array_equal(start.classes, classes)
    found = logistic.solver(features, positions, scaling).fit(
        strength, start.solution if same and start is not None else None, _MAX_ITERATIONS
    )
    return Classifier(scaling, found, classes, num_classes)


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
