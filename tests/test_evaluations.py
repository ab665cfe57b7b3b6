"""Evaluations of features, scores and labels, against independent computations."""

import dataclasses
import math

from matplotlib import figure
import numpy as np
import pytest
from scipy import linalg, special, stats
from sklearn import metrics, neighbors

from simclr_tf import config
from simclr_tf.evaluation import (
    calibration,
    geometry,
    intervals,
    knn,
    label_free,
    neighbours,
    outcome,
    per_class,
    registry,
    retrieval,
    selective,
)
from simclr_tf.evaluation import map as map_lib
from simclr_tf.scoring import registry as network_registry

_CLASSES = 5


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(_CLASSES, 12))

    def split(count):
        labels = rng.integers(_CLASSES, size=count)
        return (centres[labels] + 1.5 * rng.normal(size=(count, 12))).astype(np.float32), labels

    train, train_labels = split(301)
    test, test_labels = split(157)
    scores = (test @ centres.T + rng.normal(size=(157, _CLASSES))).astype(np.float32)
    names = tuple("abcde")
    return outcome.Inputs(train, train_labels, test, test_labels, scores, 2.0, names, seed=3)


def test_wilsons_interval_solves_its_equation():
    value, low, high = intervals.accuracy(np.arange(50) < 41)
    assert value == 0.82
    z = stats.norm.ppf(0.975)
    for end in (low, high):  # The ends are where the normal approximation reaches the value.
        assert abs(value - end) == pytest.approx(z * math.sqrt(end * (1 - end) / 50), rel=1e-9)
    assert low < value < high


@pytest.mark.parametrize("hits", [np.zeros(7, bool), np.ones(7, bool)])
def test_an_interval_stays_between_0_and_1(hits):
    value, low, high = intervals.accuracy(hits)
    assert 0 <= low <= value <= high <= 1 and high - low > 0.3


@pytest.mark.exhaustive
def test_the_mean_per_class_counts_classes_equally_and_its_interval_covers_repetitions():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 7], [200, 20, 50])
    rates = np.array([0.9, 0.5, 0.7])[np.unique(labels, return_inverse=True)[1]]
    hits = [rng.random(270) < rates for _ in range(400)]
    found = [intervals.mean_per_class(one, labels, seed=0) for one in hits]
    expected = np.mean([hits[0][labels == label].mean() for label in (0, 1, 7)])
    assert found[0].value == pytest.approx(expected)
    covered = np.mean([one.low <= 0.7 <= one.high for one in found])
    assert 0.9 < covered < 0.99


def test_the_mean_per_class_of_few_images_is_not_certain():
    value, low, high = intervals.mean_per_class(np.ones(4, bool), np.array([0, 0, 1, 1]), seed=0)
    assert value == high == 1 and low < 0.8


def test_neighbours_are_those_of_scikit_learn_in_any_block_size(inputs, monkeypatch):
    expected = neighbors.NearestNeighbors(n_neighbors=9, metric="cosine", algorithm="brute")
    distances, order = expected.fit(inputs.train_features).kneighbors(inputs.test_features)
    monkeypatch.setattr(neighbours, "_BLOCK_ELEMENTS", 301 * 10)
    blocks = list(neighbours.nearest(inputs.test_features, inputs.train_features, 9))
    assert len(blocks) == 16
    np.testing.assert_array_equal(np.concatenate([b[1] for b in blocks]), order)
    similarities = np.concatenate([b[2] for b in blocks])
    np.testing.assert_allclose(similarities, 1 - distances, atol=1e-5)


