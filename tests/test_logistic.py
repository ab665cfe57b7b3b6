"""Logistic regression: both solvers against the objective in float64, and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special
from sklearn import datasets, linear_model, preprocessing
import threadpoolctl

from simclr_tf.evaluation import logistic

SOLVERS = [logistic.NumPy, logistic.TensorFlow]


def _data(classes, n=300, width=7, seed=0):
    """Features with an offset and a scale of their own each, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = rng.normal(size=(classes, width))
    features = centres[labels] + rng.normal(size=(n, width))
    features = features * rng.uniform(0.1, 5, width) + rng.uniform(-3, 3, width)
    return features.astype(np.float32), labels


def _fit(kind, features, labels, strength, *, rows=None, start=None, iterations=300):
    rows = np.arange(len(labels)) if rows is None else rows
    solver = kind(logistic.Features.of(features), labels, rows)
    return solver.fit(strength, start, iterations)


def _objective(flat, features, labels, strength):
    """The penalised loss of one row of weights for each class, in float64, as it is defined."""
    classes = labels.max() + 1
    parameters = flat.reshape(classes, -1)
    logits = features @ parameters[:, :-1].T + parameters[:, -1]
    loss = np.sum(special.logsumexp(logits, 1) - logits[np.arange(len(labels)), labels])
    return strength * loss + np.sum(parameters[:, :-1] ** 2) / 2


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize("strength", [1e-3, 0.1, 10])
def test_the_solution_minimises_the_objective(kind, strength):
    features, labels = _data(4)
    found = _fit(kind, features, labels, strength)
    standardised = preprocessing.StandardScaler().fit_transform(features.astype(np.float64))
    best = optimize.minimize(
        _objective, np.zeros(4 * 8), (standardised, labels, strength), tol=1e-9
    )
    flat = np.column_stack([found.weights, found.biases]).astype(np.float64).ravel()
    reached = _objective(flat, standardised, labels, strength)
    assert reached == pytest.approx(best.fun, rel=1e-4)
    np.testing.assert_allclose(found.weights, best.x.reshape(4, -1)[:, :-1], atol=0.03)
    assert found.converged


@pytest.mark.parametrize("kind", SOLVERS)
def test_the_probabilities_of_two_classes_are_those_of_scikit_learn(kind):
    features, labels = _data(2)
    scaler = preprocessing.StandardScaler().fit(features)
    reference = linear_model.LogisticRegression(C=0.05).fit(scaler.transform(features), labels)
    found = _fit(kind, features, labels, 0.05)
    logits = scaler.transform(features) @ found.weights.T + found.biases
    want = reference.predict_proba(scaler.transform(features))
    np.testing.assert_allclose(special.softmax(logits, 1), want, atol=1e-3)


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_fit_that_starts_at_a_solution_ends_there(kind, classes):
    features, labels = _data(classes)
    solution = _fit(kind, features, labels, 0.1)
    again = _fit(kind, features, labels, 0.1, start=solution, iterations=1)
    one, other = (
        special.softmax(features @ (x.weights / features.std(0)).T, 1) for x in (solution, again)
    )
    np.testing.assert_allclose(one, other, atol=1e-2)


@pytest.mark.parametrize("kind", SOLVERS)
def test_only_the_given_rows_are_fitted(kind):
    features, labels = _data(3)
    rows = np.arange(0, 300, 2)
    data = logistic.Features.of(features)
    some = logistic.Features(features[rows], data.scaling)
    want = kind(some, labels[rows], np.arange(150)).fit(0.1, None, 300)
    spoiled = labels.copy()
    spoiled[1::2] = 0
    found = kind(data, spoiled, rows).fit(0.1, None, 300)
    np.testing.assert_allclose(found.weights, want.weights, atol=2e-3)


@pytest.mark.parametrize("kind", SOLVERS)
def test_a_fit_that_is_cut_off_has_not_converged(kind):
    features, labels = _data(4)
    assert not _fit(kind, features, labels, 10, iterations=2).converged


