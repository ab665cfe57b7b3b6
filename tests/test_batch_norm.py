"""Batch norm equals float64 arithmetic, over replicas and in half precision."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import distribute, keras_api
from simclr_tf.models import batch_norm


def _layer(x, **kwargs):
    layer = batch_norm.BatchNorm(**kwargs)
    layer.build(x.shape)
    rng = np.random.default_rng(1)
    layer.gamma.assign(rng.uniform(0.5, 2, x.shape[-1]))
    if layer.beta is not None:
        layer.beta.assign(rng.normal(size=x.shape[-1]))
    return layer


def _images(b=8, dtype=np.float32):
    # With a large mean, a variance taken as E[x^2] - E[x]^2 would be wrong.
    return (np.random.default_rng(0).normal(size=(b, 3, 3, 4)) + 300).astype(dtype)


def test_replicas_write_their_averages_without_communication():
    with distribute.virtual_cpu_strategy(2).scope():
        layer = _layer(_images())
    for average in map(keras_api.raw, (layer.moving_mean, layer.moving_variance)):
        assert average.synchronization == tf.VariableSynchronization.ON_READ
        assert average.aggregation == tf.VariableAggregation.MEAN


@pytest.mark.parametrize("shape", [(8, 3, 3, 4), (8, 4)])
@pytest.mark.parametrize("center", [True, False])
def test_normalises_by_the_batch_and_updates_the_averages(shape, center):
    x = np.random.default_rng(0).normal(2, 3, size=shape)
    layer = _layer(x, center=center, momentum=0.9)
    y = layer(tf.constant(x, tf.float32), training=True)
    axes = tuple(range(len(shape) - 1))
    mean, variance = x.mean(axes), x.var(axes)
    offset = layer.beta.numpy() if center else 0
    want = (x - mean) / np.sqrt(variance + 1e-5) * layer.gamma.numpy() + offset
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-4, atol=1e-6)
    # The variance over n, as in the published models, not over n - 1.
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, rtol=1e-5)


def test_inference_uses_the_averages_and_does_not_update_them():
    x = _images()
    layer = _layer(x)
    layer.moving_mean.assign(tf.fill([4], 299.0))
    layer.moving_variance.assign(tf.fill([4], 4.0))
    y = layer(tf.constant(x), training=False)
    want = (x.astype(np.float64) - 299) / np.sqrt(4 + 1e-5) * layer.gamma.numpy()
    np.testing.assert_allclose(y, want + layer.beta.numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(layer.moving_mean, np.full(4, 299.0))


def _step(strategy, x, synchronized):
    """Returns outputs, gradients of gamma and the moving variance, with x split among replicas."""
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        layer = _layer(x, synchronized=synchronized)
    slices = np.split(x, replicas)
    of_replicas = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(slices[context.replica_id_in_sync_group])
    )
    weights = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)
    weight_slices = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(weights, replicas)[context.replica_id_in_sync_group])
    )

    @tf.function(autograph=False)
    def run():
        def of_replica(x, w):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                loss = tf.reduce_sum(w * y)
            return y, *tape.gradient(loss, [x, layer.gamma])

        return strategy.run(of_replica, (of_replicas, weight_slices))

    y, dx, dgamma = (strategy.experimental_local_results(value) for value in run())
    return np.concatenate(y), np.concatenate(dx), sum(dgamma), layer.moving_variance.numpy()


@pytest.mark.parametrize("replicas", [2, 4])
def test_synchronised_replicas_compute_the_same_as_one(replicas):
    x = _images()
    want = _step(tf.distribute.OneDeviceStrategy("/cpu:0"), x, True)
    strategy = distribute.virtual_cpu_strategy(replicas)
    for got, expected in zip(_step(strategy, x, True), want):
        np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3)


def test_replicas_that_are_not_synchronised_differ():
    x = _images()
    strategy = distribute.virtual_cpu_strategy(2)
    assert np.abs(_step(strategy, x, True)[0] - _step(strategy, x, False)[0]).max() > 0.1


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_statistics_are_float32_in_half_precision(dtype):
    x = _images() / 100
    layer = _layer(x, dtype=tf.keras.mixed_precision.Policy(dtype))
    y = layer(tf.constant(x), training=True)
    assert y.dtype == tf.dtypes.as_dtype(layer.compute_dtype)
    assert layer.gamma.dtype == layer.moving_mean.dtype == tf.float32
    rounded = tf.cast(tf.cast(x, y.dtype), tf.float64).numpy()
    np.testing.assert_allclose(layer.moving_mean, 0.1 * rounded.mean((0, 1, 2)), rtol=1e-5)


def test_with_a_zero_gamma_the_output_is_initially_zero():
    x = tf.random.stateless_normal([4, 3], [0, 0])
    layer = batch_norm.BatchNorm(zero_gamma=True)
    np.testing.assert_array_equal(layer(x, training=True), np.zeros([4, 3]))
