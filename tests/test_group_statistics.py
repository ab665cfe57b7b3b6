"""Intervals, tests and held-out images where images are in groups."""

import itertools

import numpy as np
import pytest
from scipy import stats

from simclr_tf.evaluation import (
    comparison,
    grouped,
    grouped_holdout,
    intervals,
    linear,
    outcome,
    per_class,
    permutation,
)


def correlated(rng, number=30, size=12):
    """Returns hits of groups of different accuracies, whose mean is 2/3, and the groups."""
    groups = np.repeat(np.arange(number), size)
    return rng.random(number * size) < rng.beta(0.6, 0.3, number)[groups], groups


def test_the_bootstrap_over_groups_agrees_with_one_that_draws_whole_groups():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 12, 90)  # Of different sizes.
    hits = rng.random(90) < rng.random(12)[groups]
    members = [hits[groups == group] for group in range(12)]
    means = [
        np.concatenate([members[group] for group in rng.integers(0, 12, 12)]).mean()
        for _ in range(6000)
    ]
    found = intervals.accuracy(hits, groups, seed=1)
    assert found.value == hits.mean()
    assert [found.low, found.high] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.015)


@pytest.mark.exhaustive
def test_it_covers_the_mean_of_correlated_images_where_wilsons_interval_is_too_narrow():
    rng, covered = np.random.default_rng(1), np.zeros(2)
    for _ in range(120):
        hits, groups = correlated(rng)
        over = intervals.accuracy(hits, groups), intervals.accuracy(hits)
        covered += [one.low <= 2 / 3 <= one.high for one in over]
    assert covered[0] / 120 > 0.89
    assert covered[1] / 120 < 0.65


def test_groups_of_one_image_give_nearly_wilsons_interval():
    hits = np.random.default_rng(2).random(600) < 0.7
    found, wilson = intervals.accuracy(hits, np.arange(600)), intervals.accuracy(hits)
    assert found == pytest.approx(wilson, abs=0.006)


@pytest.mark.parametrize("right", [0, 1])
def test_an_interval_has_a_width_where_all_images_are_equal(right):
    found = intervals.accuracy(np.full(40, bool(right)), np.repeat(np.arange(8), 5))
    assert found == intervals.accuracy(np.full(8, bool(right)))  # As many as there are groups.


def test_a_single_group_says_nothing():
    hits, one = np.arange(10) < 6, np.zeros(10)
    assert intervals.accuracy(hits, one) == (0.6, 0, 1)
    assert intervals.mean_per_class(hits, np.arange(10) % 2, seed=0, groups=one) == (0.6, 0, 1)
    assert comparison.compare(hits, ~hits, seed=0, groups=one).difference[1:] == (-1, 1)


def test_the_mean_per_class_agrees_with_a_bootstrap_that_draws_whole_groups():
    rng = np.random.default_rng(3)
    groups, labels = rng.integers(0, 15, 150), rng.integers(0, 3, 150)
    hits = rng.random(150) < rng.random(15)[groups]
    means = []
    for _ in range(3000):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(0, 15, 15)])
        means.append(np.mean([hits[rows][labels[rows] == label].mean() for label in range(3)]))
    found = intervals.mean_per_class(hits, labels, seed=0, groups=groups)
    assert found.value == pytest.approx(np.mean([hits[labels == c].mean() for c in range(3)]))
    assert [found.low, found.high] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.02)


def test_evaluations_have_intervals_over_groups():
    hits, groups = correlated(np.random.default_rng(4))
    labels = np.arange(len(hits)) % 2
    features = np.zeros((len(hits), 1), np.float32)
    inputs = outcome.Inputs(
        *(features, labels, features, labels, np.eye(2)[np.where(hits, labels, 1 - labels)]),
        temperature=None,
        class_names=("a", "b"),
        seed=0,
        test_groups=groups,
    )
    found = per_class.evaluate(inputs)
    rows = [found.tables["per_class.csv"][1 + label][2:] for label in (0, 1)]
    for label, row in enumerate(rows):
        of_class = labels == label
        expected = intervals.accuracy(hits[of_class], groups[of_class])
        assert row == [f"{value:.4f}" for value in expected]
    assert found.numbers["per_class/mean_accuracy_95"] == list(
        intervals.mean_per_class(hits, labels, seed=0, groups=groups)[1:]
    )


def enumerated(first, second, groups):
    """Returns the p-value by exchanging the classifiers in all sets of groups."""
    of_group = [np.sum(second[groups == g] * 1 - first[groups == g]) for g in np.unique(groups)]
    sums = [np.dot(signs, of_group) for signs in itertools.product([1, -1], repeat=len(of_group))]
    return np.mean(np.abs(sums) >= abs(np.sum(of_group)))