def test_a_query_is_not_its_own_neighbour(inputs, monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK_ELEMENTS", 157 * 10)
    doubled = np.concatenate([inputs.test_features[:40], inputs.test_features[:40]])
    for part, indices, similarities in neighbours.nearest(doubled, doubled, 1, exclude_self=True):
        rows = np.arange(part.start, part.stop)
        np.testing.assert_array_equal(indices[:, 0], (rows + 40) % 80)  # The other copy.
        np.testing.assert_allclose(similarities, 1, atol=1e-5)


@pytest.mark.parametrize("k", knn.NEIGHBOURS)
def test_knn_votes_as_scikit_learn_does_with_the_same_weights(inputs, k):
    classifier = neighbors.KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / knn.TEMPERATURE)
    )
    classifier.fit(inputs.train_features.astype(np.float64), inputs.train_labels)
    expected = classifier.predict(inputs.test_features.astype(np.float64))
    result = knn.evaluate(inputs)
    accuracy = np.mean(expected == inputs.test_labels)
    assert result.numbers[f"knn/{k}/top_1_accuracy"] == pytest.approx(accuracy)
    predicted = knn.predictions(
        inputs.train_features,
        inputs.train_labels,
        inputs.test_features,
        [k],
        num_classes=_CLASSES,
    )
    np.testing.assert_array_equal(predicted[k], expected)


def test_knn_leaves_out_more_neighbours_than_images(inputs):
    few = dataclasses.replace(
        inputs, train_features=inputs.train_features[:20], train_labels=inputs.train_labels[:20]
    )
    assert [name for name in knn.evaluate(few).numbers if name.endswith("accuracy")] == [
        "knn/1/top_1_accuracy",
        "knn/20/top_1_accuracy",
    ]


def test_per_class_accuracies_and_confusions_are_scikit_learns(inputs):
    result = per_class.evaluate(inputs)
    predicted = inputs.test_scores.argmax(1)
    assert result.numbers["per_class/mean_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(inputs.test_labels, predicted)
    )
    recalls = metrics.recall_score(inputs.test_labels, predicted, average=None)
    written = [float(row[2]) for row in result.tables["per_class.csv"][1:]]
    np.testing.assert_allclose(written, recalls, atol=5e-5)
    header, *rows = result.tables["confusion.csv"]
    assert header == ["class", *inputs.class_names]
    matrix = np.array([row[1:] for row in rows], int)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(inputs.test_labels, predicted))
    worst = np.unravel_index(np.argmax(matrix - np.diag(np.diag(matrix))), matrix.shape)
    true, guess = (inputs.class_names[i] for i in worst)
    assert result.rows[1][0] == f"{true} taken for {guess}"


def test_a_class_without_images_has_no_accuracy_and_does_not_count(inputs):
    lacking = dataclasses.replace(
        inputs,
        class_names=(*inputs.class_names, "rare"),
        test_scores=np.pad(inputs.test_scores, [(0, 0), (0, 1)], constant_values=-99),
    )
    result = per_class.evaluate(lacking)
    assert result.tables["per_class.csv"][-1] == ["rare", "0", "", "", ""]
    assert result.numbers == per_class.evaluate(inputs).numbers


def test_retrieval_of_a_case_worked_by_hand():
    angles = np.radians([0, 10, 25, 45, 180])
    features = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    labels = np.array([0, 1, 0, 0, 2])
    scores = np.zeros((5, 3), np.float32)
    result = retrieval.evaluate(
        outcome.Inputs(features, labels, features, labels, scores, None, ("x", "y", "z"), seed=0)
    )
    # Queries: images 0, 2 and 3, whose class has R = 2 others. Their neighbours, nearest first:
    #   0: 1, 2    relevant no, yes   AP@R = (1/2) / 2
    #   2: 1, 3    relevant no, yes   AP@R = (1/2) / 2
    #   3: 2, 1    relevant yes, no   AP@R = 1 / 2
    assert result.numbers["retrieval/queries"] == 3
    assert result.numbers["retrieval/map_at_r"] == pytest.approx((0.25 + 0.25 + 0.5) / 3)
    assert result.numbers["retrieval/recall_at_1"] == pytest.approx(1 / 3)
    assert "retrieval/recall_at_5" not in result.numbers  # There are four other images.


