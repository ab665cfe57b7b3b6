"""Average precision: values, ties, images that count as neither, intervals and p-values."""

from __future__ import annotations

import fractions
import itertools

import numpy as np
import pytest
from scipy import stats

from simclr_tf.evaluation import average_precision


def by_loop(scores, labels):
    """Returns the 11-point average precision of a class from its definition, in fractions."""
    pairs = [(s, y) for s, y in zip(scores, labels, strict=True) if y >= 0]
    examples = sum(y == 1 for _, y in pairs)
    points = []
    for threshold in {s for s, _ in pairs}:
        selected = [y for s, y in pairs if s >= threshold]
        hits = fractions.Fraction(sum(y == 1 for y in selected))
        points.append((hits / examples, hits / len(selected)))
    recalls = [fractions.Fraction(k, 10) for k in range(11)]
    best = [max(precision for at, precision in points if at >= recall) for recall in recalls]
    return float(sum(best) / 11)


def mean_by_loop(scores, labels):
    columns = [c for c in range(labels.shape[1]) if np.any(labels[:, c] == 1)]
    return np.mean([by_loop(scores[:, c], labels[:, c]) for c in columns]) if columns else np.nan


def of_one(scores, labels):
    """Returns the 11-point average precision of a single class."""
    return average_precision.eleven_point(np.c_[scores], np.c_[labels])[0]


def drawn(n, classes, *, seed, levels=None):
    """Returns scores and labels; scores have a few levels if asked, so that there are ties."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([-1, 0, 1], (n, classes), p=[0.15, 0.5, 0.35])
    scores = labels + rng.normal(size=(n, classes))
    return (scores if levels is None else np.round(scores * levels / 4)), labels


def test_a_case_worked_by_hand():
    # Precision is 1 up to a recall of 1/2, and 2/3 up to 1: six and five of the eleven recalls.
    assert of_one([5, 4, 3, 2, 1], [1, 0, 1, 0, 0]) == pytest.approx((6 + 5 * 2 / 3) / 11)
    all_points = average_precision.all_points(np.c_[[5, 4, 3, 2, 1]], np.c_[[1, 0, 1, 0, 0]])
    assert all_points == pytest.approx([(1 + 2 / 3) / 2])


def test_a_recall_of_three_tenths_is_reached_by_three_of_ten():
    labels = [1] * 3 + [0] * 7 + [1] * 7
    # 0.1 * 3 > 3 / 10 in floating point, which would give the fourth recall the later precision.
    assert of_one(-np.arange(17), labels) == pytest.approx((4 + 7 * 10 / 17) / 11)


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("seed", range(3))
def test_it_agrees_with_a_loop_over_thresholds(seed, levels):
    scores, labels = drawn(40, 4, seed=seed, levels=levels)
    found = average_precision.eleven_point(scores, labels)
    want = [by_loop(*columns) for columns in zip(scores.T, labels.T)]
    assert found == pytest.approx(want)


def test_images_with_equal_scores_rank_together():
    labels = np.array([1, 0, 0, 0, 1, 0, 0, 0])
    assert of_one(np.zeros(8), labels) == pytest.approx(2 / 8)
    scores, order = np.array([2, 2, 1, 1, 1, 0, 0, 0]), np.random.default_rng(0).permutation(8)
    assert of_one(scores, labels) == pytest.approx(of_one(scores[order], labels[order]))


def test_an_image_that_counts_as_neither_is_left_out_of_the_ranking_of_that_class_only():
    scores = np.array([[4.0, 4], [3, 3], [2, 2], [1, 1]])
    labels = np.array([[0, 0], [1, 1], [1, 1], [0, 0]])
    ignored = labels.copy()
    ignored[0, 0] = -1
    for measure in (average_precision.eleven_point, average_precision.all_points):
        first, second = measure(scores, ignored)
        assert first == 1  # As without the image.
        assert second == pytest.approx(measure(scores, labels)[1]) and second < 1


def test_a_class_without_an_example_has_no_average_precision():
    labels = np.array([[1, 0], [0, -1]])
    for measure in (average_precision.eleven_point, average_precision.all_points):
        np.testing.assert_array_equal(measure(np.eye(2), labels), [1, np.nan])


def test_the_interval_is_a_bootstrap_that_leaves_out_classes_without_an_example(monkeypatch):
    monkeypatch.setattr(average_precision, "_DRAWS", 300)
    scores, labels = drawn(12, 3, seed=4)
    labels[:, 2] = [0] * 10 + [1, -1]  # A third of the resamples do not have its only example.
    found = average_precision.interval(scores, labels, seed=7)
    weights = np.random.default_rng(7).multinomial(12, np.full(12, 1 / 12), 300)
    means = []
    for row in weights:
        rows = np.repeat(np.arange(12), row)
        means.append(mean_by_loop(scores[rows], labels[rows]))
    assert np.sum(weights[:, 10] == 0) > 75
    assert found.value == pytest.approx(mean_by_loop(scores, labels))
    shift = 2 * stats.norm.ppf(np.mean(np.array(means) < found.value))
    levels = stats.norm.cdf(shift + stats.norm.ppf([0.025, 0.975]))
    assert found[1:] == pytest.approx(np.quantile(means, levels))


def test_the_p_value_agrees_with_a_count_of_all_exchanges():
    scores, labels = drawn(8, 2, seed=3)
    other = np.random.default_rng(0).normal(size=scores.shape)
    ranks = []
    for of_network in (scores, other):
        rank = np.zeros(labels.shape)
        for column in range(2):
            counted = np.flatnonzero(labels[:, column] >= 0)
            rank[counted[np.argsort(of_network[counted, column])], column] = np.arange(len(counted))
        ranks.append(rank)
    differences = []
    for exchanged in itertools.product([False, True], repeat=8):
        mask = np.array(exchanged)[:, np.newaxis]
        first, second = np.where(mask, ranks[::-1], ranks)
        differences.append(mean_by_loop(first, labels) - mean_by_loop(second, labels))
    observed = abs(mean_by_loop(scores, labels) - mean_by_loop(other, labels))
    exact = np.mean(np.abs(differences) >= observed - 1e-12)
    assert 0.02 < exact < 0.5  # It can tell.
    found = average_precision.p_value(scores, other, labels, seed=0)
    assert found == pytest.approx(exact, abs=0.015)


def test_the_p_value_does_not_depend_on_the_scale_of_the_scores():
    scores, labels = drawn(30, 2, seed=5)
    other = scores + np.random.default_rng(1).normal(size=scores.shape)
    plain, scaled = (
        average_precision.p_value(scores, one, labels, seed=0, samples=500)
        for one in (other, 1000 * other - 5)
    )
    assert plain == scaled < 1


def test_equal_scores_do_not_differ_and_no_p_value_is_zero():
    scores, labels = drawn(30, 2, seed=6)
    assert average_precision.p_value(scores, scores, labels, seed=0, samples=99) == 1
    good = labels + 0.01 * scores
    assert average_precision.p_value(good, -good, labels, seed=0, samples=99) == 1 / 100
