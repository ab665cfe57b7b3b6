"""Linear evaluation: its classifier, the choice of the l2 strength, and top-k accuracy."""

import warnings

import numpy as np
import pytest
from scipy import special
from sklearn import linear_model, metrics, preprocessing

from simclr_tf.evaluation import calibration, held_out, linear, logistic


def _blobs(n, *, spread, classes=4, width=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n).astype(np.int32)
    features = np.eye(classes, width)[labels] + spread * rng.normal(size=(n, width))
    return features.astype(np.float32), labels


def _evaluate(train, test, *, num_classes=4, seed=0):
    """Returns the top-1 and top-5 accuracy, the scores, and the fit."""
    fit = linear.fit(train[0], train[1], num_classes=num_classes, seed=seed)
    scores = fit.scores(test[0])
    return *(np.mean(linear.top_k_hits(scores, test[1], k)) for k in (1, 5)), scores, fit


def _path(train, held, scaling):
    """Returns a search on `train` that is scored on `held`."""
    features, labels = (np.concatenate(pair) for pair in zip(train, held))
    rows = np.arange(len(labels))
    count = len(train[1])
    data = logistic.Features(features, scaling)
    return linear._Path(data, labels, [held_out.Split(rows[:count], rows[count:])], 4)


def test_separable_classes_are_classified_without_error():
    top_1, top_5, _, fit = _evaluate(_blobs(200, spread=0.05), _blobs(100, spread=0.05, seed=1))
    assert top_1 == 1 and top_5 == 1 and fit.converged


def test_is_at_chance_on_noise():
    top_1, *_ = _evaluate(_blobs(400, spread=100), _blobs(400, spread=100, seed=1))
    assert 0.15 < top_1 < 0.35


def test_scale_and_offset_of_features_do_not_matter():
    train, test = _blobs(200, spread=0.4), _blobs(200, spread=0.4, seed=1)
    scale = np.float32([1e-3, 1, 1e3, 1, 1, 1])
    plain, *_ = _evaluate(train, test)
    scaled, *_ = _evaluate((train[0] * scale + 5, train[1]), (test[0] * scale + 5, test[1]))
    assert scaled == pytest.approx(plain, abs=0.011)


def test_chooses_weak_regularisation_for_fine_differences_and_strong_for_noise():
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 2
    # The classes differ by a small difference of two large features, which needs large weights.
    base = rng.normal(size=600)
    fine = np.stack([base, base + 0.05 * labels], 1).astype(np.float32)
    weak = 0.2 * labels[:, np.newaxis] * (np.arange(100) < 20)
    noise = (weak + rng.normal(size=(600, 100))).astype(np.float32)
    assert linear.fit(fine, labels, num_classes=2, seed=0).strength >= 10
    assert linear.fit(noise, labels, num_classes=2, seed=0).strength <= 0.01


def test_the_search_finds_the_best_of_all_strengths_where_there_is_one():
    """Every strength is tried by itself, without a warm start and without stopping early."""
    train, held = _blobs(120, spread=1.2, width=60), _blobs(400, spread=1.2, width=60, seed=1)
    scaling = logistic.Scaling(np.zeros(60, np.float32), np.ones(60, np.float32))
    accuracies = [
        linear_model.LogisticRegression(C=strength, max_iter=300).fit(*train).score(*held)
        for strength in linear.STRENGTHS
    ]
    best = _path(train, held, scaling).search()
    assert accuracies[best] >= max(accuracies) - 0.01
    assert accuracies[best] > min(accuracies) + 0.03  # It matters here.


@pytest.mark.parametrize("best", [0, 13, 40, 44])
def test_the_search_finds_a_maximum_without_trying_all_strengths(best):
    tried = []

    def score(position):
        tried.append(position)
        return -abs(position - best) / 1000

    assert linear.Search(score, error=0.05).run() == best
    assert len(tried) == len(set(tried)) <= 12


