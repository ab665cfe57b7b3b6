"""The permutation test between two classifiers."""

import numpy as np
import pytest
from scipy import stats

from simclr_tf.evaluation import permutation


def test_the_permutation_test_agrees_with_the_exact_binomial_test():
    # Of 400 images, 60 are right only in the first and 42 only in the second.
    first, second = np.repeat([[1, 1, 0, 0], [1, 0, 1, 0]], [200, 60, 42, 98], axis=1).astype(bool)
    exact = stats.binomtest(60, 102).pvalue
    assert permutation.p_value(first, second, seed=0) == pytest.approx(exact, abs=3e-3)
    assert permutation.p_value(second, first, seed=0) == pytest.approx(exact, abs=3e-3)


def test_the_permutation_test_of_means_per_class_agrees_with_scipys():
    # The second class is rare, so the two means differ although the accuracies hardly do.
    labels = np.repeat([0, 1], [60, 12])
    rng = np.random.default_rng(1)
    first = rng.random(72) < np.where(labels, 0.9, 0.7)
    second = rng.random(72) < np.where(labels, 0.4, 0.75)

    def difference(one: np.ndarray, other: np.ndarray, axis: int = -1) -> np.ndarray:
        d = one.astype(float) - other
        return d[..., :60].mean(axis) + d[..., 60:].mean(axis)

    expected = stats.permutation_test(
        (first, second),
        difference,
        permutation_type="samples",
        n_resamples=20_000,
        vectorized=True,
        random_state=0,
    ).pvalue
    assert 0.002 < expected < 0.2
    found = permutation.p_value(first, second, seed=0, labels=labels)
    assert found == pytest.approx(expected, abs=0.01)


def test_equal_classifiers_do_not_differ_and_no_p_value_is_zero():
    right = np.array([True, False, True])
    assert permutation.p_value(right, right, seed=0, samples=99) == 1
    always, never = np.ones(200, bool), np.zeros(200, bool)
    assert permutation.p_value(always, never, seed=0, samples=99) == 1 / 100
