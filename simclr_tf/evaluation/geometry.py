"""The geometry of the features: how they are spread over the sphere, and in how many directions."""

from __future__ import annotations

import numpy as np

from simclr_tf.evaluation import neighbours, outcome

# The most features whose pairs are compared.
_MOST_ROWS = 4000


def evaluate(inputs: outcome.Inputs) -> outcome.Outcome:
    """Measures the evaluation features; only the mean cosines read their labels.

    Uniformity and the cosines are of at most 4,000 features, drawn by the seed.
    """
    rows = np.arange(len(inputs.test_features))
    if len(rows) > _MOST_ROWS:
        rows = np.random.default_rng(inputs.seed).choice(rows, _MOST_ROWS, replace=False)
    unit = neighbours.unit_rows(inputs.test_features[rows])
    same, different = None, None
    if inputs.test_labels.ndim == 1:  # Images that may have several labels are of no one class.
        same, different = mean_cosines(unit, inputs.test_labels[rows])
    result = outcome.Outcome()
    for name, what, value in (
        ("effective_rank", "effective rank of the features", effective_rank(inputs.test_features)),
        ("uniformity", "uniformity", uniformity(unit)),
        ("cosine_within_class", "mean cosine within classes", same),
        ("cosine_between_classes", "mean cosine between classes", different),
    ):
        if value is not None:
            result.add_number(f"geometry/{name}", what, value, f"{value:.3g}")
    width = inputs.test_features.shape[1]
    name, shown = result.rows[0]
    result.rows[0] = (name, f"{shown} of {width}")
    return result


def effective_rank(features: np.ndarray) -> float:
    """Returns exp of the entropy of the normalised singular values of features (n, f).

    It is between 1, for a collapsed representation, and min(n, f) (Roy and Vetterli 2007; "RankMe"
    in Garrido et al. 2023). Features are not centred.
    """
    gram = features.astype(np.float64)
    gram = gram.T @ gram if gram.shape[0] >= gram.shape[1] else gram @ gram.T
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))
    total = singular.sum()
    if total == 0:
        return 0.0
    p = singular[singular > 0] / total
    return float(np.exp(-np.sum(p * np.log(p))))


def uniformity(unit: np.ndarray) -> float | None:
    """Returns log of the mean of exp(-2 d^2) over all pairs of rows (Wang and Isola 2020).

    Args:
        unit: (n, f) rows of length 1; d is the distance of two of them.

    Returns:
        0 if all rows are equal, about -4 if they are spread evenly; None for a single row.
    """
    if len(unit) < 2:
        return None
    exponents = np.exp(-2 * (2 - 2 * _pair_cosines(unit)))
    return float(np.log(np.mean(exponents)))


def mean_cosines(unit: np.ndarray, labels: np.ndarray) -> tuple[float | None, float | None]:
    """Returns the mean cosine of pairs of rows (n, f) of one class, and of different classes.

    Each is None if there is no such pair.
    """
    cosines = _pair_cosines(unit)
    i, j = np.triu_indices(len(unit), 1)
    same = labels[i] == labels[j]
    return (
        float(np.mean(cosines[same])) if same.any() else None,
        float(np.mean(cosines[~same])) if not same.all() else None,
    )


def _pair_cosines(unit: np.ndarray) -> np.ndarray:
    """Returns the cosines of all pairs of different rows, each pair once."""
    product = unit.astype(np.float64) @ unit.astype(np.float64).T
    return product[np.triu_indices(len(unit), 1)]
