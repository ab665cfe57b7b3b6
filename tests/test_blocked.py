"""Sums computed in tiles have the value and gradient of the explicit sums, for any tile size."""

import numpy as np
import pytest
import replicas as over
import tensorflow as tf

from simclr_tf.losses import blocked, contrastive


def _log_sums(z, temperature):
    s = z @ z.T / temperature
    np.fill_diagonal(s, -np.inf)
    peak = s.max(1, keepdims=True)
    return (np.log(np.exp(s - peak).sum(1, keepdims=True)) + peak)[:, 0]


def _unit(n, d=3, seed=0):
    z = np.random.default_rng(seed).normal(size=(n, d))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@pytest.mark.parametrize("tile", [1, 3, 4, 5, 64])
@pytest.mark.parametrize(("temperature", "unit"), [(0.3, True), (0.005, True), (0.3, False)])
def test_sums_over_all_others_in_tiles_of_any_size(tile, temperature, unit):
    z = _unit(10) if unit else 4 * np.random.default_rng(0).normal(size=(10, 3))
    weights = np.random.default_rng(1).uniform(size=10)
    x = tf.constant(z)
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = blocked.log_sum_exp(x, temperature=temperature, unit=unit, tile=tile)
        total = tf.reduce_sum(found * weights)
    np.testing.assert_allclose(found, _log_sums(z, temperature), rtol=1e-12)
    want = over.numerical_gradient(lambda z: float(weights @ _log_sums(z, temperature)), z, 1e-7)
    np.testing.assert_allclose(tape.gradient(total, x), want, rtol=1e-5, atol=1e-5)


def test_does_not_overflow_where_exponentials_exceed_float32():
    # At temperature 0.001: exp(1000) for equal views, exp(-1000) for opposite ones.
    same = tf.constant([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = blocked.log_sum_exp(same, temperature=0.001, unit=True, tile=2)
    np.testing.assert_allclose(found, np.full(4, 1000), rtol=1e-6)
    opposite = tf.constant([[1.0, 0.0], [-1.0, 0.0]])
    found = blocked.log_sum_exp(opposite, temperature=0.001, unit=True, tile=2)
    np.testing.assert_allclose(found, np.full(2, -1000), rtol=1e-6)


def test_does_not_overflow_at_the_lowest_temperature_that_skips_the_peaks():
    z = np.repeat(_unit(3), 400, 0).astype(np.float32)
    found = blocked.log_sum_exp(tf.constant(z), temperature=0.025, unit=True, tile=256)
    np.testing.assert_allclose(found, _log_sums(z.astype(np.float64), 0.025), rtol=1e-6)


# Odd and even numbers of tiles, with and without padding, and one tile per replica.
@pytest.mark.parametrize(
    ("replicas", "tile", "l2_normalize"),
    [(1, 5, True), (2, 3, False), (3, 3, True), (4, 64, False)],
)
def test_nt_xent_in_tiles_is_nt_xent(replicas, tile, l2_normalize):
    views = np.random.default_rng(0).normal(size=(2, 12, 5)).astype(np.float32)
    labels = np.zeros(12, np.int32)

    def loss(views, _, tile=None):
        return contrastive.nt_xent(
            tf.unstack(views), temperature=0.2, l2_normalize=l2_normalize, tile=tile
        )

    want, want_gradient = over.value_and_gradient(loss, views, labels)
    value, gradient = over.value_and_gradient(
        lambda v, y: loss(v, y, tile), views, labels, replicas=replicas
    )
    assert value == pytest.approx(want, rel=1e-5)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-4, atol=2e-6)


def test_compiles_under_xla_and_agrees():
    views = np.random.default_rng(0).normal(size=(2, 9, 5)).astype(np.float32)

    @tf.function(jit_compile=True)
    def compiled(views):
        with tf.GradientTape() as tape:
            tape.watch(views)
            loss = contrastive.nt_xent(tf.unstack(views), temperature=0.2, tile=4)
        return loss, tape.gradient(loss, views)

    want, want_gradient = over.value_and_gradient(
        lambda v, _: contrastive.nt_xent(tf.unstack(v), temperature=0.2),
        views,
        np.zeros(9, np.int32),
    )
    value, gradient = compiled(tf.constant(views))
    assert float(value) == pytest.approx(want, rel=1e-5)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-4, atol=1e-6)


def test_no_tensor_of_the_graph_holds_all_similarities():
    n, tile = 512, 64

    @tf.function
    def graph(views):
        with tf.GradientTape() as tape:
            tape.watch(views)
            loss = contrastive.nt_xent(tf.unstack(views), temperature=0.2, tile=tile)
        return tape.gradient(loss, views)

    concrete = graph.get_concrete_function(tf.TensorSpec([2, n // 2, 8]))
    graphs = [concrete.graph, *concrete.graph._functions.values()]
    sizes = [
        np.prod(x.shape)
        for part in graphs
        for op in getattr(part, "graph", part).get_operations()
        for x in op.outputs
        if x.shape.is_fully_defined()
    ]
    assert max(sizes) < n * n / 8
