"""Losses of two views equal the papers' formulas in loops, on any number of replicas."""

from typing import Any

import numpy as np
import pytest
import replicas as over
import tensorflow as tf

from simclr_tf.losses import contrastive


def _views(b=4, d=8, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(2, b, d)).astype(dtype)


# Oracles: one pair at a time, in float64.


def _similarities(views, temperature=1.0, l2_normalize=True):
    """Yields for each view: similarity to its positive, and to the negatives by their side."""
    z = np.asarray(views, np.float64)
    if l2_normalize:
        z = z / np.linalg.norm(z, axis=2, keepdims=True)
    for side in (0, 1):
        for i in range(z.shape[1]):
            to = [[z[side, i] @ z[s, k] / temperature for k in range(z.shape[1])] for s in (0, 1)]
            positive = to[1 - side][i]
            negatives = [[x for k, x in enumerate(to[s]) if k != i] for s in (side, 1 - side)]
            yield positive, negatives


def _oracle(views, term, negatives="both", temperature=1.0, l2_normalize=True):
    terms = [
        term(positive, other if negatives == "one" else same + other)
        for positive, (same, other) in _similarities(views, temperature, l2_normalize)
    ]
    return sum(terms) / len(terms)


def _nt_xent_term(positive, negatives):
    return -np.log(np.exp(positive) / (np.exp(positive) + sum(np.exp(x) for x in negatives)))


def _decoupled_term(positive, negatives):
    return -np.log(np.exp(positive) / sum(np.exp(x) for x in negatives))


def _log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def _nt_logistic_term(positive, negatives):
    return -_log_sigmoid(positive) - np.mean([_log_sigmoid(-x) for x in negatives])


def _semi_hard(positive, negatives):
    farther = [x for x in negatives if x < positive]
    return max(farther) if farther else min(negatives)


def _triplet_term(margin):
    return lambda positive, negatives: np.mean([max(x - positive + margin, 0) for x in negatives])


def _hard(term):
    return lambda positive, negatives: term(positive, [_semi_hard(positive, negatives)])


def _cases():
    """Returns name -> (loss of views, its oracle), for every loss and its variants."""
    cases: dict[str, Any] = {}
    for negatives in ("both", "one"):
        for decoupled in (False, True):

            def nt_xent(v, negatives=negatives, decoupled=decoupled):
                return contrastive.nt_xent(
                    tf.unstack(v), temperature=0.5, negatives=negatives, decoupled=decoupled
                )

            term = _decoupled_term if decoupled else _nt_xent_term
            cases[f"nt_xent-{negatives}{'-decoupled' if decoupled else ''}"] = (
                nt_xent,
                lambda v, t=term, n=negatives: _oracle(v, t, n, 0.5),
            )
        for hard in (False, True):

            def nt_logistic(v, negatives=negatives, hard=hard):
                return contrastive.nt_logistic(
                    *tf.unstack(v), temperature=0.5, negatives=negatives, semi_hard=hard
                )

            def triplet(v, negatives=negatives, hard=hard):
                return contrastive.margin_triplet(
                    *tf.unstack(v), margin=0.8, negatives=negatives, semi_hard=hard
                )

            logistic_term, triplet_term = _nt_logistic_term, _triplet_term(0.8)
            if hard:
                logistic_term, triplet_term = _hard(logistic_term), _hard(triplet_term)
            cases[f"nt_logistic-{negatives}-{hard}"] = (
                nt_logistic,
                lambda v, t=logistic_term, n=negatives: _oracle(v, t, n, 0.5),
            )
            cases[f"triplet-{negatives}-{hard}"] = (
                triplet,
                lambda v, t=triplet_term, n=negatives: _oracle(v, t, n),
            )
    return cases