def test_blocks_and_devices_do_not_change_the_loss_and_its_gradient(monkeypatch):
    features, labels = _data(5)
    data, rows = logistic.Features.of(features), np.arange(300)
    parameters = np.random.default_rng(1).normal(size=(5, 8))
    one = logistic.TensorFlow(data, labels, rows)
    whole = one.objective(parameters, 0.2)
    assert data.moments.shape == (7, 7)  # Before the blocks are smaller.
    monkeypatch.setattr(logistic, "_ROWS_AT_ONCE", 77)
    blocks = logistic.TensorFlow(data, labels, rows, ["/cpu:0", "/device:CPU:0"])
    loss, gradient = blocks.objective(parameters, 0.2)
    monkeypatch.setattr(logistic, "_MOST_KEPT", 300 * 7 * 4 - 1)
    not_kept = logistic.TensorFlow(data, labels, rows)
    assert [len(blocks._kept), len(not_kept._kept)] == [4, 0]
    for other_loss, other_gradient in ((loss, gradient), not_kept.objective(parameters, 0.2)):
        assert other_loss == pytest.approx(whole[0], rel=1e-6)
        np.testing.assert_allclose(other_gradient, whole[1], atol=1e-6)
    np.testing.assert_allclose(logistic.Features.of(features).moments, data.moments, atol=1e-6)


@pytest.mark.parametrize("kind", SOLVERS)
def test_loss_gradient_and_moments_are_those_of_their_definitions(kind):
    features, labels = _data(3, n=40, width=4)
    standardised = preprocessing.StandardScaler().fit_transform(features.astype(np.float64))
    parameters = np.random.default_rng(1).normal(size=(3, 5))
    data = logistic.Features.of(features)
    solver = kind(data, labels, np.arange(40))
    # The penalty of the mean loss is the inverse of strength * n.
    loss, gradient = solver.objective(parameters, 1 / (0.5 * 40))

    def mean(flat):
        return _objective(flat, standardised, labels, 0.5) / (0.5 * 40)

    assert loss == pytest.approx(mean(parameters.ravel()), rel=1e-5)
    want = optimize.approx_fprime(parameters.ravel(), mean, 1e-6)
    np.testing.assert_allclose(gradient.ravel(), want, atol=1e-4)
    np.testing.assert_allclose(data.moments, standardised.T @ standardised / 40, atol=1e-5)


@pytest.mark.parametrize("kind", SOLVERS)
def test_features_that_are_almost_the_same_need_no_more_iterations(kind):
    # As neighbouring pixels are. Without other coordinates it takes more than 100.
    features, labels = _data(4, n=400)
    noise = np.random.default_rng(1).normal(size=(400, 40))
    features = np.repeat(features / features.std(0), 6, axis=1)[:, :40] + 0.02 * noise
    features = features.astype(np.float32)
    found = _fit(kind, features, labels, 10.0, iterations=40)
    assert found.converged
    standardised = preprocessing.StandardScaler().fit_transform(features.astype(np.float64))
    reference = linear_model.LogisticRegression(C=10.0, tol=1e-8, max_iter=10_000)
    reference.fit(standardised, labels)
    best = np.column_stack([reference.coef_, reference.intercept_]).ravel()
    flat = np.column_stack([found.weights, found.biases]).astype(np.float64).ravel()
    reached = _objective(flat, standardised, labels, 10.0)
    assert reached == pytest.approx(_objective(best, standardised, labels, 10.0), rel=1e-3)


@pytest.mark.parametrize("kind", SOLVERS)
def test_equal_and_constant_features_are_fitted(kind):
    features, labels = _data(3)
    features = np.column_stack([features, features, np.ones(300, np.float32)])
    found = _fit(kind, features, labels, 1e6)
    assert found.converged
    assert np.all(np.isfinite(found.weights))


@pytest.mark.parametrize("kind", SOLVERS)
def test_fewer_images_than_features_are_fitted(kind):
    features, labels = _data(3, n=12, width=40)
    found = _fit(kind, features, labels, 0.1)
    standardised = preprocessing.StandardScaler().fit_transform(features.astype(np.float64))
    reference = linear_model.LogisticRegression(C=0.1, tol=1e-8).fit(standardised, labels)
    np.testing.assert_allclose(found.weights, reference.coef_, atol=2e-3)


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize("constant", [255.0, 1e5])
def test_a_large_constant_feature_changes_nothing(kind, constant):
    features, labels = _data(3, n=400)
    with_constant = np.column_stack([features, np.full(400, constant, np.float32)])
    want = _fit(kind, features, labels, 1e3)
    found = _fit(kind, with_constant, labels, 1e3)
    assert found.converged
    np.testing.assert_allclose(found.weights[:, :-1], want.weights, atol=0.02)
    np.testing.assert_allclose(found.weights[:, -1], 0, atol=1e-4)


