"""Linear evaluation: a linear classifier on frozen features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import warnings

import numpy as np
from sklearn import exceptions, linear_model, model_selection, preprocessing

from simclr_tf.evaluation import calibration

# l2 strengths to choose from (SimCLR, appendix B.8), as their inverses: from strong to weak.
STRENGTHS = tuple(float(f"{value:.3g}") for value in np.logspace(-5, 6, 45))
# The search first tries every eighth one, then halves the distance around the best.
_COARSE = 8
_HELD_OUT = 0.2
_MAX_ITERATIONS = 300
_PATH_ITERATIONS = 100


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted classifier, applied to features that it was not fitted to.

    Attributes:
        scores: (m, c) float32, unnormalised log probabilities of the classes; -inf for classes
            that the training features lack.
        strength: the chosen inverse l2 strength.
        temperature: divides the scores so that they are calibrated on the held-out features.
        converged: whether the last fit converged before its iteration limit.
    """

    scores: np.ndarray
    strength: float
    temperature: float
    converged: bool


@contextlib.contextmanager
def _any_number_of_classes() -> Iterator[None]:
    """Ignores the guess of scikit-learn that labels of many classes are those of a regression."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        yield


@_any_number_of_classes()
def fit(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, *, num_classes: int, seed: int
) -> Fit:
    """Fits multinomial logistic regression by L-BFGS (SimCLR, appendix B.8), and applies it.

    Features are standardised. The l2 strength is chosen on a stratified fifth of the training
    features, then the classifier is fitted on all of them. Labels of the evaluated features are
    not known here, so they can choose nothing.

    Args:
        train: (n, f) features to fit.
        labels: (n,) their classes.
        test: (m, f) features to apply the classifier to.
        num_classes: c.
        seed: determines which training features are held out.
    """
    scaler = preprocessing.StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    strength, temperature = _choose(train, labels, num_classes, seed)
    classifier, converged = _fit(train, labels, strength)
    return Fit(_scores(classifier, test, num_classes), strength, temperature, converged)


def _choose(
    features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int
) -> tuple[float, float]:
    """Returns the strength that is best on held-out features, and the temperature for it."""
    counts = np.unique(labels, return_counts=True)[1]
    held_out = round(_HELD_OUT * len(labels))
    by_class = labels if counts.min() >= 2 and held_out >= len(counts) else None
    fit_x, held_x, fit_y, held_y = model_selection.train_test_split(
        features, labels, test_size=_HELD_OUT, random_state=seed, stratify=by_class
    )
    if len(np.unique(fit_y)) < 2:
        return 1.0, 1.0
    path = _Path(fit_x, fit_y, held_x, held_y)
    best = path.search()
    known = np.isin(held_y, fit_y)  # No temperature helps the others.
    if not known.any():
        return STRENGTHS[best], 1.0
    scores = path.scores(best, num_classes)
    return STRENGTHS[best], calibration.fit_temperature(scores[known], held_y[known])


class _Path:
    """Classifiers of several strengths, each fitted once, scored on held-out features."""

    def __init__(
        self, fit_x: np.ndarray, fit_y: np.ndarray, held_x: np.ndarray, held_y: np.ndarray
    ) -> None:
        self._fit, self._held = (fit_x, fit_y), (held_x, held_y)
        self._classifiers: dict[int, linear_model.LogisticRegression] = {}
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

    def scores(self, position: int, num_classes: int) -> np.ndarray:
        """Returns the scores of the held-out features by the classifier of one strength."""
        return _scores(self._classifiers[position], self._held[0], num_classes)

    def _try(self, position: int) -> None:
        classifier = linear_model.LogisticRegression(
            C=STRENGTHS[position], max_iter=_PATH_ITERATIONS, warm_start=True
        )
        stronger = [other for other in self._classifiers if other < position]
        if stronger:  # A warm start continues from what the attributes hold.
            start = self._classifiers[max(stronger)]
            classifier.coef_, classifier.intercept_ = start.coef_, start.intercept_
            classifier.classes_ = start.classes_
        with warnings.catch_warnings():  # The last fit reports it.
            warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
            classifier.fit(*self._fit)
        self._classifiers[position] = classifier
        held_x, held_y = self._held
        self._accuracies[position] = float(np.mean(classifier.predict(held_x) == held_y))


def _should_stop_early(accuracies: list[float], count: int) -> bool:
    """Returns whether the last two accuracies on `count` examples are clearly below the best.

    From there on, weaker regularisation overfits even more, and its fits are the slowest.
    """
    error = 0.5 / np.sqrt(count)  # Largest standard error of an accuracy.
    return len(accuracies) > 2 and max(accuracies[-2:]) < max(accuracies) - error


def _fit(
    features: np.ndarray, labels: np.ndarray, strength: float
) -> tuple[linear_model.LogisticRegression, bool]:
    classifier = linear_model.LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", exceptions.ConvergenceWarning)
        classifier.fit(features, labels)
    return classifier, not any(
        issubclass(w.category, exceptions.ConvergenceWarning) for w in caught
    )


def _scores(
    classifier: linear_model.LogisticRegression, features: np.ndarray, num_classes: int
) -> np.ndarray:
    """Returns the scores (n, c) of all classes, -inf for those that the classifier lacks."""
    scores = classifier.decision_function(features)
    if scores.ndim == 1:  # Two classes have one score, the difference of theirs.
        scores = np.stack([np.zeros_like(scores), scores], 1)
    full = np.full((len(features), num_classes), -np.inf, np.float32)
    full[:, classifier.classes_] = scores
    return full


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
