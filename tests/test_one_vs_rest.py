"""Linear classifiers of images that may have several labels."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import linear_model, multiclass, preprocessing

from simclr_tf.evaluation import average_precision, held_out, linear, one_vs_rest


def drawn(n, *, classes=3, width=8, noise=1.0, seed=0):
    """Returns features, in which a class is seen with some noise, and labels."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, classes)) < 0.35).astype(np.int64)
    features = 3 + labels @ np.eye(classes, width) + noise * rng.normal(size=(n, width))
    return features.astype(np.float32), labels


def test_scores_are_those_of_scikit_learns_one_vs_rest():
    features, labels = drawn(150)
    test, _ = drawn(40, seed=1)
    fit = one_vs_rest.fit(features, labels, seed=0)
    scaler = preprocessing.StandardScaler().fit(features)
    classifier = multiclass.OneVsRestClassifier(
        linear_model.LogisticRegression(C=fit.strength, max_iter=1000, tol=1e-6)
    ).fit(scaler.transform(features), labels)
    want = classifier.decision_function(scaler.transform(test))
    assert fit.converged
    np.testing.assert_allclose(fit.scores(test), want, atol=0.02 * np.abs(want).max())


def test_an_image_that_counts_as_neither_is_not_fitted_for_that_class():
    features, labels = drawn(150)
    split = held_out.Split(np.arange(100), np.arange(100, 150))
    plain = one_vs_rest.fit(features, labels, seed=0, split=split)
    ignored = labels.copy()
    ignored[:30, 0] = -1
    found = one_vs_rest.fit(features, ignored, seed=0, split=split)
    scaled = (features[30:] - found.classifier.scaling.mean) / found.classifier.scaling.scale
    alone = linear_model.LogisticRegression(C=found.strength, max_iter=1000, tol=1e-6)
    alone.fit(scaled, labels[30:, 0])
    np.testing.assert_allclose(found.classifier.weights[0], alone.coef_[0], atol=0.01)
    assert np.abs(plain.classifier.weights[0] - alone.coef_[0]).max() > 0.03


def test_the_strength_is_about_the_best_of_all_by_the_average_precision_of_held_out_images():
    features, labels = drawn(420, width=60, noise=1.5)
    split = held_out.Split(np.arange(120), np.arange(120, 420))
    scaler = preprocessing.StandardScaler().fit(features)
    scaled, means = scaler.transform(features), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for strength in linear.STRENGTHS[::4]:
            classifier = multiclass.OneVsRestClassifier(
                linear_model.LogisticRegression(C=strength, max_iter=300)
            ).fit(scaled[:120], labels[:120])
            scores = classifier.decision_function(scaled[120:])
            means.append(np.mean(average_precision.eleven_point(scores, labels[120:])))
    fit = one_vs_rest.fit(features, labels, seed=0, split=split)
    assert max(means) > min(means) + 0.03  # It matters here.
    assert fit.held_out_precision >= max(means) - 0.01


def test_classes_that_cannot_be_held_out_do_not_choose():
    features, labels = drawn(100)
    split = held_out.Split(np.arange(60), np.arange(60, 100))
    labels[60:, 2] = 0
    fit = one_vs_rest.fit(features, labels, seed=0, split=split)
    of_two = one_vs_rest.fit(features, labels[:, :2], seed=0, split=split)
    assert fit.held_out_precision == pytest.approx(of_two.held_out_precision)
    assert fit.scores(features).shape == (100, 3)
    labels[60:] = 0
    fit = one_vs_rest.fit(features, labels, seed=0, split=split)
    assert fit.strength == 1 and np.isnan(fit.held_out_precision)


def test_a_fifth_is_held_out_of_the_images_of_a_rare_class():
    labels = np.zeros((200, 3), np.int64)
    labels[:100, 0] = 1
    labels[95:115, 1] = 1  # Rarer, and on five of the same images.
    split = one_vs_rest.fifth(labels, seed=0)
    assert len(split.held) == 40 and np.sum(labels[split.held, 1]) == 4
    assert sorted([*split.fit, *split.held]) == list(range(200))
