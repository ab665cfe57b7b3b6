"""Robustness, shifts and out-of-distribution detection, from arrays to numbers."""

import math

from matplotlib import figure
import numpy as np
import pytest
from scipy import special
from scipy.spatial import distance
from sklearn import covariance, metrics, neighbors

from simclr_tf.evaluation import intervals, ood, ood_scores, robustness, shifts


def _cell(corruption, severity, right, count=10):
    return robustness.Cell(
        corruption, severity, np.arange(count) < right, np.arange(count) % 3, ece=severity / 10
    )


CELLS = [_cell("none", 0, 9), _cell("fog", 1, 8), _cell("fog", 5, 4), _cell("snow", 1, 7)]
CELLS.append(_cell("snow", 5, 7))
# Errors: none 0.2, fog 0.4 and 0.8, snow 0.5 and 0.5.
BASELINE = {
    ("none", 0): robustness.Score(0.8, 0.01),
    ("fog", 1): robustness.Score(0.6, 0.01),
    ("fog", 5): robustness.Score(0.2, 0.01),
    ("snow", 1): robustness.Score(0.5, 0.01),
    ("snow", 5): robustness.Score(0.5, 0.01),
    ("frost", 1): robustness.Score(0.5, 0.01),  # The run was not evaluated with it.
}


def test_corruption_errors_of_a_case_worked_by_hand():
    result = robustness.evaluate(CELLS[0], CELLS[1:], ("base", BASELINE))
    fog, snow = (0.2 + 0.6) / (0.4 + 0.8), (0.3 + 0.3) / (0.5 + 0.5)
    assert result.numbers["robustness/mce"] == pytest.approx((fog + snow) / 2)
    # Without the errors of images that are not corrupted, 0.1 of the run and 0.2 of the baseline.
    fog, snow = (0.1 + 0.5) / (0.2 + 0.6), (0.2 + 0.2) / (0.3 + 0.3)
    assert result.numbers["robustness/relative_mce"] == pytest.approx((fog + snow) / 2)
    assert [row[0] for row in result.tables["corruption_errors.csv"]] == [
        *("corruption", "fog", "snow"),
    ]
    assert result.numbers["robustness/clean_accuracy"] == 0.9
    assert result.numbers["robustness/mean_accuracy"] == pytest.approx(0.65)
    assert result.numbers["robustness/mean_ece"] == pytest.approx(0.3)
    rows = result.tables["robustness.csv"]
    assert len(rows) == 6 and rows[2][:4] == ["fog", "1", "10", "0.8"] and rows[2][-1] == "0.1"


def test_a_mean_is_left_out_where_the_baseline_makes_no_errors():
    perfect = {key: robustness.Score(1.0, 0.0) for key in BASELINE}
    result = robustness.evaluate(CELLS[0], CELLS[1:], ("base", perfect))
    assert not {"robustness/mce", "robustness/relative_mce"} & result.numbers.keys()
    assert ("not defined for fog, snow") in [value for _, value in result.rows]
    flat = {key: robustness.Score(0.5, 0.0) for key in BASELINE}  # Corruption adds no error.
    numbers = robustness.evaluate(CELLS[0], CELLS[1:], ("base", flat)).numbers
    assert "robustness/relative_mce" not in numbers
    assert numbers["robustness/mce"] == pytest.approx((0.8 / 1 + 0.6 / 1) / 2)


def test_without_a_baseline_there_is_no_corruption_error():
    result = robustness.evaluate(CELLS[0], CELLS[1:], None)
    assert "robustness/mce" not in result.numbers and "corruption_errors.csv" not in result.tables


def test_the_scores_of_a_run_are_read_again_from_its_numbers():
    numbers = robustness.evaluate(CELLS[0], CELLS[1:], None).numbers
    assert robustness.scores_in(numbers) == {
        (cell.corruption, cell.severity): (np.mean(cell.hits), cell.ece) for cell in CELLS
    }
    assert robustness.scores_in({"linear_eval/top_1_accuracy": 0.5}) is None


