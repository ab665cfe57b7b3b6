"""Linear evaluation: accuracy of a linear classifier on frozen features."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import warnings

import numpy as np
from sklearn import exceptions, linear_model, model_selection, preprocessing

# Inverse l2 strengths to choose from, from strong to weak regularisation.
STRENGTHS = tuple(float(f"{value:.3g}") for value in np.logspace(-4, 1, 6))
_HELD_OUT = 0.2
_MAX_ITERATIONS = 300
_PATH_ITERATIONS = 100


@dataclasses.dataclass(frozen=True)
class LinearScore:
    """Result of a linear evaluation.

    Attributes:
        top_1_accuracy: fraction of evaluation examples whose class has the largest score.
        top_5_accuracy: fraction whose class has one of the five largest scores.
        strength: the chosen inverse l2 strength.
        converged: whether the last fit converged before its iteration limit.
    """

    top_1_accuracy: float
    top_5_accuracy: float
    strength: float
    converged: bool


@contextlib.contextmanager
def _any_number_of_classes() -> Iterator[None]:
    """Ignores the guess of scikit-learn that labels of many classes are those of a regression."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        yield


@_any_number_of_classes()
def linear_evaluation(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    *,
    seed: int,
) -> LinearScore:
    """Fits multinomial logistic regression by L-BFGS (SimCLR, appendix B.8) and evaluates it.

    Features are standardised. The l2 strength is chosen on a stratified fifth of the training
    features, then the classifier is fitted on all of them. The test features are used once.

    Args:
        train: (n, f) features to fit.
        train_labels: (n,) their classes.
        test: (m, f) features to evaluate on.
        test_labels: (m,) their classes.
        seed: determines which training features are held out.

    Returns:
        The accuracies on `test`.
    """
    scaler = preprocessing.StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    strength = _choose_strength(train, train_labels, seed)
    classifier, converged = _fit(train, train_labels, strength)
    scores = classifier.decision_function(test)
    if scores.ndim == 1:  # Two classes have one score.
        scores = np.stack([-scores, scores], 1)
    return LinearScore(
        top_k_accuracy(scores, test_labels, 1, classes=classifier.classes_),
        top_k_accuracy(scores, test_labels, 5, classes=classifier.classes_),
        strength,
        converged,
    )


def _choose_strength(features: np.ndarray, labels: np.ndarray, seed: int) -> float:
    counts = np.unique(labels, return_counts=True)[1]
    held_out = round(_HELD_OUT * len(labels))
    by_class = labels if counts.min() >= 2 and held_out >= len(counts) else None
    fit_x, held_x, fit_y, held_y = model_selection.train_test_split(
        features, labels, test_size=_HELD_OUT, random_state=seed, stratify=by_class
    )
    if len(np.unique(fit_y)) < 2:
        return 1.0
    # From strong to weak regularisation; each fit starts from the previous solution, which is
    # close. On a tie the stronger regularisation is chosen, because it comes first.
    classifier = linear_model.LogisticRegression(max_iter=_PATH_ITERATIONS, warm_start=True)
    accuracies: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)  # The last fit reports it.
        for strength in STRENGTHS:
            classifier.set_params(C=strength).fit(fit_x, fit_y)
            accuracies.append(float(np.mean(classifier.predict(held_x) == held_y)))
            if _should_stop_early(accuracies, len(held_y)):
                break
    return STRENGTHS[int(np.argmax(accuracies))]


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


def top_k_accuracy(
    scores: np.ndarray, labels: np.ndarray, k: int, *, classes: np.ndarray | None = None
) -> float:
    """Returns the fraction of rows whose label has one of the k largest scores.

    Args:
        scores: (n, c).
        labels: (n,) classes.
        k: number of guesses; if there are fewer classes, all of them are guessed.
        classes: (c,) the class of each column; None means 0 to c - 1.
    """
    guesses = np.argsort(-scores, 1, kind="stable")[:, :k]  # (n, k)
    if classes is not None:
        guesses = classes[guesses]
    return float(np.mean(np.any(guesses == labels[:, np.newaxis], 1)))
