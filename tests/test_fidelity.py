"""What is measured of a converted network, on outputs that are known."""

import numpy as np
import pytest

from simclr_tf.evaluation import comparison, fidelity, intervals

LABELS = np.array([0, 1, 1, 0, 1, -1])
# The likeliest classes: 0 1 1 0 0 0, and of the converted form 0 0 1 1 1 0.
BEFORE = np.array([[3, 0], [0, 2], [0, 1], [1, 0], [1, 0], [1, 0]], np.float32)
AFTER = np.array([[2, 0], [1, 0], [0, 1], [0, 1], [0, 1], [1, 0]], np.float32)


def test_accuracies_are_of_the_labelled_images_and_their_difference_is_paired():
    found = fidelity.compare({"logits": BEFORE}, {"logits": AFTER}, LABELS)
    assert found["accuracy_float32"] == pytest.approx(4 / 5)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["accuracy_difference"] == pytest.approx(-1 / 5)
    assert found["changed_predictions"] == pytest.approx(3 / 6)
    hits = [np.argmax(one, 1)[:5] == LABELS[:5] for one in (BEFORE, AFTER)]
    want = comparison.compare(*hits, seed=0).difference
    assert found["accuracy_difference_95"] == [want.low, want.high]
    assert found["accuracy_95"] == list(intervals.accuracy(hits[1])[1:])


def test_images_in_groups_have_intervals_over_groups():
    groups = np.array(["a", "a", "b", "b", "c", "c"])
    found = fidelity.compare({"logits": BEFORE}, {"logits": AFTER}, LABELS, groups=groups)
    alone = fidelity.compare({"logits": BEFORE}, {"logits": AFTER}, LABELS)
    assert found["accuracy"] == alone["accuracy"]
    assert found["accuracy_difference_95"] != alone["accuracy_difference_95"]


def test_features_are_compared_by_their_directions():
    one = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], np.float32)
    other = np.array([[6.0, 8.0], [3.0, 4.0], [0.0, 0.0]], np.float32)
    found = fidelity.compare({"features": one}, {"features": other}, None)
    assert found == {
        "cosine_of": "features",
        "cosine": pytest.approx((1 + 0.6 + 1) / 3),
        "cosine_least": pytest.approx(0.6),
    }


def test_without_labels_there_is_no_accuracy():
    for labels in (None, np.full(6, -1)):
        found = fidelity.compare({"logits": BEFORE}, {"logits": AFTER}, labels)
        assert "accuracy" not in found and found["changed_predictions"] == 0.5


def test_the_likeliest_class_is_known_from_any_output_of_classes():
    order = np.argsort(-BEFORE, axis=1)
    for outputs in ({"logits": BEFORE}, {"probabilities": BEFORE}, {"top_classes": order}):
        np.testing.assert_array_equal(fidelity.predictions(outputs), order[:, 0])
    assert fidelity.predictions({"features": BEFORE}) is None
