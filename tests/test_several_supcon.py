"""SupCon of several labels equals its formula in loops, on any number of replicas and in tiles."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import replicas as over
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf.losses import several_supcon, supcon
from simclr_tf.training import objectives

TAU = 0.3
RNG = np.random.default_rng(0)
VIEWS = RNG.normal(size=(3, 8, 4))
LABELS = RNG.choice([1, 0, -1], (8, 5), p=[0.4, 0.4, 0.2]).astype(np.int32)
LABELS[2], LABELS[5], LABELS[:, 4] = 0, -1, np.eye(8, dtype=np.int32)[0]  # None, unknown, alone.


def _by_loops(views, labels):
    """The formula of Zhang and Wu, one view and one of its classes at a time, in float64."""
    z = views / np.linalg.norm(views, axis=2, keepdims=True)
    all_views = [(side, image) for side in range(len(z)) for image in range(z.shape[1])]
    losses = []
    for one in all_views:
        others = [other for other in all_views if other != one]
        log_total = np.log(sum(np.exp(z[one] @ z[other] / TAU) for other in others))
        classes = np.flatnonzero(labels[one[1]] == 1)
        positives = [[p for p in others if labels[p[1], c] == 1] for c in classes]
        for found in positives or [[p for p in others if p[1] == one[1]]]:
            losses.append(log_total - np.mean([z[one] @ z[p] / TAU for p in found]))
    return np.mean(losses)


def _loss(tile=None, **settings):
    def loss(views, labels):
        return several_supcon.several_supcon(
            tf.unstack(views), labels, temperature=TAU, tile=tile, **settings
        )

    return loss


@pytest.mark.parametrize("tile", [None, 4])
@pytest.mark.parametrize("count", [1, 2])
def test_value_and_gradient_are_those_of_the_formula(count, tile):
    value, gradient = over.value_and_gradient(_loss(tile), VIEWS, LABELS, replicas=count)
    assert value == pytest.approx(_by_loops(VIEWS, LABELS), rel=1e-9)
    want = over.numerical_gradient(lambda views: _by_loops(views, LABELS), VIEWS)
    np.testing.assert_allclose(gradient, want, atol=1e-7)


def test_with_one_class_each_it_is_supcon():
    classes = np.array([0, 1, 0, 2, 0, 1, 3, -1], np.int32)
    one_hot = np.where(classes[:, np.newaxis] == np.arange(4), 1, 0).astype(np.int32)

    def of_one(views, labels):
        return supcon.supcon(tf.unstack(views), labels, temperature=TAU).loss

    found = over.value_and_gradient(_loss(), VIEWS, one_hot)
    want = over.value_and_gradient(of_one, VIEWS, classes)
    assert found[0] == pytest.approx(want[0], rel=1e-12)
    np.testing.assert_allclose(found[1], want[1], atol=1e-12)


def test_the_objective_of_a_run_takes_it_where_labels_are_several():
    config = dataclasses.replace(config_lib.Config(), objective="supcon", temperature=TAU)
    objective = objectives.make_objective(config)
    found = over.value_and_gradient(
        lambda views, labels: objective.loss(tf.unstack(views), labels)[0], VIEWS, LABELS
    )
    assert found[0] == pytest.approx(_by_loops(VIEWS, LABELS), rel=1e-9)


def test_it_may_be_multiplied_by_the_temperature():
    scaled = over.value_and_gradient(_loss(scale_by_temperature=True), VIEWS, LABELS)[0]
    assert scaled == pytest.approx(TAU * _by_loops(VIEWS, LABELS))


def test_labels_of_another_shape_and_a_single_view_are_refused():
    for views, labels in ((VIEWS, LABELS[:, 0]), (VIEWS, LABELS[:4]), (VIEWS[:1], LABELS)):
        with pytest.raises(ValueError, match="one row for each image of two or more views"):
            several_supcon.several_supcon(tf.unstack(views), tf.constant(labels), temperature=TAU)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        several_supcon.several_supcon(tf.unstack(VIEWS), tf.constant(LABELS), temperature=0.0)
