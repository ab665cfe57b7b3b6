"""Linear evaluations of a run: a logistic regression is fitted, and its accuracies are added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simclr_tf import console
from simclr_tf.data import indicators
from simclr_tf.evaluation import held_out, linear, one_vs_rest
from simclr_tf.runs import opening
from simclr_tf.scoring import groups as groups_lib
from simclr_tf.scoring import scores as scores_lib

# What each linear evaluation reads, by its name in result.json.
_INPUTS = {
    "linear_eval": "the features",
    "projection": "the projections",
    "baseline/raw_pixels": "raw pixels",
    "baseline/random_encoder": "the features of the untrained encoder",
    "baseline/random_encoder/zero_gammas": "the features of the untrained encoder",
    "baseline/random_encoder/unit_gammas": "the features of the untrained encoder with unit gammas",
}


def evaluate(
    run: opening.Run,
    name: str,
    train: np.ndarray,
    test: np.ndarray,
    labels: tuple[np.ndarray, np.ndarray],
    numbers: dict[str, Any],
    *,
    groups: groups_lib.OfSplits = groups_lib.NONE,
) -> tuple[linear.Fit | one_vs_rest.Fit, np.ndarray]:
    """Evaluates features (n, f) and (m, f) linearly, given the labels of both.

    Of images that may have several labels, a classifier of each class is fitted.

    Args:
        run: the run.
        name: the name in result.json, under which accuracies and strength are added to `numbers`.
        train: the features to fit.
        test: the features to evaluate on.
        labels: those of both.
        numbers: the numbers so far.
        groups: the groups of both.

    Returns:
        The fit, and the scores (m, c) of the evaluated features.
    """
    several, what = labels[0].ndim > 1, f"the linear classifier on {_INPUTS[name]}"
    strata = indicators.rarest(labels[0]) if several else labels[0]
    splits = groups.splits(strata, seed=run.config.seed, few=bool(run.data.draws))
    fit: linear.Fit | one_vs_rest.Fit
    if several:
        fit = fit_each_class(run, what, train, labels[0], split=splits[0] if splits else None)
    else:
        fit = fit_classifier(run, what, train, labels[0], splits=splits)
    scores = fit.scores(test)
    numbers.update(
        scores_lib.accuracies(f"{name}/", scores, labels[1], groups.evaluated, seed=run.config.seed)
    )
    numbers[f"{name}/l2_inverse_strength"] = fit.strength
    return fit, scores


def fit_classifier(
    run: opening.Run,
    what: str,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    splits: Sequence[held_out.Split] | None = None,
) -> linear.Fit:
    """Fits a linear classifier of the classes of the data, and shows the progress.

    Args:
        run: the run.
        what: what is fitted, for the progress and for warnings.
        features: (n, f).
        labels: (n,) their classes.
        splits: see `linear.fit`. By default, more of them if the data has few labels.
    """
    if splits is None and run.data.draws:
        splits = held_out.of_few(labels, seed=run.config.seed)
    assert run.data.source.class_names is not None
    with console.Progress(f"fits of {what}", linear.MOST_FITS) as progress:
        fit = linear.fit(
            features,
            labels,
            num_classes=len(run.data.source.class_names),
            seed=run.config.seed,
            splits=splits,
            progress=progress.update,
        )
    if not fit.converged:
        console.warn(f"{what.capitalize()} reached its iteration limit.")
    return fit


def fit_each_class(
    run: opening.Run,
    what: str,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    split: held_out.Split | None = None,
) -> one_vs_rest.Fit:
    """Fits a linear classifier of each class of images that may show several.

    Args:
        run: the run.
        what: what is fitted, for the progress and for warnings.
        features: (n, f).
        labels: (n, c), see `data.indicators`.
        split: see `one_vs_rest.fit`.
    """
    with console.Progress(f"fits of {what}", linear.MOST_FITS) as progress:
        fit = one_vs_rest.fit(
            features, labels, seed=run.config.seed, split=split, progress=progress.update
        )
    if not fit.converged:
        console.warn(f"{what.capitalize()} reached its iteration limit for some classes.")
    return fit
