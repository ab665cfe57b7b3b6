"""Logistic regression: both solvers against the objective in float64, and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special
from sklearn import linear_model, preprocessing
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
    solver = kind(features, labels, logistic.Scaling.of(features), rows)
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
    scaling = logistic.Scaling.of(features)
    want = kind(features[rows], labels[rows], scaling, np.arange(150)).fit(0.1, None, 300)
    spoiled = labels.copy()
    spoiled[1::2] = 0
    found = kind(features, spoiled, scaling, rows).fit(0.1, None, 300)
    np.testing.assert_allclose(found.weights, want.weights, atol=1e-4)


@pytest.mark.parametrize("kind", SOLVERS)
def test_a_fit_that_is_cut_off_has_not_converged(kind):
    features, labels = _data(4)
    assert not _fit(kind, features, labels, 10, iterations=2).converged


def test_blocks_and_devices_do_not_change_the_loss_and_its_gradient(monkeypatch):
    features, labels = _data(5)
    scaling, rows = logistic.Scaling.of(features), np.arange(300)
    parameters = np.random.default_rng(1).normal(size=(5, 8))
    one = logistic.TensorFlow(features, labels, scaling, rows)
    whole = one.objective(parameters, 0.2)
    monkeypatch.setattr(logistic, "_ROWS_AT_ONCE", 77)
    blocks = logistic.TensorFlow(features, labels, scaling, rows, ["/cpu:0", "/device:CPU:0"])
    loss, gradient = blocks.objective(parameters, 0.2)
    assert len(blocks._blocks) == 4
    assert loss == pytest.approx(whole[0], rel=1e-6)
    np.testing.assert_allclose(gradient, whole[1], atol=1e-6)
    np.testing.assert_allclose(blocks.moments, one.moments, atol=1e-6)


@pytest.mark.parametrize("kind", SOLVERS)
def test_loss_gradient_and_moments_are_those_of_their_definitions(kind):
    features, labels = _data(3, n=40, width=4)
    standardised = preprocessing.StandardScaler().fit_transform(features.astype(np.float64))
    parameters = np.random.default_rng(1).normal(size=(3, 5))
    solver = kind(features, labels, logistic.Scaling.of(features), np.arange(40))
    # The penalty of the mean loss is the inverse of strength * n.
    loss, gradient = solver.objective(parameters, 1 / (0.5 * 40))

    def mean(flat):
        return _objective(flat, standardised, labels, 0.5) / (0.5 * 40)

    assert loss == pytest.approx(mean(parameters.ravel()), rel=1e-5)
    want = optimize.approx_fprime(parameters.ravel(), mean, 1e-6)
    np.testing.assert_allclose(gradient.ravel(), want, atol=1e-4)
    np.testing.assert_allclose(solver.moments, standardised.T @ standardised / 40, atol=1e-5)


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


def test_features_that_are_not_finite_are_refused():
    features, labels = _data(3)
    features[5, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        logistic.solver(features, labels, logistic.Scaling.of(features))


def test_scaling_is_that_of_scikit_learn_with_constant_features_left_as_they_are():
    features = _data(3)[0]
    features[:, 2] = 0.1
    found, want = logistic.Scaling.of(features), preprocessing.StandardScaler().fit(features)
    np.testing.assert_allclose(found.mean, want.mean_, rtol=1e-5)
    np.testing.assert_allclose(np.delete(found.scale, 2), np.delete(want.scale_, 2), rtol=1e-5)
    assert found.scale[2] == 1


def test_large_data_is_fitted_by_tensorflow(monkeypatch):
    features, labels = _data(3)
    scaling = logistic.Scaling.of(features)
    assert isinstance(logistic.solver(features, labels, scaling), logistic.NumPy)
    monkeypatch.setattr(logistic, "LARGE", 300 * 7 * 3)
    assert isinstance(logistic.solver(features, labels, scaling), logistic.TensorFlow)


@pytest.mark.parametrize(("limit", "threads"), [(300 * 7 * 3 + 1, 1), (300 * 7 * 3, 2)])
def test_small_data_is_fitted_by_one_thread(monkeypatch, limit, threads):
    """Threads of a small product wait for each other longer than they compute."""
    objective, seen = logistic.NumPy.objective, []

    def counted(*arguments):
        seen.extend(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
        return objective(*arguments)

    features, labels = _data(3)
    monkeypatch.setattr(logistic, "_SEVERAL_THREADS", limit)
    monkeypatch.setattr(logistic.NumPy, "objective", counted)
    with threadpoolctl.threadpool_limits(2):
        _fit(logistic.NumPy, features, labels, 1.0)
    assert max(seen) == threads
