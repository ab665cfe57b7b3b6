"""Linear evaluation: accuracies, the choice of the l2 strength, and top-k accuracy."""

import warnings

import numpy as np
import pytest
from sklearn import metrics

from simclr_tf.evaluation import linear


def _blobs(n, *, spread, classes=4, width=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n).astype(np.int32)
    features = np.eye(classes, width)[labels] + spread * rng.normal(size=(n, width))
    return features.astype(np.float32), labels


def test_separable_classes_are_classified_without_error():
    train, test = _blobs(200, spread=0.05), _blobs(100, spread=0.05, seed=1)
    score = linear.linear_evaluation(*train, *test, seed=0)
    assert score.top_1_accuracy == 1 and score.top_5_accuracy == 1 and score.converged


def test_is_at_chance_on_noise():
    train, test = _blobs(400, spread=100), _blobs(400, spread=100, seed=1)
    score = linear.linear_evaluation(*train, *test, seed=0)
    assert 0.15 < score.top_1_accuracy < 0.35


def test_scale_and_offset_of_features_do_not_matter():
    train, test = _blobs(200, spread=0.4), _blobs(200, spread=0.4, seed=1)
    scale = np.float32([1e-3, 1, 1e3, 1, 1, 1])
    plain = linear.linear_evaluation(*train, *test, seed=0)
    scaled = linear.linear_evaluation(
        train[0] * scale + 5, train[1], test[0] * scale + 5, test[1], seed=0
    )
    assert scaled.top_1_accuracy == pytest.approx(plain.top_1_accuracy, abs=0.011)


def test_chooses_weak_regularisation_for_fine_differences_and_strong_for_noise():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=400)
    # The classes differ by a small difference of two large features, which needs large weights.
    base = rng.normal(size=400)
    fine = np.stack([base, base + 0.05 * labels], 1)
    noise = labels[:80, None] * 0.3 + rng.normal(size=(80, 400))
    assert linear._choose_strength(fine, labels, 0) == max(linear.STRENGTHS)
    assert linear._choose_strength(noise, labels[:80], 0) <= 0.1


def test_the_strength_is_chosen_without_the_test_labels():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=400)
    base = rng.normal(size=400)
    fine = np.stack([base, base + 0.05 * labels], 1)
    # Among wrong labels the worst classifier scores best, which is that of the smallest strength.
    right, wrong = (
        linear.linear_evaluation(fine[:300], labels[:300], fine[300:], test_labels, seed=0)
        for test_labels in (labels[300:], 1 - labels[300:])
    )
    assert right.strength == wrong.strength == max(linear.STRENGTHS)
    assert right.top_1_accuracy == pytest.approx(1 - wrong.top_1_accuracy)


def test_an_outlier_in_the_test_set_does_not_change_the_other_predictions():
    train, test = _blobs(200, spread=0.4), _blobs(100, spread=0.4, seed=1)
    plain = linear.linear_evaluation(*train, *test, seed=0)
    outlier = np.full((1, 6), 1e6, np.float32)
    unknown = np.int32([9])  # No classifier knows this class, so the outlier is always an error.
    features, labels = np.concatenate([test[0], outlier]), np.concatenate([test[1], unknown])
    more = linear.linear_evaluation(train[0], train[1], features, labels, seed=0)
    assert plain.top_1_accuracy > 0.8
    assert more.top_1_accuracy * 101 == pytest.approx(plain.top_1_accuracy * 100)


def test_two_classes_and_classes_unseen_in_training_are_evaluated():
    train = _blobs(100, spread=0.05, classes=2)
    score = linear.linear_evaluation(*train, *_blobs(50, spread=0.05, classes=2, seed=1), seed=0)
    assert score.top_1_accuracy == 1
    test = _blobs(60, spread=0.05, classes=3, seed=1)
    score = linear.linear_evaluation(*train, *test, seed=0)
    assert score.top_1_accuracy == pytest.approx(np.mean(test[1] < 2))


def test_a_class_may_have_a_single_example():
    features, labels = _blobs(50, spread=0.05)
    labels[0] = 9
    linear.linear_evaluation(features, labels, features, labels, seed=0)


def test_classes_with_one_example_each_are_fitted_without_warnings():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(30, 6)).astype(np.float32), np.arange(30) % 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linear.linear_evaluation(features, labels, features, labels, seed=0)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_accuracy_equals_that_of_scikit_learn(k):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(50, 6)), rng.integers(6, size=50)
    want = metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(6))
    assert linear.top_k_accuracy(scores, labels, k) == pytest.approx(want)
