"""ResNets: sizes of the papers, stems, freezing, and initial weights."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import errors
from simclr_tf.models import layers, resnet


def _encoder(depth, *, width=1, stem="small", seed=0, dtype="float32"):
    make = layers.LayerMaker(tf.keras.mixed_precision.Policy(dtype), seed)
    return resnet.ResNet(make, depth=depth, width_multiplier=width, stem=stem)


def _millions(encoder):
    return sum(np.prod(v.shape) for v in encoder.trainable_variables) / 1e6


@pytest.mark.parametrize(("depth", "published"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_the_cifar_family_has_the_size_of_its_paper(depth, published):
    encoder = _encoder(depth)
    encoder(tf.zeros([1, 8, 8, 3]))
    assert _millions(encoder) == pytest.approx(published, abs=0.011)


@pytest.mark.parametrize("depth", resnet.DEPTHS)
def test_every_depth_is_the_number_of_layers(depth):
    encoder = _encoder(depth)
    convolutions = sum(len(block.convs) for group in encoder.groups for block in group)
    assert convolutions + 2 == depth  # The stem, and the classifier of the paper.


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_features_are_float32_and_maps_come_by_name(dtype):
    outputs = _encoder(18, stem="imagenet", dtype=dtype)(tf.zeros([2, 64, 64, 3]))
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    assert shapes == {
        "features": (2, 512),
        "final_avg_pool": (2, 512),
        "initial_conv": (2, 32, 32, 64),
        "initial_max_pool": (2, 16, 16, 64),
        "block_group1": (2, 16, 16, 64),
        "block_group2": (2, 8, 8, 128),
        "block_group3": (2, 4, 4, 256),
        "block_group4": (2, 2, 2, 512),
    }
    assert outputs["features"].dtype == tf.float32


def test_the_small_stem_keeps_the_resolution():
    outputs = _encoder(20)(tf.zeros([1, 32, 32, 3]))
    assert tuple(outputs["block_group1"].shape) == (1, 32, 32, 16)
    assert tuple(outputs["initial_max_pool"].shape) == (1, 32, 32, 16)  # Without pooling.


def test_the_first_map_is_that_of_the_convolution_alone():
    encoder = _encoder(20)
    x = tf.random.stateless_uniform([1, 8, 8, 3], [0, 0])
    np.testing.assert_array_equal(encoder(x)["initial_conv"], encoder.stem_conv(x))
    assert float(tf.reduce_min(encoder(x)["initial_conv"])) < 0


def test_the_documented_model_of_one_map_returns_that_map():
    encoder = _encoder(20)
    x = tf.keras.Input([8, 8, 3])
    images = tf.random.stateless_uniform([2, 8, 8, 3], [0, 0])
    found = tf.keras.Model(x, encoder(x)["block_group2"])(images)
    np.testing.assert_allclose(found, encoder(images)["block_group2"], rtol=1e-6)


def test_initial_weights_are_a_function_of_the_seed():
    def weights(seed):
        tf.random.set_seed(np.random.randint(1000))  # This must not matter.
        encoder = _encoder(8, seed=seed)
        encoder(tf.zeros([1, 8, 8, 3]))
        return [v.numpy() for v in encoder.variables]

    for one, other in zip(weights(3), weights(3)):
        np.testing.assert_array_equal(one, other)
    assert any(np.any(one != other) for one, other in zip(weights(3), weights(4)))


def test_kernels_of_one_shape_have_different_initial_weights():
    encoder = _encoder(8)
    encoder(tf.zeros([1, 8, 8, 3]))
    kernels = [v.numpy() for v in encoder.trainable_variables if v.shape == (3, 3, 16, 16)]
    assert len(kernels) == 2 and np.any(kernels[0] != kernels[1])


def test_residual_branches_are_initially_zero():
    # With a zero last gamma, the first block is its projection, the others the identity.
    encoder = _encoder(20)
    outputs = encoder(tf.random.stateless_uniform([2, 8, 8, 3], [0, 0]), training=True)
    first = encoder.groups[0][0]
    shortcut = first.projection_norm(first.projection(outputs["initial_max_pool"]), training=True)
    np.testing.assert_allclose(outputs["block_group1"], tf.nn.relu(shortcut), rtol=1e-5, atol=1e-6)


def test_strided_convolutions_pad_equally_on_both_sides():
    # "SAME" pads an even image on the right only, which would shift maps of published weights.
    make = layers.LayerMaker(tf.keras.mixed_precision.Policy("float32"), 0)
    conv = make.conv(1, 3, 2)
    x = np.arange(64.0).reshape(8, 8)
    conv(x[np.newaxis, :, :, np.newaxis])
    conv.layers[-1].kernel.assign(tf.ones([3, 3, 1, 1]))
    padded = np.pad(x, 1)
    want = [[padded[i : i + 3, j : j + 3].sum() for j in range(0, 8, 2)] for i in range(0, 8, 2)]
    np.testing.assert_allclose(conv(x[np.newaxis, :, :, np.newaxis])[0, :, :, 0], want)


@pytest.mark.parametrize("after_block", [-1, 0, 1, 3])
def test_frozen_groups_neither_train_nor_update_their_averages(after_block):
    encoder = _encoder(8)
    x = tf.random.stateless_uniform([4, 8, 8, 3], [0, 0])
    encoder(x)
    encoder.freeze(after_block)
    before = [[v.numpy() for b in group for v in b.variables] for group in encoder.groups]
    stem_before = encoder.stem_norm.moving_mean.numpy()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder(x, training=True)["features"] ** 2)
    gradients = tape.gradient(loss, encoder.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    assert np.array_equal(stem_before, encoder.stem_norm.moving_mean) == (after_block >= 0)
    for index, (group, old) in enumerate(zip(encoder.groups, before), 1):
        new = [v.numpy() for b in group for v in b.variables]
        same = all(np.array_equal(a, b) for a, b in zip(new, old))
        assert same == (index <= after_block)
        assert all(block.trainable == (index > after_block) for block in group)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 19}, "depth=19 must be one of 18, 34"),
        ({"depth": 18, "width": 0}, "width_multiplier=0 must be 1 or more"),
        ({"depth": 18, "stem": "huge"}, "stem='huge' must be one of small, imagenet"),
    ],
)
def test_rejects_arguments_of_networks_that_do_not_exist(arguments, message):
    with pytest.raises(errors.ArgumentError, match=message):
        _encoder(**arguments)