def test_the_test_over_groups_agrees_with_an_enumeration(monkeypatch):
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 10, 80)
    first, second = rng.random(80) < 0.5, rng.random(80) < 0.62
    expected = enumerated(first, second, groups)
    assert 0.01 < expected < 0.9
    exact = permutation.grouped_p_value(first, second, groups, seed=0)
    assert exact == pytest.approx(expected)
    monkeypatch.setattr(permutation, "_MOST_ENUMERATED", 0)
    drawn = permutation.grouped_p_value(first, second, groups, seed=0)
    assert drawn == pytest.approx(expected, abs=5e-3) and drawn != exact


def test_groups_of_one_image_are_tested_as_by_mcnemar():
    first = np.array([1] * 12 + [1] + [0] * 6 + [0], bool)
    second = np.array([1] * 12 + [0] + [1] * 6 + [0], bool)
    found = permutation.grouped_p_value(first, second, np.arange(20), seed=0)
    assert found == pytest.approx(stats.binomtest(1, 7).pvalue)


def test_a_comparison_over_groups_is_less_certain_where_groups_are_right_together():
    # In 6 of 8 groups, all 10 images are right only in the second: many images, few patients.
    groups = np.repeat(np.arange(8), 10)
    first, second = groups >= 6, groups < 6
    found = comparison.compare(first, second, seed=0, groups=groups)
    assert found.p == pytest.approx(enumerated(first, second, groups))
    assert found.p > 0.2 and comparison.compare(first, second, seed=0).p < 1e-3
    drawn = np.random.default_rng(0).binomial(8, 6 / 8, 20_000)
    expected = np.percentile((2 * drawn - 8) / 8, [2.5, 97.5])
    assert found.difference == pytest.approx([0.5, *expected])


def leaking(rng, number=120, size=4):
    """Returns near-copies within groups, whose labels are random for each group."""
    groups = np.repeat(np.arange(number), size)
    features = rng.normal(size=(number, 150))[groups] + 0.05 * rng.normal(size=(len(groups), 150))
    return features.astype(np.float32), rng.integers(0, 2, number)[groups], groups


def test_near_copies_within_groups_are_not_rewarded():
    features, labels, groups = leaking(np.random.default_rng(6))
    splits = grouped_holdout.splits(labels, groups, seed=0)
    fits = [
        linear.fit(features, labels, num_classes=2, seed=0, splits=one) for one in (None, splits)
    ]
    assert fits[0].held_out_accuracy > 0.95  # Random labels appear to be predicted.
    # Of few groups, the best strength is often right by chance.
    assert fits[1].held_out_accuracy < 0.8


@pytest.mark.parametrize("seed", range(3))
def test_whole_groups_are_held_out_with_about_a_fifth_of_each_class(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 60, 900)
    labels = np.where(rng.random(900) < 0.9, groups % 3, rng.integers(0, 3, 900))
    ((fitted, held),) = grouped_holdout.splits(labels, groups, seed=seed)
    assert not set(groups[held]) & set(groups[fitted])
    assert sorted([*held, *fitted]) == list(range(900))
    fractions = np.bincount(labels[held]) / np.bincount(labels)
    assert np.all((fractions > 0.1) & (fractions < 0.3))


def test_a_class_in_a_single_group_is_fitted_rather_than_held_out():
    groups = np.repeat(np.arange(9), 4)
    labels = np.where(groups < 2, groups + 1, 0)
    for seed in range(8):
        ((fitted, held),) = grouped_holdout.splits(labels, groups, seed=seed)
        assert set(labels[fitted]) == {0, 1, 2} and len(held)


def test_two_groups_and_classes_of_one_image_can_be_divided():
    ((fitted, held),) = grouped_holdout.splits(np.arange(6), np.array([0, 0, 0, 1, 1, 1]), seed=0)
    assert sorted([list(held), list(fitted)]) == [[0, 1, 2], [3, 4, 5]]


def test_of_few_labels_each_image_is_held_out_once_with_its_group():
    groups, labels = np.repeat(np.arange(10), 3), np.arange(30) % 2
    splits = grouped_holdout.splits(labels, groups, seed=0, few=True)
    assert len(splits) == 5
    assert sorted(np.concatenate([held for _, held in splits])) == list(range(30))
    assert not any(set(groups[held]) & set(groups[fitted]) for fitted, held in splits)


def test_a_single_group_leaves_nothing_to_choose():
    labels = np.arange(12) % 2
    assert grouped_holdout.splits(labels, np.zeros(12), seed=0) == []


def test_draws_in_blocks_are_the_same(monkeypatch):
    hits, groups = correlated(np.random.default_rng(7))
    whole = grouped.ratio_limits(hits, groups, seed=0)
    monkeypatch.setattr(grouped, "_AT_ONCE", 1000)
    assert grouped.ratio_limits(hits, groups, seed=0) == whole
