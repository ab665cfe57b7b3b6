"""Extraction of features: every example once, and without changing the network."""

import numpy as np
import pytest
import replicas as testing_replicas
import tensorflow as tf
import tiny_runs

from simclr_tf.data import policies, sources
from simclr_tf.evaluation import features, forward
from simclr_tf.models import simclr

COUNT = 36  # Images in the training split of the folder.


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tiny_runs.photos(tmp_path_factory)
    return sources.open_source("image_folder", data_dir=str(folder), seed=0)


@pytest.fixture
def model():
    return simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=0)


@pytest.mark.parametrize("limit", [1, 7, 8, 9, 35])
def test_a_limit_counts_examples_and_not_batches(source, model, limit):
    whole = features.extract(forward.Forward(model), source, "train", batch_size=8)
    some = features.extract(forward.Forward(model), source, "train", batch_size=8, limit=limit)
    assert len(whole.features) == len(whole.logits) == len(whole.labels) == COUNT
    assert len(some.features) == len(some.logits) == len(some.labels) == limit
    np.testing.assert_array_equal(some.labels, whole.labels[:limit])
    np.testing.assert_allclose(some.features, whole.features[:limit], rtol=1e-5, atol=1e-6)
    assert len(np.unique(whole.features, axis=0)) == COUNT


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_split_batches_and_return_each_example_once(source, model, replicas):
    """With batches of 7, the 36 examples do not divide by anything."""
    outputs = forward.Outputs(pixels=True)
    expected = features.extract(
        forward.Forward(model, outputs=outputs), source, "train", batch_size=36
    )
    strategy = testing_replicas.strategy(replicas)
    with strategy.scope():
        copy = simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=0)
    found = features.extract(
        forward.Forward(copy, strategy, outputs),
        source,
        "train",
        batch_size=7,
    )
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    for name in ("features", "logits"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize(
    ("images", "replicas", "expected"), [(10, 1, 10), (99, 2, 36), (1, 2, None)]
)
def test_views_are_of_different_images_and_grouped_by_image(source, images, replicas, expected):
    strategy = testing_replicas.strategy(replicas)
    with strategy.scope():
        model = simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=0)
    views = features.extract_views(
        forward.Forward(model, strategy, forward.Outputs(projection=True)),
        source,
        "train",
        policies.Policy(8, ops=("flip",)),
        images=images,
        num_views=3,
        seed=0,
    )
    if expected is None:
        assert views is None
        return
    assert views.features.shape[:2] == views.projection.shape[:2] == (expected, 3)
    stages = model.projection_head(views.features.reshape(-1, views.features.shape[2]))
    np.testing.assert_allclose(
        views.projection.reshape(stages[-1].shape), stages[-1], rtol=1e-4, atol=1e-5
    )
    # Views of one image are equal or mirrored, so at most two of three differ.
    for of_image in views.features:
        assert len(np.unique(of_image.round(4), axis=0)) <= 2
    assert len(np.unique(views.features.round(4).reshape(expected, -1), axis=0)) == expected


def test_a_limit_above_the_number_of_examples_takes_all(source, model):
    found = features.extract(forward.Forward(model), source, "train", batch_size=8, limit=COUNT + 1)
    assert len(found.features) == COUNT


@pytest.mark.parametrize("name", ["kernel", "moving_mean", "moving_variance"])
def test_a_network_that_changes_while_it_is_run_is_refused(source, model, monkeypatch, name):
    changed = next(v for v in model.encoder.variables if v.name.split("/")[-1].startswith(name))
    infer = model.infer

    def change_and_infer(images):
        changed.assign_add(tf.ones_like(changed) * 1e-3)
        return infer(images)

    monkeypatch.setattr(model, "infer", change_and_infer)
    with pytest.raises(RuntimeError, match="changed while features were extracted"):
        features.extract(forward.Forward(model), source, "train", batch_size=8, limit=8)


def test_statistics_of_batch_norm_do_not_change(source, model):
    before = [variable.numpy() for variable in model.variables]
    features.extract(forward.Forward(model), source, "train", batch_size=8, limit=8)
    for variable, old in zip(model.variables, before):
        np.testing.assert_array_equal(variable, old, variable.name)
