"""Selective kernels, squeeze-excitation and ResNet-D equal loops in float64 NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.models import batch_norm, channel_attention, layers, resnet, resnet_d


def _make(dtype="float32"):
    return layers.LayerMaker(tf.keras.mixed_precision.Policy(dtype), 0)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _random(shape, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=shape)


def _kernel(layer):
    return layer.kernel.numpy().astype(np.float64)[0, 0]  # (in, out) of a 1x1 convolution


def _normal(x, axes):
    return (x - x.mean(axes)) / np.sqrt(x.var(axes) + batch_norm.EPSILON)


@pytest.mark.parametrize("filters", [6, 1024])
def test_streams_are_mixed_by_a_softmax_over_the_two(filters):
    layer = channel_attention.SelectiveKernel(_make(), filters, 0.0625)
    x = _random([3, 4, 4, 2 * filters])
    found = layer(tf.constant(x, tf.float32), training=True)
    first, second = x[..., :filters], x[..., filters:]
    mean = (first + second).mean((1, 2))  # (n, c)
    hidden = np.maximum(_normal(mean @ _kernel(layer.reduce), 0), 0)
    exponentials = np.exp((hidden @ _kernel(layer.expand)).reshape([3, 2, filters]))
    weights = exponentials / exponentials.sum(1, keepdims=True)
    want = first * weights[:, None, None, 0] + second * weights[:, None, None, 1]
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    assert layer.reduce.filters == {6: 32, 1024: 64}[filters]


def test_squeeze_excitation_scales_each_channel_by_a_weight_from_the_means():
    layer = channel_attention.SqueezeExcitation(_make(), 8, 0.25, 32)
    x = _random([2, 3, 5, 32])
    layer(tf.constant(x, tf.float32))
    layer.reduce.bias.assign(_random([2], 1))
    layer.expand.bias.assign(_random([32], 2))
    hidden = np.maximum(x.mean((1, 2)) @ _kernel(layer.reduce) + layer.reduce.bias.numpy(), 0)
    weight = _sigmoid(hidden @ _kernel(layer.expand) + layer.expand.bias.numpy())
    found = layer(tf.constant(x, tf.float32))
    np.testing.assert_allclose(found, x * weight[:, None, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("filters", "se_ratio", "width"), [(8, 0.25, 2), (8, 0.01, 1)])
def test_squeeze_excitation_has_at_least_one_hidden_channel(filters, se_ratio, width):
    layer = channel_attention.SqueezeExcitation(_make(), filters, se_ratio, 4 * filters)
    assert layer.reduce.filters == width


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("side", [4, 5])
def test_a_shortcut_averages_2x2_neighbours(side, strides):
    x = _random([1, side, side, 2])
    want = np.zeros([1, -(-side // strides), -(-side // strides), 2])
    for i, j in np.ndindex(*want.shape[1:3]):
        window = x[0, i * strides : i * strides + 2, j * strides : j * strides + 2]
        # With stride 2 the average includes zeros beyond the border; with stride 1 it does not.
        count = 4 if strides == 2 else window.shape[0] * window.shape[1]
        want[0, i, j] = window.sum((0, 1)) / count
    found = resnet_d.pooled_shortcut(tf.constant(x, tf.float32), strides)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_the_deep_stem_is_three_convolutions_of_half_half_and_whole_width():
    stem = resnet_d.DeepStem(_make(), 64)
    assert tuple(stem(tf.zeros([1, 16, 16, 3])).shape) == (1, 8, 8, 64)
    kernels = [tuple(v.shape) for v in stem.trainable_variables if len(v.shape) == 4]
    assert sorted(kernels) == [(3, 3, 3, 32), (3, 3, 32, 32), (3, 3, 32, 64)]
    assert float(tf.reduce_min(stem(_random([1, 16, 16, 3]).astype(np.float32)))) < 0


def _encoder(depth, stem, *, dtype="float32", **ratios):
    return resnet.ResNet(_make(dtype), depth=depth, width_multiplier=1, stem=stem, **ratios)


@pytest.mark.parametrize("stem", ["small", "imagenet"])
@pytest.mark.parametrize("depth", [18, 50])
def test_selective_kernels_enable_resnet_d_and_are_in_bottlenecks_only(depth, stem):
    encoder = _encoder(depth, stem, sk_ratio=0.0625)
    assert isinstance(encoder.stem_conv, resnet_d.DeepStem) == (stem == "imagenet")
    for blocks in encoder.groups:
        assert all(block.pools for block in blocks)
        assert all((block.mix is not None) == (depth == 50) for block in blocks)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_every_weight_of_a_block_with_channel_attention_has_a_gradient(dtype):
    block = resnet.Block(
        _make(dtype),
        kind="bottleneck",
        filters=4,
        strides=2,
        projection=True,
        sk_ratio=0.0625,
        se_ratio=0.25,
        name="block",
    )
    x = tf.cast(_random([4, 8, 8, 3]), block.compute_dtype)
    assert tuple(block(x).shape) == (4, 4, 4, 16)
    block.norms[-1].gamma.assign(tf.ones([16]))
    with tf.GradientTape() as tape:
        y = block(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) * _random(y.shape).astype(np.float32))
    assert y.dtype == block.compute_dtype
    for variable, gradient in zip(
        block.trainable_variables, tape.gradient(loss, block.trainable_variables)
    ):
        assert gradient is not None and np.any(gradient.numpy()), variable.name
        assert np.all(np.isfinite(gradient.numpy())), variable.name
