"""Encoders of Keras and of users: inputs, batch norms, random layers, and the whole program."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import replicas
import tensorflow as tf
import tiny_runs

from benchmarks import sizes
from simclr_tf import keras_api, pixel_format
from simclr_tf.commands import train
from simclr_tf.models import batch_norm, keras_encoders, layers, simclr, stem_channels
from simclr_tf.runs import initialization
from simclr_tf.serving import servable as servables

SLOW = [pytest.mark.slow, pytest.mark.exhaustive]


def _encoder(encoder, *, image_size=32, seed=0, dtype="float32", momentum=0.9, channels=3):
    make = layers.LayerMaker(tf.keras.mixed_precision.Policy(dtype), seed, bn_momentum=momentum)
    return keras_encoders.KerasEncoder(
        make, encoder=encoder, image_size=image_size, channels=channels
    )


def _images(n=4, side=32):
    return tf.random.stateless_uniform([n, side, side, 3], [1, 2])


def _norms(encoder):
    return [x for x in keras_api.layers_in(encoder) if isinstance(x, batch_norm.BatchNorm)]


@pytest.mark.parametrize(
    ("name", "width", "norms"),
    [
        ("MobileNetV3Small", 576, True),
        pytest.param("EfficientNetV2B0", 1280, True, marks=SLOW),
        pytest.param("ConvNeXtTiny", 768, False, marks=SLOW),
    ],
)
def test_an_application_returns_features_of_images(name, width, norms):
    encoder = _encoder(f"keras:{name}")
    features = encoder(_images(), training=True)["features"]
    assert features.shape == (4, width) and features.dtype == tf.float32
    assert encoder.num_features == width
    assert bool(_norms(encoder)) == norms
    replaced = keras_api.BATCH_NORMS
    assert not any(isinstance(x, replaced) for x in keras_api.layers_in(encoder))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_an_adapter_averages_thirds_of_the_channels(channels):
    weights = stem_channels.averaging(channels, 3)
    # Of each channel three copies, so that thirds are whole.
    thirds = np.repeat(np.eye(channels), 3, axis=0).reshape(3, channels, channels).mean(axis=1)
    np.testing.assert_allclose(weights, thirds.T, atol=1e-15)
    np.testing.assert_allclose(weights.sum(0), 1)


def test_images_of_other_channels_pass_an_adapter_before_the_preprocessing():
    encoder, adapted = (_encoder("keras:MobileNetV3Small", channels=c) for c in (3, 6))
    assert encoder.adapter is None
    assert len(adapted.variables) == len(encoder.variables) + 1
    images = _images()
    want = encoder(images, training=False)["features"]
    pairs = tf.repeat(images, 2, axis=3)  # Each colour twice, whose means are the colours.
    np.testing.assert_allclose(adapted(pairs, training=False)["features"], want, atol=1e-5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(adapted(pairs, training=True)["features"] ** 2)
    assert np.abs(tape.gradient(loss, adapted.adapter.kernel)).max() > 0
    adapted.freeze(0)
    assert not adapted.trainable_variables


def test_an_adapted_encoder_starts_from_weights_of_pictures():
    architecture = dataclasses.replace(
        tiny_runs.ARCHITECTURE, encoder="keras:MobileNetV3Small", image_size=32
    )
    six = dataclasses.replace(architecture, pixels=pixel_format.of_dtype(6, "uint16"))
    source, model, other = (
        simclr.SimCLR(one, seed=seed, global_bn=False)
        for seed, one in enumerate((architecture, six, six))
    )
    assert initialization._copy_encoder(source, model, 6) is None
    for old, new in zip(source.encoder.variables, model.encoder.network.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    assert "its adapter takes 6 channels" in initialization._copy_encoder(other, model, 6)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        # The inputs of each family's published weights, for images x in [0, 1].
        ("MobileNetV2", lambda x: 2 * x - 1),
        ("ResNet50", lambda x: 255 * x[..., ::-1] - [103.939, 116.779, 123.68]),
        ("DenseNet121", lambda x: (x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
        # These contain layers that scale images in [0, 255].
        ("EfficientNetV2B0", lambda x: 255 * x),
        ("MobileNetV3Small", lambda x: 255 * x),
        ("ConvNeXtTiny", lambda x: 255 * x),
    ],
)
def test_the_input_of_an_application_is_preprocessed_as_its_weights_expect(name, want):
    preprocess = keras_encoders._find(f"keras:{name}")[1]
    x = _images().numpy()
    np.testing.assert_allclose(preprocess(tf.constant(x)), want(x.astype(np.float64)), atol=1e-3)


def test_a_network_with_a_normalization_layer_maps_imagenets_mean_to_zero():
    network = _encoder("keras:EfficientNetV2B0").network
    (scaling,) = (x for x in network.layers if isinstance(x, tf.keras.layers.Normalization))
    rescaling = network.layers[network.layers.index(scaling) - 1]
    mean = 255 * tf.constant([[[[0.485, 0.456, 0.406]]]]) * tf.ones([1, 32, 32, 1])
    np.testing.assert_allclose(scaling(rescaling(mean)), 0, atol=1e-5)


def test_batch_norms_keep_their_epsilon_and_have_the_momentum_of_the_network():
    encoder = _encoder("tiny_encoders:sequential", image_size=8, momentum=0.6)
    (norm,) = _norms(encoder)
    assert (norm.epsilon, norm.momentum, norm.scale) == (0.1, 0.6, False)
    x = encoder.network.layers[0](_images(side=8)).numpy().astype(np.float64)
    encoder(_images(side=8), training=True)
    np.testing.assert_allclose(norm.moving_mean, 0.4 * x.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    want = 0.6 + 0.4 * x.var((0, 1, 2))
    np.testing.assert_allclose(norm.moving_variance, want, rtol=1e-4)
    normal = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 0.1)
    np.testing.assert_allclose(norm(x, training=True), normal, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("encoder", ["tiny_encoders:sequential", "tiny_encoders:nested"])
def test_outputs_are_not_random(encoder):
    encoder = _encoder(encoder, image_size=8)
    one, other = (encoder(_images(side=8), training=True)["features"] for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_a_block_that_is_used_twice_remains_one_block_and_a_frozen_layer_frozen():
    encoder = _encoder("tiny_encoders:nested", image_size=8)
    shared, frozen = sorted(_norms(encoder), key=lambda norm: not norm.trainable)
    before = [v.numpy() for v in frozen.variables]
    encoder.freeze(-1)
    encoder(_images(side=8), training=True)
    assert all(np.array_equal(v, b) for v, b in zip(frozen.variables, before))
    assert np.any(shared.moving_mean.numpy())
    assert len(encoder.trainable_variables) == 4  # A kernel, a bias, gamma and beta.


def test_initial_weights_are_a_function_of_the_seed_and_numpy_is_not_reseeded():
    def weights(seed):
        np.random.seed(seed)
        encoder = _encoder("tiny_encoders:sequential", image_size=8, seed=seed)
        assert np.random.random() == np.random.RandomState(seed).random_sample()
        return [v.numpy() for v in encoder.variables]

    assert all(np.array_equal(a, b) for a, b in zip(weights(1), weights(1)))
    assert not all(np.array_equal(a, b) for a, b in zip(weights(1), weights(2)))


def test_a_frozen_encoder_neither_trains_nor_updates_its_averages():
    encoder = _encoder("tiny_encoders:sequential", image_size=8)
    encoder.freeze(4)
    before = [v.numpy() for v in encoder.variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder(_images(side=8), training=True)["features"])
    assert encoder.trainable_variables == [] and tape.gradient(loss, encoder.variables[0]) is None
    assert all(np.array_equal(v, b) for v, b in zip(encoder.variables, before))


def test_replicas_normalise_by_the_statistics_of_the_global_batch():
    def trained(count):
        strategy = replicas.strategy(count)
        with strategy.scope():
            encoder = _encoder("tiny_encoders:sequential", image_size=8)
        slices = tf.split(_images(8, 8), count)
        of_replicas = strategy.experimental_distribute_values_from_function(
            lambda context: slices[context.replica_id_in_sync_group]
        )
        run = tf.function(
            lambda x: strategy.run(lambda x: encoder(x, training=True), (x,)), autograph=False
        )
        features = strategy.experimental_local_results(run(of_replicas)["features"])
        return np.concatenate(features), _norms(encoder)[0].moving_variance.numpy()

    for one, two in zip(trained(1), trained(2)):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_layers_compute_in_mixed_precision_and_features_are_float32(dtype):
    encoder = _encoder("tiny_encoders:nested", image_size=8, dtype=dtype)
    assert encoder.network.layers[-1].compute_dtype == dtype[len("mixed_") :]
    assert all(variable.dtype == tf.float32 for variable in encoder.variables)
    features = encoder(_images(side=8), training=True)["features"]
    assert features.dtype == tf.float32
    expected = _encoder("tiny_encoders:nested", image_size=8)(_images(side=8), training=True)
    np.testing.assert_allclose(features, expected["features"], rtol=0.1, atol=0.02)
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def test_sizes_equal_those_that_keras_counts():
    architecture = dataclasses.replace(
        tiny_runs.ARCHITECTURE, encoder="tiny_encoders:sequential", image_size=8
    )
    size = sizes.of_encoder(architecture)
    model = simclr.make_encoder(architecture).network
    assert size.parameters == sum(np.prod(v.shape) for v in model.trainable_weights)
    assert size.parameters + size.averages == model.count_params()
    assert size.multiply_adds == (3 * 3) * (3 * 3 * 3 * 8) + (3 * 3 * 8) * 6
    assert size.features == 6


@pytest.mark.keras2(reason="Keras 3 does not convert Python control flow in layers")
def test_an_exported_encoder_keeps_its_python_control_flow():
    architecture = dataclasses.replace(
        tiny_runs.ARCHITECTURE, encoder="tiny_encoders:branching", image_size=8
    )
    model = simclr.SimCLR(architecture, seed=0)
    servable = servables.Servable(model)
    for darkest in (0.0, 0.7):
        images = darkest + 0.2 * _images(2, 8)
        np.testing.assert_allclose(
            servable.of_images(images)["features"], model.infer(images)["features"], rtol=1e-5
        )


@pytest.mark.exhaustive
def test_the_program_trains_evaluates_exports_and_fine_tunes_an_encoder(
    tmp_path, photos, capsys, monkeypatch
):
    monkeypatch.setattr(train, "_show_views", lambda *_: None)
    # With Python control flow on tensors, which every tf.function of the program must convert.
    name = {"encoder": "tiny_encoders:branching"}
    quick = {**tiny_runs.NO_COLOR, "train_steps": 2, "linear_eval_examples": 12}
    assert tiny_runs.main("train_then_eval", tmp_path / "a", photos, **name, **quick) == 0
    architecture = tiny_runs.json_of(tmp_path / "a" / "architecture.json")
    assert architecture["encoder"] == name["encoder"]
    assert "tiny_encoders:branching, 6 features" in capsys.readouterr().out
    (folder,) = (tmp_path / "a" / "saved_model").iterdir()
    images = _images(2, 8)
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    assert serve(images=images)["features"].shape == (2, 6)
    tuned = {"checkpoint": tmp_path / "a", "fine_tune_after_block": 4, "train_steps": 1}
    assert tiny_runs.main("finetune", tmp_path / "b", photos, **tuned) == 0
    old, new = (tiny_runs.part(tiny_runs.weights(tmp_path / d), "encoder") for d in "ab")
    assert tiny_runs.equal(old, new)
