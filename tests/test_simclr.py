"""The whole network: heads, outputs, gradients and groups of variables."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf import keras_api, storage
from simclr_tf.models import simclr
from simclr_tf.runs import directory


def _model(**changes):
    changes = {"num_proj_layers": 3, **changes}
    return simclr.SimCLR(dataclasses.replace(tiny_runs.ARCHITECTURE, **changes), seed=0)


def _images(n=4):
    return tf.random.stateless_uniform([n, 8, 8, 3], [1, 2])


@pytest.mark.parametrize(
    ("mode", "layers", "width"), [("none", 0, 64), ("linear", 1, 16), ("nonlinear", 3, 16)]
)
def test_every_projection_head_returns_a_projection(mode, layers, width):
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


@pytest.mark.parametrize(
    ("settings", "widths", "biases"),
    [
        ({"num_proj_layers": 2}, [64, 16], [True, False]),
        ({"proj_head_mode": "linear"}, [16], [False]),
    ],
)
def test_a_head_without_batch_norm_is_the_head_of_supcon(settings, widths, biases):
    model = _model(proj_head_bn=False, **settings)
    head = model.projection_head
    assert [dense.units for dense in head.denses] == widths
    assert [dense.use_bias for dense in head.denses] == biases
    assert head.norms == []
    for dense in head.denses[:-1]:
        dense.bias.assign(tf.random.stateless_normal(dense.bias.shape, [3, 4]))
    features = model.encoder(_images())["features"].numpy().astype(np.float64)
    want = features
    for dense in head.denses:
        want = want @ dense.kernel.numpy().astype(np.float64)
        if dense.use_bias:
            want = np.maximum(want + dense.bias.numpy(), 0)
    # Without batch norm, training and inference agree.
    for training in (False, True):
        np.testing.assert_allclose(head(features, training=training)[-1], want, atol=1e-5)


def test_two_layers_on_a_resnet_50_are_the_head_of_2048_and_128_units_of_supcon():
    settings = {"resnet_depth": 50, "num_proj_layers": 2, "proj_out_dim": 128}
    model = _model(proj_head_bn=False, **settings)
    shapes = [tuple(v.shape) for v in model.projection_head.trainable_variables]
    assert sorted(shapes) == [(2048,), (2048, 128), (2048, 2048)]


def test_lars_excludes_biases_of_the_projection_head_and_they_are_not_those_of_norms():
    model = _model(proj_head_bn=False)
    biases = {keras_api.raw(dense.bias).ref() for dense in model.projection_head.denses[:-1]}
    assert len(biases) == 2
    assert not biases & {v.ref() for v in model.norm_variables()}
    assert biases <= {v.ref() for v in model.lars_excluded_variables()}


@pytest.mark.parametrize("mixed_precision", ["none", "bfloat16"])
def test_normalised_features_are_the_float32_input_of_both_heads(mixed_precision):
    architecture = dataclasses.replace(tiny_runs.ARCHITECTURE, normalize_features=True)
    model = simclr.SimCLR(architecture, seed=0, mixed_precision=mixed_precision)
    outputs = model(_images())
    raw = model.encoder(_images())["features"].numpy().astype(np.float64)
    want = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert outputs["features"].dtype == tf.float32
    np.testing.assert_allclose(outputs["features"], want, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(outputs["logits"], model.linear_head(want), atol=1e-6)
    projection = model.projection_head(tf.constant(want, tf.float32))[-1]
    np.testing.assert_allclose(outputs["projection"], projection, atol=1e-6)
    np.testing.assert_allclose(model.classify(_images()), outputs["logits"], atol=1e-6)
    inferred = model.infer(_images())
    assert set(inferred) == {"features", "logits"}
    for name, value in inferred.items():
        np.testing.assert_allclose(value, outputs[name], atol=1e-6)


def test_reads_an_architecture_stored_before_the_newer_settings(tmp_path):
    newer = ("proj_head_bn", "normalize_features")
    stored = dataclasses.asdict(tiny_runs.ARCHITECTURE)
    older = {name: value for name, value in stored.items() if name not in newer}
    storage.write_json(str(tmp_path / "architecture.json"), older)
    assert directory.read_architecture(str(tmp_path)) == tiny_runs.ARCHITECTURE


def test_without_class_names_there_is_no_linear_head():
    model = _model(class_names=None)
    assert model.linear_head is None
    assert set(model(_images())) == {"features", "projection"}
    assert set(model.infer(_images())) == {"features"}


def test_the_linear_head_does_not_train_the_encoder():
    model = _model()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(_images(), training=True)["logits"] ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    trained = {v.ref() for v, g in zip(model.trainable_variables, gradients) if g is not None}
    assert trained == {v.ref() for v in model.linear_head.trainable_variables}


@pytest.mark.parametrize(("selector", "layers"), [(0, 0), (1, 1), (2, 2), (3, 3), (-1, 3)])
def test_the_input_of_the_classifier_is_the_selected_stage(selector, layers):
    model = _model(ft_proj_selector=selector)
    stages = model.projection_head(model.encoder(_images())["features"])
    want = model.linear_head(stages[layers])
    np.testing.assert_allclose(model.classify(_images()), want, rtol=1e-6)
    np.testing.assert_allclose(model(_images())["logits"], want, rtol=1e-6)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model.classify(_images(), training=True) ** 2)
    gradients = tape.gradient(loss, model.classifier_variables())
    assert all(gradient is not None for gradient in gradients)


def test_lars_excludes_variables_of_batch_norm_biases_and_the_linear_head():
    model = _model()
    plain = {v.ref() for v in model.lars_excluded_variables()}
    linear = {v.ref() for v in model.linear_head.trainable_variables}
    for variable in model.trainable_variables:
        small = len(variable.shape) == 1
        assert (variable.ref() in plain) == (small or variable.ref() in linear), variable.name
    norms = {v.ref() for v in model.norm_variables()}
    assert norms == plain - linear


def test_the_seed_determines_all_initial_weights():
    for one, other in zip(_model().variables, _model().variables):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("encoder", "needed"),
    [("resnet", False), ("keras:MobileNetV3Small", False), ("tiny_encoders:branching", True)],
)
def test_only_a_users_own_encoder_needs_autograph(encoder, needed):
    model = _model()
    model.architecture = dataclasses.replace(model.architecture, encoder=encoder)
    assert model.needs_autograph == needed
