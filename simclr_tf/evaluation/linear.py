"""Linear evaluation: how well a straight line through frozen features tells classes apart."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
from sklearn import exceptions, linear_model, model_selection, preprocessing

# Inverse l2 strengths to choose from, strong to weak.
STRENGTHS = tuple(float(f"{value:.3g}") for value in np.logspace(-4, 1, 6))
_HELD_OUT = 0.2
_MAX_ITERATIONS = 300
_PATH_ITERATIONS = 100


@dataclasses.dataclass(frozen=True)
class LinearScore:
    """What a linear evaluation found.

    Attributes:
        top_1_accuracy: share of evaluation examples whose class came first, in [0, 1].
        top_5_accuracy: share whose class was among the first five.
        strength: the chosen inverse l2 strength.
        converged: whether the last fit stopped because it was done.
    """

    top_1_accuracy: float
    top_5_accuracy: float
    strength: float
    converged: bool


def linear_evaluation(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    *,
    seed: int,
) -> LinearScore:
    """Multinomial logistic regression by L-BFGS (SimCLR, appendix B.8), on standardised features.

    The l2 strength is chosen on a fifth of the training features, drawn by class, then the
    classifier is fitted again on all of them. The test features are looked at once.

    Args:
        train: (n, f) features to learn from.
        train_labels: (n,) their classes.
        test: (m, f) features to judge by.
        test_labels: (m,) their classes.
        seed: of the held-out part.

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
    # From strong to weak, each fit starting where the one before ended, which is near. On a tie
    # the stronger regularisation wins, because it comes first.
    classifier = linear_model.LogisticRegression(max_iter=_PATH_ITERATIONS, warm_start=True)
    shares: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)  # A good start is enough.
        for strength in STRENGTHS:
            classifier.set_params(C=strength).fit(fit_x, fit_y)
            shares.append(float(np.mean(classifier.predict(held_x) == held_y)))
            if _past_the_best(shares, len(held_y)):
                break
    return STRENGTHS[int(np.argmax(shares))]


def _past_the_best(shares: list[float], count: int) -> bool:
    """Whether the last two of the accuracies on `count` examples are clearly below the best.

    Weaker regularisation only overfits more from there, and its fits are the slow ones.
    """
    error = 0.5 / np.sqrt(count)  # At most, of a share.
    return len(shares) > 2 and max(shares[-2:]) < max(shares) - error


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
    """Returns the share of rows whose label is among the k largest scores.

    Args:
        scores: (n, c).
        labels: (n,) classes.
        k: how many guesses; with fewer classes than that every known class is guessed.
        classes: (c,) the class of each column; None means 0 to c - 1.
    """
    guesses = np.argsort(-scores, 1, kind="stable")[:, :k]  # (n, k)
    if classes is not None:
        guesses = classes[guesses]
    return float(np.mean(np.any(guesses == labels[:, np.newaxis], 1)))
