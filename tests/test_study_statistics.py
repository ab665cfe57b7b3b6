"""The tests of expected orders: differences, spreads, numbers, power and verdicts."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from scipy import stats
import tiny_studies

from simclr_tf import errors
from simclr_tf.evaluation import contrasts, permutation, power
from simclr_tf.studies import verdicts

# Three orders of one pair of cells: the last one compares a number of training.
ORDERS = """
[[orders]]
claim = "16 above 8 by 2 points"
higher = { width = "16" }
lower = { width = "8" }
margin = 2.0

[[orders]]
claim = "8 has the higher loss"
metric = "loss"
higher = { width = "8" }
lower = { width = "16" }
"""


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(contrasts, "_RESAMPLES", 4 * contrasts._CHUNK)


def only(first: int, second: int, both: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (1, 1, n) hits of two networks that differ in some images."""
    hits = np.repeat([[1, 1, 0], [1, 0, 1]], [both, first, second], axis=1).astype(bool)
    return hits[:1, None], hits[1:, None]


@pytest.mark.parametrize(("first", "second", "tolerance"), [(9, 3, 1e-12), (70, 45, 4e-3)])
def test_the_p_value_of_one_network_and_seed_is_that_of_mcnemars_exact_test(
    first, second, tolerance
):
    found = contrasts.of_means(*only(first, second, 300))
    exact = stats.binomtest(first, first + second).pvalue
    assert found.p == pytest.approx(exact, abs=tolerance)
    assert found.mcnemar == pytest.approx([exact])
    assert found.difference.value == pytest.approx((first - second) / (300 + first + second))


def test_networks_that_are_right_about_the_same_images_do_not_differ():
    found = contrasts.of_means(*only(0, 0, 10))
    assert found.p == 1
    assert list(found.mcnemar) == [1]
    assert found.difference == (0, 0, 0)


def test_means_over_networks_and_seeds_and_gains_are_those_computed_by_hand():
    # Two networks with two seeds on the higher side, four images.
    higher = np.array([[[1, 1, 1, 0], [1, 1, 0, 0]], [[1, 1, 1, 1], [0, 1, 1, 0]]], bool)
    lower = np.array([[[1, 0, 0, 0], [0, 1, 0, 0]]], bool)
    found = contrasts.of_means(higher, lower)
    # Seed 0: (3/4 + 4/4) / 2 - 1/4; seed 1: (2/4 + 2/4) / 2 - 1/4.
    assert found.of_seeds == pytest.approx((0.625, 0.25))
    assert found.difference.value == pytest.approx(0.4375)
    assert found.mcnemar == ()

    gain = contrasts.of_means(
        higher, lower, higher_minus=lower, lower_minus=np.zeros((1, 2, 4), bool)
    )
    assert gain.of_seeds == pytest.approx((0.625 - 0.25, 0.25 - 0.25))


def test_the_interval_is_that_of_the_normal_approximation():
    rng = np.random.default_rng(0)
    higher, lower = (rng.random((1, 3, 2000)) < rate for rate in (0.7, 0.6))
    found = contrasts.of_means(higher, lower).difference
    differences = (higher[0].astype(float) - lower[0]).mean(0)
    half = 1.96 * differences.std(ddof=1) / np.sqrt(2000)
    assert found.value == pytest.approx(differences.mean())
    assert found.low == pytest.approx(differences.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(differences.mean() + half, abs=0.1 * half)


def test_five_percent_of_equal_sides_differ_however_much_their_seeds_agree(monkeypatch):
    # Each seed of a side is right about nearly the same images: they are no independent evidence.
    monkeypatch.setattr(contrasts, "_RESAMPLES", contrasts._CHUNK)
    fewer = functools.partial(permutation.sign_flip_p_value, samples=999)
    monkeypatch.setattr(permutation, "sign_flip_p_value", fewer)
    rng = np.random.default_rng(0)
    draws, ours, fisher = 200, 0, 0
    for _ in range(draws):
        sides = []
        for _ in range(2):
            of_side = rng.random(200) < 0.6
            flipped = rng.random((10, 200)) < 0.01
            sides.append((of_side ^ flipped)[None])
        found = contrasts.of_means(*sides, seed=int(rng.integers(2**31)))
        ours += found.p < 0.05
        fisher += stats.combine_pvalues(found.mcnemar).pvalue < 0.05
    # The standard error of a rate of 5% is 1.5%.
    assert 0.02 < ours / draws < 0.085
    assert fisher / draws > 0.12


def test_spreads_are_standard_deviations_over_networks():
    rng = np.random.default_rng(1)
    rates = np.array([0.5, 0.6, 0.8])
    higher = rng.random((3, 2, 1000)) < rates[:, None, None]
    lower = rng.random((3, 2, 1000)) < 0.6
    found = contrasts.of_spreads(higher, lower)
    means = [side.mean((1, 2)).std(ddof=1) for side in (higher, lower)]
    assert found.difference.value == pytest.approx(means[0] - means[1])
    for seed in range(2):
        of_seed = [side[:, seed].mean(1).std(ddof=1) for side in (higher, lower)]
        assert found.of_seeds[seed] == pytest.approx(of_seed[0] - of_seed[1])
    bootstrap = stats.bootstrap(
        list(np.concatenate([higher, lower]).mean(1)),
        lambda *x: np.std(np.mean(x[:3], 1), ddof=1) - np.std(np.mean(x[3:], 1), ddof=1),
        method="percentile",
        paired=True,
        vectorized=False,
        n_resamples=1000,
        random_state=0,
    ).confidence_interval
    assert found.difference.low == pytest.approx(bootstrap.low, abs=0.005)
    assert found.difference.high == pytest.approx(bootstrap.high, abs=0.005)
    assert found.p < 0.005
    assert contrasts.of_spreads(lower, lower).p == 1


def test_numbers_are_compared_by_a_t_test_over_seeds():
    higher, lower = np.array([3.0, 2.5, 2.9, 3.3]), np.array([2.0, 2.2, 1.9, 2.4])
    found = contrasts.of_numbers(higher, lower)
    expected = stats.ttest_rel(higher, lower)
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue)
    assert found.difference == pytest.approx((np.mean(higher - lower), *interval))
    assert found.of_seeds == pytest.approx(higher - lower)


