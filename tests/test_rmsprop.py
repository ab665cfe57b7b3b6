"""RMSProp: the formula in float64, TensorFlow 1's implementation, and replicas."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.training import rmsprop

_SHAPES = [(4, 5), (3,), ()]
_SUPCON = {"momentum": 0.9, "rho": 0.9, "epsilon": 1e-3}


def _gradients(count):
    rng = np.random.default_rng(0)
    return [[rng.normal(size=shape) for shape in _SHAPES] for _ in range(count)]


def _expected_weights(weights, gradients, rate, momentum, rho, epsilon):
    """Yields the float64 weights after each step."""
    weights = [w.astype(np.float64) for w in weights]
    squares = [np.ones_like(w) for w in weights]
    buffers = [np.zeros_like(w) for w in weights]
    for step in gradients:
        for i, g in enumerate(step):
            squares[i] = rho * squares[i] + (1 - rho) * g**2
            buffers[i] = momentum * buffers[i] + rate * g / np.sqrt(squares[i] + epsilon)
            weights[i] = weights[i] - buffers[i]
        yield list(weights)


@pytest.mark.parametrize(
    "settings",
    [
        _SUPCON,
        {"momentum": 0.0, "rho": 0.99, "epsilon": 1.0},
    ],
)
def test_every_tensor_follows_the_formula_in_float64(settings):
    start = [np.random.default_rng(1).normal(size=shape) for shape in _SHAPES]
    variables = [tf.Variable(w, dtype=tf.float32) for w in start]
    optimizer = rmsprop.RMSProp(0.3, **settings)
    gradients = _gradients(6)
    for step, want in zip(gradients, _expected_weights(start, gradients, 0.3, **settings)):
        pairs = zip([tf.constant(g, tf.float32) for g in step], variables)
        optimizer.apply_gradients(list(pairs))
        for variable, value in zip(variables, want):
            np.testing.assert_allclose(variable, value, rtol=2e-5, atol=2e-6)


def test_agrees_with_tensorflow_1():
    start = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    variable, reference_variable = tf.Variable(start), tf.Variable(start)
    optimizer = rmsprop.RMSProp(0.2, momentum=0.8, rho=0.9, epsilon=1e-3)
    reference = tf.compat.v1.train.RMSPropOptimizer(0.2, decay=0.9, momentum=0.8, epsilon=1e-3)
    for gradient, *_ in _gradients(5):
        gradient = tf.constant(gradient, tf.float32)
        optimizer.apply_gradients([(gradient, variable)])
        reference.apply_gradients([(gradient, reference_variable)])
        np.testing.assert_allclose(variable, reference_variable, rtol=1e-5, atol=1e-6)


def test_the_first_steps_at_supcons_rate_are_small():
    # Base rate 0.05 at batch 6144 is 1.2. From a mean square of 0 the step would be 30 times this.
    variable = tf.Variable(tf.zeros([3]))
    rmsprop.RMSProp(1.2, **_SUPCON).apply_gradients([(tf.fill([3], 1e-2), variable)])
    np.testing.assert_allclose(variable, np.full(3, -1.2e-2 / np.sqrt(0.90101)), rtol=1e-5)


def test_replicas_apply_the_sum_of_their_gradients():
    strategy = distribute.virtual_cpu_strategy(2)
    start = np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3)
    with strategy.scope():
        variable = tf.Variable(start)
        optimizer = rmsprop.RMSProp(0.5, **_SUPCON)
        optimizer.build([variable])

    @tf.function
    def step():
        def on_replica():
            optimizer.apply_gradients([(tf.ones([2, 3]), variable)])

        strategy.run(on_replica)

    step()
    (want,) = _expected_weights([start], [[2 * np.ones([2, 3])]], 0.5, **_SUPCON)
    np.testing.assert_allclose(variable.numpy(), want[0], rtol=1e-5)