def test_retrieval_is_that_of_plain_loops(inputs, monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK_ELEMENTS", 157 * 13)
    unit = inputs.test_features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    recall, precision = [], []
    for query in range(157):
        ranking = [i for i in np.argsort(-unit @ unit[query]) if i != query]
        relevant = [inputs.test_labels[i] == inputs.test_labels[query] for i in ranking]
        recall.append(any(relevant[:5]))
        r = sum(relevant)
        precision.append(sum(np.mean(relevant[: i + 1]) for i in range(r) if relevant[i]) / r)
    result = retrieval.evaluate(inputs)
    assert result.numbers["retrieval/recall_at_5"] == pytest.approx(np.mean(recall))
    assert result.numbers["retrieval/map_at_r"] == pytest.approx(np.mean(precision))


def test_calibration_of_a_case_worked_by_hand():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    # Bins of width 1/15: two at 0.9 (half right), one at 0.65 and one at 0.6 (in (8/15, 9/15]).
    bins = calibration.equal_width(np.log(p), labels)
    assert bins.error() == pytest.approx(0.5 * 0.4 + 0.25 * 0.35 + 0.25 * 0.4)
    assert calibration.brier(np.log(p), labels) == pytest.approx(
        (0.02 + 1.62 + 2 * 0.35**2 + 2 * 0.4**2) / 4
    )
    assert calibration.negative_log_likelihood(np.log(p), labels) == pytest.approx(
        metrics.log_loss(labels, p)
    )


def test_groups_of_equal_size_hold_equally_many():
    rng = np.random.default_rng(0)
    log_p = special.log_softmax(rng.normal(size=(150, 4)), 1)
    bins = calibration.equal_size(log_p, rng.integers(4, size=150))
    np.testing.assert_allclose(bins.weight, 1 / 15)
    assert (np.diff(bins.confidence) >= 0).all()


def test_the_temperature_undoes_a_factor_of_the_scores():
    rng = np.random.default_rng(0)
    scores = 2 * rng.normal(size=(20_000, 4))
    labels = (special.softmax(scores, 1).cumsum(1) < rng.random((20_000, 1))).sum(1)
    assert calibration.fit_temperature(5 * scores, labels) == pytest.approx(5, rel=0.05)


def test_calibration_with_a_temperature_is_that_of_the_divided_scores(inputs):
    result = calibration.evaluate(inputs).numbers
    divided = dataclasses.replace(inputs, test_scores=inputs.test_scores / 2, temperature=None)
    plain = calibration.evaluate(divided).numbers
    assert result["calibration/scaled_ece"] == pytest.approx(plain["calibration/ece"], abs=1e-6)
    assert result["calibration/scaled_nll"] == pytest.approx(plain["calibration/nll"])
    assert "calibration/scaled_ece" not in plain


def test_the_names_of_the_evaluations_are_those_of_the_setting():
    names = [*registry.EVALUATIONS, "label_free", *network_registry.EVALUATIONS]
    assert sorted(names) == sorted(config.EVALUATIONS)


def test_selective_accuracies_of_a_case_worked_by_hand():
    scores = np.log([[0.6, 0.4], [0.99, 0.01], [0.2, 0.8], [0.7, 0.3]])
    labels = np.array([1, 0, 1, 1])
    order, risks = selective.risk_curve(scores, labels)
    assert order.tolist() == [1, 2, 3, 0]
    assert risks.tolist() == [0, 0, pytest.approx(1 / 3), 0.5]


def test_the_effective_rank_counts_equal_directions_and_ignores_scale():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    assert geometry.effective_rank(basis[:, :7]) == pytest.approx(7)
    assert geometry.effective_rank(100 * basis[:, :7].T) == pytest.approx(7)
    assert geometry.effective_rank(np.ones((9, 4))) == pytest.approx(1, abs=1e-3)
    features = rng.normal(size=(40, 6))
    p = np.linalg.svd(features, compute_uv=False)
    expected = np.exp(stats.entropy(p))
    assert geometry.effective_rank(features) == pytest.approx(expected, rel=1e-9)


def test_uniformity_and_cosines_are_those_of_plain_loops(inputs):
    unit = neighbours.unit_rows(inputs.test_features[:30]).astype(np.float64)
    labels = inputs.test_labels[:30]
    pairs = [(i, j) for i in range(30) for j in range(i)]
    kernel = [math.exp(-2 * np.sum((unit[i] - unit[j]) ** 2)) for i, j in pairs]
    assert geometry.uniformity(unit) == pytest.approx(math.log(np.mean(kernel)), rel=1e-6)
    same = [unit[i] @ unit[j] for i, j in pairs if labels[i] == labels[j]]
    other = [unit[i] @ unit[j] for i, j in pairs if labels[i] != labels[j]]
    assert geometry.mean_cosines(unit, labels) == pytest.approx((np.mean(same), np.mean(other)))


@pytest.mark.parametrize("name", registry.EVALUATIONS)
def test_every_evaluation_names_its_numbers_and_draws_its_figures(inputs, name):
    result = registry.EVALUATIONS[name](inputs)
    assert result.numbers and result.rows
    for key, value in result.numbers.items():
        assert key.startswith(f"{name}/")
        assert np.isfinite(value).all()
        if key.endswith("_95"):
            low, high = value
            assert low <= result.numbers[key.removesuffix("_95")] <= high
    for draw in result.figures.values():
        target = figure.Figure()
        draw(target)
        assert target.axes


def test_lidar_counts_the_directions_in_which_images_differ_more_than_views():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3000, 1, 8)) * [10, 10, 10, 0, 0, 0, 0, 0]
    noise = rng.normal(size=(3000, 10, 8))
    assert label_free.lidar(images + noise) == pytest.approx(3, rel=0.05)
    # Directions in which views vary as much as images do not count, however large they are.
    loud = noise * [1, 1, 1, 1000, 1, 1, 1, 1]
    assert label_free.lidar(images + loud) == pytest.approx(3, rel=0.05)
    assert geometry.effective_rank((images + loud)[:, 0]) < 2