@pytest.mark.parametrize("count", [1, 3])
def test_numbers_without_variance_say_nothing_of_other_seeds(count):
    found = contrasts.of_numbers(np.full(count, 2.0), np.ones(count))
    assert found.p == 1
    assert found.difference == (1, -np.inf, np.inf)


def test_the_power_of_a_t_test_has_the_values_of_textbooks():
    # Cohen (1988): 10 pairs find one standard deviation with 80%, half of it needs 34.
    assert power.power(1.0, 1.0, 10) == pytest.approx(0.803, abs=5e-4)
    assert power.needed_seeds(0.5, 1.0) == 34
    assert power.smallest_difference(2.0, 34) == pytest.approx(1.0, abs=0.02)
    assert power.power(0.0, 1.0, 5) == pytest.approx(0.05, abs=5e-4)


def test_power_is_how_often_simulated_tests_find_a_difference():
    rng = np.random.default_rng(0)
    differences = rng.normal(1.5, 1.0, (4000, 4))
    simulated = np.mean(stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05)
    assert power.power(1.5, 1.0, 4) == pytest.approx(simulated, abs=0.025)


@pytest.mark.parametrize("seeds", [2, 3, 30, 1000])
def test_the_smallest_difference_is_found_with_80_percent(seeds):
    smallest = power.smallest_difference(0.3, seeds)
    assert power.power(smallest, 0.3, seeds) == pytest.approx(0.8, abs=1e-6)
    # Far beyond, where the noncentral t distribution of SciPy is NaN.
    assert power.power(1e4 * smallest, 0.3, seeds) == pytest.approx(1)


def test_power_without_a_deviation_or_a_second_seed():
    assert power.smallest_difference(0.0, 3) == 0
    assert power.smallest_difference(1.0, 1) == np.inf
    assert power.needed_seeds(1.0, 0.0) == 2
    assert power.needed_seeds(1e4, 1.0) == 2
    assert power.needed_seeds(0.001, 1.0) is None


def judged(tmp_path, accuracies, *, orders=ORDERS, losses=(2.0, 1.0)):
    """Returns the verdicts of tiny results."""
    text = tiny_studies.TEXT.replace("[figure]", f"{orders}\n[figure]")
    study = tiny_studies.read(tmp_path, text)
    found = []
    for seed in (0, 1):
        for label, loss in zip(("8", "16"), losses, strict=True):
            right = np.arange(1000) < 1000 * accuracies[label][seed]
            numbers = {"loss": loss + 0.01 * seed * loss}
            found.append(
                tiny_studies.outcome(study, {"width": label}, seed, right, numbers=numbers)
            )
    return verdicts.judge(study, found)