def test_the_temperature_calibrates_what_was_not_fitted():
    train = _blobs(1000, spread=1.5, width=100)
    test = _blobs(2000, spread=1.5, width=100, seed=1)
    *_, scores, fit = _evaluate(train, test)
    best = calibration.fit_temperature(scores, test[1])
    assert fit.temperature == pytest.approx(best, rel=0.35)
    assert abs(np.log(best)) > 0.1  # The scores themselves are not calibrated.


def test_an_outlier_in_the_test_set_does_not_change_the_other_predictions():
    train, test = _blobs(200, spread=0.4), _blobs(100, spread=0.4, seed=1)
    _, _, plain, _ = _evaluate(train, test)
    outlier = np.full((1, 6), 1e6, np.float32)
    _, _, more, _ = _evaluate(train, (np.concatenate([test[0], outlier]), np.append(test[1], 0)))
    np.testing.assert_array_equal(more[:-1], plain)


def test_two_classes_and_classes_unseen_in_training_are_evaluated():
    train = _blobs(100, spread=0.05, classes=2)
    test = _blobs(50, spread=0.05, classes=2, seed=1)
    assert _evaluate(train, test, num_classes=2)[0] == 1
    test = _blobs(60, spread=0.05, classes=3, seed=1)
    top_1, top_5, scores, _ = _evaluate(train, test, num_classes=3)
    assert top_1 == pytest.approx(np.mean(test[1] < 2)) == top_5
    assert (scores[:, 2] == -np.inf).all()


def test_the_scores_of_two_classes_are_the_log_odds():
    train, test = _blobs(100, spread=1, classes=2), _blobs(50, spread=1, classes=2, seed=1)
    *_, scores, fit = _evaluate(train, test, num_classes=2)
    scaler = preprocessing.StandardScaler().fit(train[0])
    reference = linear_model.LogisticRegression(C=fit.strength, max_iter=300)
    reference.fit(scaler.transform(train[0]), train[1])
    np.testing.assert_allclose(
        special.softmax(scores, 1),
        reference.predict_proba(scaler.transform(test[0])),
        atol=1e-3,
    )


def test_a_class_may_have_a_single_example():
    features, labels = _blobs(50, spread=0.05)
    labels[0] = 9
    linear.fit(features, labels, num_classes=10, seed=0)


def test_classes_with_one_example_each_are_fitted_without_warnings():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(30, 6)).astype(np.float32), np.arange(30) % 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linear.fit(features, labels, num_classes=20, seed=0)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_hits_are_those_of_scikit_learn(k):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(50, 6)), rng.integers(6, size=50)
    want = metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(6))
    assert np.mean(linear.top_k_hits(scores, labels, k)) == pytest.approx(want)


def test_tensorflow_fits_the_same_classifier_where_classes_are_missing(monkeypatch):
    features, labels = _blobs(300, spread=0.5)
    labels = np.int32([1, 4, 7, 9])[labels]
    want = linear.fit(features, labels, num_classes=10, seed=0)
    monkeypatch.setattr(logistic, "LARGE", 0)
    found = linear.fit(features, labels, num_classes=10, seed=0)
    assert found.strength == want.strength
    one, other = (special.softmax(fit.scores(features), 1) for fit in (found, want))
    np.testing.assert_allclose(one, other, atol=2e-3)


def test_the_strength_is_chosen_on_the_features_that_are_named():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    train = (np.eye(3)[labels] + rng.normal(size=(60, 3))).astype(np.float32)
    fitted = linear.fit(train, labels, num_classes=3, seed=0)
    split = held_out.stratified_fifth(labels, seed=0)
    held = split.held
    again = linear.fit(train, labels, num_classes=3, seed=1, splits=[split])
    assert (again.strength, again.temperature) == (fitted.strength, fitted.temperature)
    # With the labels of other classes, what was fitted to the rest is worse on them.
    wrong = labels.copy()
    wrong[held] = (labels[held] + 1) % 3
    other = linear.fit(train, wrong, num_classes=3, seed=1, splits=[split])
    assert other.held_out_accuracy < again.held_out_accuracy