CASES = _cases()
NO_LABELS = np.zeros(4, np.int32)


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_equal_the_formula(case):
    loss, oracle = CASES[case]
    for b in (2, 5):
        views = _views(b, d=3, seed=b, dtype=np.float64)
        value, gradient = over.value_and_gradient(
            lambda v, _: loss(v), views, np.zeros(b, np.int32)
        )
        assert value == pytest.approx(oracle(views), rel=1e-10)
        np.testing.assert_allclose(gradient, over.numerical_gradient(oracle, views), atol=1e-7)
        assert float(loss(tf.constant(views, tf.float32))) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_do_not_depend_on_the_number_of_replicas(case):
    loss = CASES[case][0]
    views, labels = _views(b=8), np.zeros(8, np.int32)
    want, want_gradient = over.value_and_gradient(lambda v, _: loss(v), views, labels)
    value, gradient = over.value_and_gradient(lambda v, _: loss(v), views, labels, replicas=4)
    assert value == pytest.approx(want, rel=1e-5)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", ["nt_xent-both", "nt_logistic-both-True", "triplet-one-False"])
def test_gradient_flows_through_the_gather_to_all_replicas(case):
    # Comparing numbers of replicas would not reveal a stop_gradient on gathered views.
    loss, oracle = CASES[case]
    views = _views(b=4, d=3, dtype=np.float64)
    _, gradient = over.value_and_gradient(lambda v, _: loss(v), views, NO_LABELS, replicas=2)
    np.testing.assert_allclose(gradient, over.numerical_gradient(oracle, views), atol=1e-7)


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("tile", [None, 7, 1024])
def test_nt_xent_equals_the_golden_value_and_gradient(golden, case, dtype, tile):
    stored = np.load(golden / "nt_xent.npz")
    want = {
        name: stored[f"{case}/{name}"]
        for name in ("z", "temperature", "l2_normalize", "loss", "grad")
    }
    z = tf.constant(want["z"], dtype)
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = contrastive.nt_xent(
            tf.split(z, 2),
            temperature=float(want["temperature"]),
            l2_normalize=bool(want["l2_normalize"]),
            tile=tile,
        )
    tolerance = 1e-5 if dtype == tf.float32 else 1e-12
    np.testing.assert_allclose(loss, want["loss"], rtol=tolerance)
    scale = np.abs(want["grad"]).max()
    np.testing.assert_allclose(
        tape.gradient(loss, z), want["grad"], rtol=10 * tolerance, atol=10 * tolerance * scale
    )


def test_semi_hard_triplets_are_those_of_tensorflow_addons():
    addons = pytest.importorskip("tensorflow_addons")
    views = _views(b=16)
    z = tf.math.l2_normalize(tf.reshape(views, [32, 8]), -1)
    for margin in (0.0, 0.4, 1.6):
        want = addons.losses.triplet_semihard_loss(
            tf.tile(tf.range(16), [2]), z, margin=margin, distance_metric="angular"
        )
        got = contrastive.margin_triplet(*views, margin=margin, semi_hard=True)
        assert float(got) == pytest.approx(float(want), rel=1e-5)


def test_half_precision_projections_are_compared_in_float32():
    views = _views(b=16).astype(np.float16)
    loss = contrastive.nt_xent(views, temperature=0.05)
    assert loss.dtype == tf.float32
    assert float(loss) == pytest.approx(_oracle(views, _nt_xent_term, "both", 0.05), rel=1e-5)


def test_ignores_the_length_of_projections_only_if_normalised():
    za, zb = _views()
    plain = contrastive.nt_xent([za, zb], temperature=0.5)
    assert float(contrastive.nt_xent([3 * za, zb], temperature=0.5)) == pytest.approx(float(plain))
    products = contrastive.nt_xent([za, zb], temperature=10.0, l2_normalize=False)
    want = _oracle(_views(), _nt_xent_term, "both", 10.0, l2_normalize=False)
    assert float(products) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("negatives", ["both", "one"])
