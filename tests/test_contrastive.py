"""NT-Xent: against the paper's loops, published values, finite differences, and over replicas."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.losses import contrastive


def _views(b=4, d=8, dtype=tf.float32, seed=0):
    za, zb = np.random.default_rng(seed).normal(size=(2, b, d))
    return tf.constant(za, dtype), tf.constant(zb, dtype)


def _by_loops(za, zb, temperature):
    """Algorithm 1 of the paper, one pair at a time, in float64."""
    z = np.concatenate([za, zb]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    total, n = 0.0, len(z)
    for i in range(n):
        score = {k: np.exp(z[i] @ z[k] / temperature) for k in range(n) if k != i}
        total -= np.log(score[(i + n // 2) % n] / sum(score.values()))
    return total / n


@pytest.mark.parametrize("b", [1, 2, 5])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_equals_the_loops_of_the_paper(b, temperature):
    za, zb = _views(b)
    np.testing.assert_allclose(
        contrastive.nt_xent(za, zb, temperature=temperature).loss,
        _by_loops(za, zb, temperature),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("case", range(5))
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_equals_the_golden_value_and_gradient(shared, case, dtype):
    golden = np.load(shared / "golden" / "nt_xent.npz")
    want = {
        name: golden[f"{case}/{name}"]
        for name in ("z", "temperature", "l2_normalize", "loss", "grad")
    }
    z = tf.constant(want["z"], dtype)
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = contrastive.nt_xent(
            *tf.split(z, 2),
            temperature=float(want["temperature"]),
            l2_normalize=bool(want["l2_normalize"]),
        ).loss
    tolerance = 1e-5 if dtype == tf.float32 else 1e-12
    np.testing.assert_allclose(loss, want["loss"], rtol=tolerance)
    scale = np.abs(want["grad"]).max()
    np.testing.assert_allclose(
        tape.gradient(loss, z), want["grad"], rtol=10 * tolerance, atol=10 * tolerance * scale
    )


def test_half_precision_projections_are_compared_in_float32():
    za, zb = _views(b=16, d=8)
    za, zb = tf.cast(za, tf.float16), tf.cast(zb, tf.float16)
    loss = contrastive.nt_xent(za, zb, temperature=0.05).loss
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss, _by_loops(za.numpy(), zb.numpy(), 0.05), rtol=1e-5)


def test_gradient_is_the_slope_of_the_value():
    # Catches a stop_gradient on the gathered views, which no value test can see.
    za, zb = _views(b=3, d=4, dtype=tf.float64)
    by_tape, by_differences = tf.test.compute_gradient(
        lambda za, zb: contrastive.nt_xent(za, zb, temperature=0.5).loss, [za, zb]
    )
    for tape, differences in zip(by_tape, by_differences):
        np.testing.assert_allclose(tape, differences, atol=1e-6)


def _on_replicas(strategy, views, temperature=0.5):
    """Returns the mean loss and the gradient for (2, B, d) views dealt out to the replicas."""
    replicas = strategy.num_replicas_in_sync
    parts = tf.split(views, replicas, axis=1)
    dealt = strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group]
    )

    def of_replica(views):
        with tf.GradientTape() as tape:
            tape.watch(views)
            loss = contrastive.nt_xent(*tf.unstack(views), temperature=temperature).loss / replicas
        return loss, tape.gradient(loss, views)

    loss, gradient = tf.function(lambda: strategy.run(of_replica, (dealt,)))()
    local = strategy.experimental_local_results
    return sum(local(loss)).numpy(), np.concatenate(local(gradient), axis=1)


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_have_the_value_and_gradient_of_one(replicas):
    views = tf.stack(_views(b=8))
    want, want_gradient = _on_replicas(tf.distribute.OneDeviceStrategy("/cpu:0"), views)
    strategy = distribute.virtual_cpu_strategy(replicas)
    loss, gradient = _on_replicas(strategy, views)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-4, atol=1e-6)


def test_gradient_through_the_gather_is_the_slope_of_the_global_loss():
    views = tf.stack(_views(b=4, d=3, dtype=tf.float64))
    strategy = distribute.virtual_cpu_strategy(2)
    _, gradient = _on_replicas(strategy, views)
    step, slopes = 1e-5, np.zeros_like(gradient)
    for index in np.ndindex(*views.shape):
        nudge = np.zeros(views.shape)
        nudge[index] = step
        ahead = _by_loops(*(views + nudge).numpy(), 0.5)
        behind = _by_loops(*(views - nudge).numpy(), 0.5)
        slopes[index] = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(gradient, slopes, atol=1e-7)


def test_ignores_the_length_of_projections():
    za, zb = _views()
    np.testing.assert_allclose(
        contrastive.nt_xent(3 * za, zb, temperature=0.5).loss,
        contrastive.nt_xent(za, zb, temperature=0.5).loss,
        rtol=1e-5,
    )


def test_collapsed_projections_are_at_chance():
    z = tf.ones([8, 4])
    np.testing.assert_allclose(
        contrastive.nt_xent(z, z, temperature=0.1).loss, contrastive.chance_level(8), rtol=1e-5
    )
    assert contrastive.chance_level(256) == pytest.approx(6.236, abs=1e-3)


def test_accuracy_and_entropy_are_of_the_other_view():
    z = tf.eye(4)
    right = contrastive.nt_xent(z, z, temperature=0.01)
    wrong = contrastive.nt_xent(z, tf.roll(z, 1, 0), temperature=0.01)
    assert float(right.accuracy) == 1 and float(wrong.accuracy) == 0
    assert float(right.entropy) == pytest.approx(0, abs=1e-5)
    even = contrastive.nt_xent(tf.ones([4, 2]), tf.ones([4, 2]), temperature=0.1)
    assert float(even.entropy) == pytest.approx(np.log(4), rel=1e-5)


@pytest.mark.parametrize("temperature", [0, -1])
def test_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(ValueError, match=f"temperature must be > 0, got {temperature}"):
        contrastive.nt_xent(*_views(), temperature=temperature)


def test_refuses_views_of_different_shapes():
    with pytest.raises(ValueError, match=r"one static \(b, d\), got \(4, 8\) and \(3, 8\)"):
        contrastive.nt_xent(_views(4)[0], _views(3)[0], temperature=0.1)