@pytest.mark.exhaustive
def test_the_interval_of_a_mean_over_the_same_images_covers_repetitions():
    rng, covered, narrower = np.random.default_rng(0), [], []
    for _ in range(200):
        easy = rng.random(80)  # How easy each image is, under every corruption.
        labels = np.zeros(80, int)
        cells = [robustness.Cell("fog", s, rng.random(80) < easy, labels, 0.0) for s in range(1, 6)]
        value, low, high = robustness._interval(cells)
        covered.append(low <= 0.5 <= high)
        one = intervals.accuracy(cells[0].hits)
        narrower.append(high - low < one.high - one.low)
        assert value == pytest.approx(np.mean([cell.hits for cell in cells]))
    assert 0.9 < np.mean(covered) < 0.99 and all(narrower)


def test_a_mean_without_errors_is_not_certain():
    cells = [_cell("fog", severity, 10) for severity in (1, 2)]
    found = robustness._interval(cells)
    assert found == pytest.approx(intervals.accuracy(np.ones(10, bool)))


def test_the_interval_of_a_mean_over_different_images_is_as_wide_as_that_of_one():
    other = _cell("fog", 2, 8)
    other.labels[0] += 1
    cells = [_cell("fog", 1, 8), other]
    assert robustness._interval(cells) == pytest.approx(intervals.accuracy(np.arange(10) < 8))


