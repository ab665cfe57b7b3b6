"""The whole network: heads, names of outputs, what trains, and what never leaks."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf.models import simclr


def _model(**changes):
    changes = {"num_proj_layers": 3, **changes}
    return simclr.SimCLR(dataclasses.replace(tiny_runs.ARCHITECTURE, **changes), seed=0)


def _images(n=4):
    return tf.random.stateless_uniform([n, 8, 8, 3], [1, 2])


@pytest.mark.parametrize(
    ("mode", "layers", "width"), [("none", 0, 64), ("linear", 1, 16), ("nonlinear", 3, 16)]
)
def test_every_projection_head_gives_its_projection(mode, layers, width):
    model = _model(proj_head_mode=mode)
    outputs = model(_images(), training=True)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "features": (4, 64),
        "projection": (4, width),
        "logits": (4, 3),
    }
    assert len(model.projection_head.denses) == layers


def test_the_last_layer_of_the_head_has_no_relu_and_no_offset():
    model = _model()
    assert [norm.center for norm in model.projection_head.norms] == [True, True, False]
    assert float(tf.reduce_min(model(_images(), training=True)["projection"])) < 0


def test_without_class_names_there_is_no_linear_head():
    model = _model(class_names=None)
    assert model.linear_head is None
    assert set(model(_images())) == {"features", "projection"}


def test_the_linear_head_teaches_the_encoder_nothing():
    model = _model()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(_images(), training=True)["logits"] ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    taught = {v.ref() for v, g in zip(model.trainable_variables, gradients) if g is not None}
    assert taught == {v.ref() for v in model.linear_head.trainable_variables}


@pytest.mark.parametrize(("selector", "layers"), [(0, 0), (1, 1), (2, 2), (3, 3), (-1, 3)])
def test_the_classifier_reads_the_selected_stage(selector, layers):
    model = _model(ft_proj_selector=selector)
    stages = model.projection_head(model.encoder(_images())["features"])
    want = model.linear_head(stages[layers])
    np.testing.assert_allclose(model.classify(_images()), want, rtol=1e-6)
    np.testing.assert_allclose(model(_images())["logits"], want, rtol=1e-6)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model.classify(_images(), training=True) ** 2)
    gradients = tape.gradient(loss, model.classifier_variables())
    assert all(gradient is not None for gradient in gradients)


def test_lars_leaves_batch_norm_biases_and_the_linear_head_alone():
    model = _model()
    plain = {v.ref() for v in model.plain_variables()}
    linear = {v.ref() for v in model.linear_head.trainable_variables}
    for variable in model.trainable_variables:
        small = len(variable.shape) == 1
        assert (variable.ref() in plain) == (small or variable.ref() in linear), variable.name
    norms = {v.ref() for v in model.norm_variables()}
    assert norms == plain - linear


def test_the_seed_decides_the_whole_start():
    for one, other in zip(_model().variables, _model().variables):
        np.testing.assert_array_equal(one, other)