@pytest.mark.parametrize("kind", SOLVERS)
def test_classes_that_can_be_separated_are_fitted_to_a_small_loss(kind):
    # With a weak penalty the loss is below 1e-4, and with it every entry of the gradient.
    images = datasets.load_digits()
    rng = np.random.default_rng(0)
    features = np.maximum(images.data @ rng.normal(size=(64, 256)), 0).astype(np.float32)
    labels, rows = images.target, rng.permutation(len(images.target))[:300]
    data, start = logistic.Features.of(features), None
    solver = kind(data, labels, rows)
    for strength in (10.0, 1e3, 1e5):
        start = solver.fit(strength, start, 100)
        logits = data.scaling.apply(features) @ start.weights.T + start.biases
        right = np.argmax(logits, 1) == labels
        assert np.mean(np.delete(right, rows)) > 0.92, strength


@pytest.mark.parametrize("kind", SOLVERS)
def test_features_that_only_held_out_images_have_are_left_alone(kind):
    # Among the fitted rows they are constant, as the bias is.
    features, labels = _data(3, n=600, width=10)
    rare = np.zeros((600, 40), np.float32)
    rare[np.arange(40), np.arange(40)] = 1
    data, rows = logistic.Features.of(np.column_stack([features, rare])), np.arange(40, 600)
    found = kind(data, labels, rows).fit(1e3, None, 300)
    want = kind(logistic.Features.of(features), labels, rows).fit(1e3, None, 300)
    logits = data.scaling.apply(data.values) @ found.weights.T + found.biases
    alone = logistic.Scaling.of(features).apply(features) @ want.weights.T + want.biases
    assert np.mean(np.argmax(logits, 1) == np.argmax(alone, 1)) > 0.97


@pytest.mark.parametrize("kind", SOLVERS)
def test_a_single_class_has_weights_of_zero(kind):
    features, labels = _data(1)
    found = _fit(kind, features, labels, 1.0)
    assert found.converged
    assert not np.any(found.weights) and not np.any(found.biases)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_features_that_are_not_finite_or_too_large_are_refused(value):
    features, labels = _data(3)
    features[:200, 2], features[200, 2] = -value, value
    with pytest.raises(ValueError, match="too large"):
        logistic.solver(logistic.Features.of(features), labels).fit(1.0, None, 100)


def test_a_feature_that_hardly_differs_from_zero_is_constant():
    features = np.zeros((50, 2), np.float32)
    features[3] = 1e-45, 1e-40
    np.testing.assert_array_equal(logistic.Scaling.of(features).scale, [1, 1])


def test_scaling_is_that_of_scikit_learn_with_constant_features_left_as_they_are():
    features = _data(3)[0]
    features[:, 2] = 0.1
    found, want = logistic.Scaling.of(features), preprocessing.StandardScaler().fit(features)
    np.testing.assert_allclose(found.mean, want.mean_, rtol=1e-5)
    np.testing.assert_allclose(np.delete(found.scale, 2), np.delete(want.scale_, 2), rtol=1e-5)
    assert found.scale[2] == 1


def test_large_data_is_fitted_by_tensorflow(monkeypatch):
    features, labels = _data(3)
    data = logistic.Features.of(features)
    assert isinstance(logistic.solver(data, labels), logistic.NumPy)
    monkeypatch.setattr(logistic, "LARGE", 300 * 7 * 3)
    assert isinstance(logistic.solver(data, labels), logistic.TensorFlow)


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize(("limit", "threads"), [(8, 1), (7, 2)])
def test_few_features_are_fitted_by_one_thread(monkeypatch, kind, limit, threads):
    """Threads of a small product wait for each other longer than they compute."""
    objective, seen = kind.objective, []

    def counted(*arguments):
        seen.extend(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
        return objective(*arguments)

    features, labels = _data(3)
    monkeypatch.setattr(logistic, "_SEVERAL_THREADS", limit)
    monkeypatch.setattr(kind, "objective", counted)
    with threadpoolctl.threadpool_limits(2):
        _fit(kind, features, labels, 1.0)
    assert max(seen) == threads