def test_a_cell_counts_right_predictions_and_measures_their_calibration():
    scores = np.log([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    cell = robustness.measure("fog", 2, scores, np.array([0, 0, 1, 1]))
    assert cell.hits.tolist() == [True, True, False, True]
    assert cell.score == (0.75, pytest.approx(0.15))  # All in one bin, of confidence 0.9.


def test_auroc_and_false_positives_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    for count in (40, 41, 200):
        inside = np.round(rng.normal(1, 1, count), 1)  # Rounded, so that some are equal.
        outside = np.round(rng.normal(0, 1, 150), 1)
        truth = np.repeat([1, 0], [count, 150])
        scores = np.concatenate([inside, outside])
        assert ood.auroc(inside, outside).value == pytest.approx(
            metrics.roc_auc_score(truth, scores)
        )
        fpr, tpr, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
        assert ood.false_positives(inside, outside) == fpr[np.argmax(tpr >= 0.95)]


@pytest.mark.exhaustive
def test_the_interval_of_an_auroc_covers_repetitions():
    rng, covered = np.random.default_rng(0), []
    truth = special.ndtr(1 / math.sqrt(2))  # Of two normal distributions one deviation apart.
    for _ in range(400):
        _, low, high = ood.auroc(rng.normal(1, 1, 60), rng.normal(0, 1, 90))
        covered.append(low <= truth <= high)
    assert 0.91 < np.mean(covered) < 0.98


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    centres = rng.normal(size=(3, 6)) * 3
    labels = rng.integers(3, size=90)
    train = (centres[labels] + rng.normal(size=(90, 6)) @ mixing).astype(np.float32)
    near = (centres[labels[:40]] + rng.normal(size=(40, 6)) @ mixing).astype(np.float32)
    far = (5 * rng.normal(size=(30, 6))).astype(np.float32)
    return train, labels, near, far


def test_the_score_by_neighbours_is_minus_the_distance_to_the_50th(data):
    train, _, near, _ = data

    def unit(rows):
        return rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)

    for rows, k in ((train, 50), (train[:20], 20)):
        nearest = neighbors.NearestNeighbors(n_neighbors=k).fit(unit(rows))
        expected = -nearest.kneighbors(unit(near))[0][:, -1]
        np.testing.assert_allclose(ood_scores.by_neighbour(rows, near), expected, atol=1e-5)


def test_the_mahalanobis_score_is_that_of_scipy_with_the_covariance_of_scikit_learn(data):
    train, labels, near, far = data
    means = np.stack([train[labels == one].mean(0) for one in range(3)])
    fitted = covariance.LedoitWolf(assume_centered=True).fit(train - means[labels])
    expected = [
        -min(distance.mahalanobis(row, mean, fitted.precision_) ** 2 for mean in means)
        for row in np.concatenate([near, far])
    ]
    found = ood_scores.Gaussians.fit(train, labels).score(np.concatenate([near, far]))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_features_that_never_vary_leave_the_mahalanobis_score_finite(data):
    train, labels, near, _ = data
    constant = [np.concatenate([rows, np.zeros((len(rows), 2))], 1) for rows in (train, near)]
    assert np.isfinite(ood_scores.Gaussians.fit(constant[0], labels).score(constant[1])).all()


def test_scores_of_classes_order_images_by_probability_and_by_energy():
    scores = np.array([[5.0, 1.0, 0.0], [2.0, 2.0, 2.0], [80.0, 1.0, -np.inf], [90.0, 1.0, 0.0]])
    probability = special.softmax(scores, 1).max(1)
    found = ood_scores.by_probability(scores)
    np.testing.assert_allclose(np.exp(found), probability)
    assert found[1] < found[0] < found[2] <= found[3]
    np.testing.assert_allclose(
        ood_scores.by_energy(scores), np.log(np.sum(np.exp(scores), 1)), rtol=1e-12
    )


def test_every_score_is_higher_for_images_of_the_distribution(data):
    train, labels, near, far = data
    means = np.stack([train[labels == one].mean(0) for one in range(3)])

    def images(features):
        similar = 9 - np.linalg.norm(features[:, np.newaxis] - means, axis=-1)
        return ood.Images(features, similar)

    result = ood.evaluate(train, labels, images(near), {"far": images(far), "same": images(near)})
    for kind in ood.SCORES:
        assert result.numbers[f"ood/far/{kind}/auroc"] > 0.6, kind
        assert result.numbers[f"ood/same/{kind}/auroc"] == pytest.approx(0.5)
        assert result.numbers[f"ood/same/{kind}/fpr_at_95_tpr"] == pytest.approx(0.95)
        mean = (result.numbers[f"ood/far/{kind}/auroc"] + 0.5) / 2
        assert result.numbers[f"ood/mean/{kind}/auroc"] == pytest.approx(mean)
    assert len(result.tables["ood.csv"]) == 1 + 2 * len(ood.SCORES)
    result.figures["ood.svg"](figure.Figure())


def test_the_interval_of_a_difference_is_that_of_newcombes_example():
    one, other = (intervals.accuracy(np.arange(n) < k) for k, n in ((56, 70), (48, 80)))
    value, low, high = shifts.difference(one, other)  # Newcombe 1998, table II, method 10.
    assert (value, low, high) == (
        pytest.approx(0.2),
        pytest.approx(0.0524, abs=5e-5),
        pytest.approx(0.3339, abs=5e-5),
    )


def test_a_drop_is_from_evaluated_images_of_the_same_classes():
    scores = np.eye(3)
    test = shifts.Predictions(scores[[0, 0, 1, 2, 2]], np.array([0, 1, 1, 2, 0]))
    other = shifts.Predictions(scores[[0, 1, 0, 0]], np.array([0, 1, 1, 1]))
    result = shifts.evaluate(test, {"other": other})
    assert result.numbers["shifts/other/accuracy"] == 0.5
    assert result.numbers["shifts/other/drop"] == pytest.approx(2 / 4 - 0.5)
    largest = math.e / (math.e + 2)  # The probability of every prediction.
    assert result.numbers["shifts/other/ece"] == pytest.approx(abs(0.5 - largest))
    assert result.tables["shifts.csv"][1][:3] == ["other", "4", "2"]
    result.figures["shifts.svg"](figure.Figure())