def test_an_order_is_shown_if_it_has_its_margin_with_every_seed(tmp_path):
    large, with_margin, number = judged(tmp_path, {"8": (0.5, 0.52), "16": (0.53, 0.55)})
    assert [one.verdict for one in (large, with_margin)] == ["shown", "shown"]
    assert large.contrast.difference.value == pytest.approx(0.03)
    # 2.0 - 1.0 and 2.02 - 1.01.
    assert number.contrast.of_seeds == pytest.approx((1.0, 1.01))
    assert number.contrast.p == pytest.approx(stats.ttest_1samp([1.0, 1.01], 0).pvalue)
    assert number.verdict == "shown"


def test_an_order_is_not_shown_below_its_margin_or_if_a_seed_contradicts_it(tmp_path):
    small, margin, _ = judged(tmp_path, {"8": (0.5, 0.5), "16": (0.515, 0.515)})
    assert [small.verdict, margin.verdict] == ["shown", "not shown"]
    mixed, _, _ = judged(tmp_path, {"8": (0.5, 0.5), "16": (0.55, 0.499)})
    assert mixed.contrast.p < 0.001
    assert mixed.verdict == "not shown"


def test_the_opposite_of_an_order_is_contrary_if_it_is_significant(tmp_path):
    found = judged(tmp_path, {"8": (0.53, 0.55), "16": (0.5, 0.52)}, losses=(1.0, 1.0))
    assert [one.verdict for one in found] == ["contrary", "contrary", "not shown"]


def test_p_values_are_corrected_over_all_orders(tmp_path):
    accuracies = {"8": (0.5, 0.5), "16": (0.507, 0.507)}
    found = judged(tmp_path, accuracies, losses=(1.0, 1.0))
    p = stats.binomtest(7, 7).pvalue  # 7 images differ, in the same direction with both seeds.
    assert [one.contrast.p for one in found] == pytest.approx([p, p, 1])
    assert [one.adjusted for one in found] == pytest.approx([3 * p, 3 * p, 1])  # Holm.
    assert found[0].verdict == "shown"  # 0.047
    many = ORDERS + ORDERS.replace('claim = "', 'claim = "again, ')
    found = judged(tmp_path, accuracies, orders=many, losses=(1.0, 1.0))
    assert found[0].verdict == "not shown"


def test_an_order_is_not_run_until_all_of_its_cells_and_seeds_are_done(tmp_path):
    study = tiny_studies.read(tmp_path)
    found = tiny_studies.outcomes_of(study, {"8": 0.5, "16": 0.6})
    assert [one.verdict for one in verdicts.judge(study, found)] == ["shown"]
    for missing in range(4):
        rest = found[:missing] + found[missing + 1 :]
        (one,) = verdicts.judge(study, rest)
        assert (one.verdict, one.contrast) == ("not run", None)


def test_orders_that_are_not_run_yet_count_in_the_correction(tmp_path):
    text = tiny_studies.TEXT.replace("[figure]", f"{ORDERS}\n[figure]")
    study = tiny_studies.read(tmp_path, text)
    found = tiny_studies.outcomes_of(study, {"8": 0.5, "16": 0.6})
    tested = verdicts.test(study.orders[0], found, study.seeds)
    first, *others = verdicts.decide(study.orders, [tested, None, None])
    assert first.adjusted == pytest.approx(3 * first.contrast.p)
    assert [one.verdict for one in others] == ["not run", "not run"]


def test_cells_that_were_evaluated_on_different_images_are_not_compared(tmp_path):
    study = tiny_studies.read(tmp_path)
    found = [
        tiny_studies.outcome(study, labels, seed, [True, False], prefix=labels["width"])
        for labels in study.all_labels()
        for seed in study.seeds
    ]
    with pytest.raises(errors.UserError, match="were evaluated on different images"):
        verdicts.judge(study, found)


def test_the_gain_of_a_number_is_what_it_changes_by(tmp_path):
    text = tiny_studies.TEXT.partition("[[orders]]")[0].replace(
        "values.16", "values.4 = { proj_out_dim = 4 }\nvalues.16"
    )
    text += """
[[orders]]
claim = "4 to 16 gains more than 8 to 16"
metric = "loss"
higher = { from = { width = "4" }, to = { width = "16" } }
lower = { from = { width = "8" }, to = { width = "16" } }

[figure]
kind = "bars"
x = "width"
"""
    study = tiny_studies.read(tmp_path, text)
    losses = {"4": (1.0, 2.0), "8": (1.5, 2.0), "16": (4.0, 6.0)}
    found = [
        tiny_studies.outcome(study, {"width": label}, seed, [True], {"loss": losses[label][seed]})
        for label in losses
        for seed in (0, 1)
    ]
    (one,) = verdicts.judge(study, found)
    assert one.contrast.of_seeds == pytest.approx((3.0 - 2.5, 4.0 - 4.0))