def test_collapsed_projections_are_at_chance(negatives):
    z = tf.ones([8, 4])
    loss = contrastive.nt_xent([z, z], temperature=0.1, negatives=negatives)
    assert float(loss) == pytest.approx(contrastive.chance_level(8, negatives=negatives), rel=1e-5)
    assert contrastive.chance_level(256) == pytest.approx(6.236, abs=1e-3)


@pytest.mark.parametrize("tile", [None, 3])
def test_agreement_measures_accuracy_and_entropy_of_similarities_to_second_views(tile):
    def agreement(za, zb, temperature):
        found = contrastive.agreement(za, zb, temperature=temperature, l2_normalize=True, tile=tile)
        return float(found.accuracy), float(found.entropy)

    z = tf.eye(4)
    right, wrong = agreement(z, z, 0.01), agreement(z, tf.roll(z, 1, 0), 0.01)
    assert right[0] == 1 and wrong[0] == 0
    assert right[1] == pytest.approx(0, abs=1e-5)
    assert agreement(tf.ones([4, 2]), tf.ones([4, 2]), 0.1)[1] == pytest.approx(np.log(4), rel=1e-5)
    za, zb = _views(b=7)
    s = za @ zb.T / np.outer(np.linalg.norm(za, axis=1), np.linalg.norm(zb, axis=1)) / 0.3
    probabilities = np.exp(s) / np.exp(s).sum(1, keepdims=True)
    accuracy, entropy = agreement(za, zb, 0.3)
    assert accuracy == pytest.approx(np.mean(s.argmax(1) == np.arange(7)))
    assert entropy == pytest.approx(-np.sum(probabilities * np.log(probabilities)) / 7, rel=1e-5)


@pytest.mark.parametrize(
    ("replicas", "tile", "l2_normalize"),
    [(1, None, True), (1, 3, False), (2, None, False), (2, 3, True)],
)
def test_agreement_measures_the_cosines_of_all_pairs_of_a_first_and_a_second_view(
    replicas, tile, l2_normalize
):
    za, zb = _views(b=8)

    def on_replica(za, zb):
        found = contrastive.agreement(za, zb, temperature=0.3, l2_normalize=l2_normalize, tile=tile)
        return found.positive_cosine, found.negative_cosine, found.uniformity

    strategy = over.strategy(replicas)
    parts = [np.split(z, replicas) for z in (za, zb)]
    dealt = [
        strategy.experimental_distribute_values_from_function(
            lambda context, part=part: tf.constant(part[context.replica_id_in_sync_group])
        )
        for part in parts
    ]
    local = strategy.experimental_local_results
    run = tf.function(lambda: strategy.run(on_replica, dealt), autograph=False)
    found = [np.mean(local(value)) for value in run()]
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (za, zb)]
    pairs = [(i, j) for i in range(8) for j in range(8) if i != j]
    distances = [np.sum((unit[0][i] - unit[1][j]) ** 2) for i, j in pairs]
    expected = (
        np.mean([unit[0][i] @ unit[1][i] for i in range(8)]),
        np.mean([unit[0][i] @ unit[1][j] for i, j in pairs]),
        np.log(np.mean(np.exp(-2 * np.array(distances)))),
    )
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("temperature", [0, -1])
def test_rejects_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(ValueError, match=f"temperature must be > 0, got {temperature}"):
        contrastive.nt_xent(_views(), temperature=temperature)


def test_reports_arguments_that_it_cannot_use():
    with pytest.raises(ValueError, match=r"one static shape \(b, d\), got \(4, 8\) and \(3, 8\)"):
        contrastive.nt_xent([_views(4)[0], _views(3)[0]], temperature=0.1)
    with pytest.raises(ValueError, match="margin must be >= 0, got -1"):
        contrastive.margin_triplet(*_views(), margin=-1)
    with pytest.raises(ValueError, match="one of both, one, got 'none'"):
        contrastive.nt_xent(_views(), temperature=0.1, negatives="none")
    with pytest.raises(ValueError, match="got negatives='one'"):
        contrastive.nt_xent(_views(), temperature=0.1, negatives="one", tile=4)
