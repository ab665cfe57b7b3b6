"""How well scores rank the images of each class: against scikit-learn, and by hand."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from sklearn import metrics

from simclr_tf.evaluation import class_ranking, knn

RNG = np.random.default_rng(0)
LABELS = RNG.choice([1, 0, -1], (60, 3), p=[0.3, 0.6, 0.1])
SCORES = np.round(RNG.normal(size=LABELS.shape) + LABELS, 1)  # With ties.


def _sklearn(function, weights=None):
    found = []
    for column in range(LABELS.shape[1]):
        rows = LABELS[:, column] >= 0
        given = None if weights is None else weights[rows]
        found.append(function(LABELS[rows, column], SCORES[rows, column], sample_weight=given))
    return np.array(found)


def test_values_and_resamples_are_those_of_scikit_learn():
    found = class_ranking.rank(SCORES, LABELS, seed=3)
    weights = next(class_ranking._weights(60, None, 3))[:, 7]
    for ranking, function in (
        (found.average_precision, metrics.average_precision_score),
        (found.roc_auc, metrics.roc_auc_score),
    ):
        np.testing.assert_allclose(ranking.values, _sklearn(function))
        np.testing.assert_allclose(ranking.draws[7], _sklearn(function, weights))
        mean = ranking.mean()
        assert mean.value == pytest.approx(ranking.values.mean())
        means, normal = ranking.draws.mean(1), statistics.NormalDist()
        shift = 2 * normal.inv_cdf(float(np.mean(means < mean.value)))
        levels = [normal.cdf(shift + normal.inv_cdf(level)) for level in (0.025, 0.975)]
        np.testing.assert_allclose(mean[1:], np.quantile(means, levels))
        low, high = ranking.of_class(1)[1:]
        assert low < ranking.values[1] < high


def test_intervals_do_not_lean_upwards_as_average_precisions_of_resamples_do():
    precision = class_ranking.rank(SCORES, LABELS, seed=3).average_precision
    leaning = np.percentile(precision.draws.mean(1), [2.5, 97.5])
    mean = precision.mean()
    assert mean.low < leaning[0] and mean.high < leaning[1]
    always = class_ranking.rank(LABELS.astype(float), LABELS, seed=3)
    assert always.average_precision.mean() == (1, 1, 1) == always.roc_auc.mean()


def test_a_class_that_no_image_shows_or_all_do_has_no_number():
    labels = LABELS.copy()
    labels[:, 0], labels[:, 1] = 0, 1
    found = class_ranking.rank(SCORES, labels, seed=0)
    assert np.isnan(found.average_precision.values).tolist() == [True, False, False]
    assert np.isnan(found.roc_auc.values).tolist() == [True, True, False]
    assert found.roc_auc.mean().value == found.roc_auc.values[2]
    assert np.isnan(found.roc_auc.of_class(0)).all()
    nothing = class_ranking.rank(SCORES, np.full_like(labels, -1), seed=0)
    assert np.isnan(nothing.average_precision.mean()).all()


def test_a_bootstrap_over_groups_draws_whole_groups():
    groups = np.arange(60) // 20
    for weights in class_ranking._weights(60, groups, 0):
        by_group = weights.reshape(3, 20, -1)
        assert np.all(by_group == by_group[:, :1]) and np.all(by_group[:, 0].sum(0) == 3)
    wide = class_ranking.rank(SCORES, LABELS, seed=0, groups=np.zeros(60, int)).roc_auc.mean()
    assert wide.low == pytest.approx(wide.high)  # One group is drawn as it is.


def test_nearest_neighbours_vote_for_every_class_that_they_show():
    train = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], np.float32)
    labels = np.array([[1, 1], [1, -1], [0, 0]])
    votes = knn.label_votes(train, labels, np.array([[1.0, 1.0]], np.float32), [1, 2, 3])
    np.testing.assert_array_equal(votes[2], [[1.0, 1.0]])
    share = 1 / (2 + np.exp(-np.sqrt(2) / 0.1))
    np.testing.assert_allclose(votes[3], [[2 * share, 1.0]], rtol=1e-5)
