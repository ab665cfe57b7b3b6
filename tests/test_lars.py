"""LARS: golden steps, the formula in float64, and replicas."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.training import lars


@pytest.mark.parametrize("case", range(4))
def test_follows_the_golden_steps(golden, case):
    stored = np.load(golden / "lars.npz")
    setting = {name.split("/")[1]: stored[name] for name in stored if name.startswith(f"{case}/")}
    variable = tf.Variable(setting["weights"][0], dtype=tf.float32)
    optimizer = lars.LARS(
        float(setting["learning_rate"]),
        momentum=float(setting["momentum"]),
        weight_decay_rate=float(setting["weight_decay"]),
        nesterov=bool(setting["nesterov"]),
        excluded_variables=[variable] if setting["excluded"] else [],
    )
    for gradient, want in zip(setting["grads"], setting["weights"][1:]):
        optimizer.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
        np.testing.assert_allclose(variable, want, rtol=2e-5, atol=1e-6)


def _expected_step(w, g, buffer, rate, momentum, decay):
    g = g + decay * w
    buffer = momentum * buffer + rate * 0.001 * np.linalg.norm(w) / np.linalg.norm(g) * g
    return w - buffer, buffer


def test_equals_the_formula_in_float64():
    rng = np.random.default_rng(0)
    w, g, buffer = rng.normal(size=(3, 4, 5))
    new = lars.lars_update(
        tf.constant(w),
        tf.constant(g),
        tf.constant(buffer),
        learning_rate=tf.constant(0.7, tf.float64),
        momentum=0.9,
        weight_decay=1e-2,
        excluded=False,
    )
    want = _expected_step(w, g, buffer, 0.7, 0.9, 1e-2)
    np.testing.assert_allclose(new.weight, want[0], rtol=1e-12)
    np.testing.assert_allclose(new.buffer, want[1], rtol=1e-12)


@pytest.mark.parametrize(("weight", "gradient"), [(0.0, 1.0), (1.0, 0.0)])
def test_steps_at_the_full_rate_if_a_norm_is_zero(weight, gradient):
    new = lars.lars_update(
        tf.fill([3], weight),
        tf.fill([3], gradient),
        tf.zeros([3]),
        learning_rate=tf.constant(0.5),
        momentum=0.9,
        weight_decay=0.0,
        excluded=False,
    )
    np.testing.assert_allclose(new.weight, np.full(3, weight - 0.5 * gradient))


def test_replicas_apply_the_sum_of_their_gradients():
    strategy = distribute.virtual_cpu_strategy(2)
    start = np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3)
    with strategy.scope():
        variable = tf.Variable(start)
        optimizer = lars.LARS(0.5, weight_decay_rate=1e-2)
        optimizer.build([variable])

    @tf.function
    def step():
        def on_replica():
            optimizer.apply_gradients([(tf.ones([2, 3]), variable)])

        strategy.run(on_replica)

    step()
    want = _expected_step(start.astype(np.float64), 2 * np.ones([2, 3]), 0, 0.5, 0.9, 1e-2)[0]
    np.testing.assert_allclose(variable.numpy(), want, rtol=1e-5)