def test_lidar_is_that_of_its_definition():
    views = np.random.default_rng(0).normal(size=(20, 4, 3))
    means = views.mean(1)
    between = sum(np.outer(m - means.mean(0), m - means.mean(0)) for m in means) / 20
    within = sum(np.outer(v - m, v - m) for vs, m in zip(views, means) for v in vs) / 80
    root = linalg.fractional_matrix_power(within + 1e-4 * np.eye(3), -0.5)
    eigenvalues = np.linalg.eigvalsh(root @ between @ root)
    p = eigenvalues / eigenvalues.sum() + 1e-7
    expected = math.exp(-sum(p * np.log(p)))
    assert label_free.lidar(views) == pytest.approx(expected, rel=1e-6)


def test_label_free_numbers_of_a_case_worked_by_hand():
    eye = np.eye(4, dtype=np.float32)
    # The third image's second view is nearest to the second image's.
    first, second = eye, np.float32([eye[0], eye[1], [0, 0.6, 0, 0.8], eye[3]])
    views = label_free.Views(np.stack([first, second], 1), np.stack([first, second], 1))
    result = label_free.evaluate(views)
    assert result.numbers["label_free/view_retrieval"] == 0.75
    assert result.numbers["label_free/alignment"] == pytest.approx(2 / 4)
    assert result.numbers["label_free/uniformity"] == pytest.approx(-4)
    assert result.numbers["label_free/rankme"] == pytest.approx(4)


@pytest.mark.exhaustive
def test_the_map_keeps_separate_groups_apart():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 30)
    features = (10 * np.eye(3, 8)[labels] + rng.normal(size=(90, 8))).astype(np.float32)
    points = map_lib.positions(neighbours.unit_rows(features), seed=0)
    assert metrics.silhouette_score(points, labels) > 0.5
    inputs = outcome.Inputs(
        *(features, labels, features, labels, np.eye(3)[labels], None), ("a", "b", "c"), seed=0
    )
    assert map_lib.evaluate(inputs).numbers["map/trustworthiness"] > 0.9
