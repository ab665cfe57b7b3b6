"""SupCon equals equations 2 and 3 in loops and golden values, on any number of replicas."""

import functools
from typing import Any

import numpy as np
import pytest
import replicas as over
import tensorflow as tf

from simclr_tf.losses import contrastive, supcon

LABELS = np.array([0, 1, 0, 2, 0, 1, -1, -1], np.int32)  # Two of them unlabelled.


def _views(num_views=2, b=8, d=4, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=(num_views, b, d)).astype(dtype)


def _positives(labels, num_views, image, side, max_positives, own):
    """Returns the (image, side) of the positives in their order, and of the candidates."""
    same = [k for k, label in enumerate(labels) if k == image or label == labels[image] >= 0]
    at = same.index(image)
    turned = same[at:] + same[:at]
    sides = [(side + s) % num_views for s in range(num_views)]
    found = [(k, s) for k in turned for s in sides if (k, s) != (image, side)]
    found = [pair for pair in found if own or pair[0] != image]
    kept = found[:max_positives] if max_positives else found
    others = [
        (k, s)
        for k in range(len(labels))
        for s in range(num_views)
        if k not in same or (k, s) in kept
    ]
    return kept, others


def _by_loops(
    views, labels, temperature, *, inside=False, max_positives=0, own=True, l2_normalize=True
):
    """Equations 2 and 3, one view at a time, in float64."""
    z = np.asarray(views, np.float64)
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    losses = []
    for image in range(z.shape[1]):
        for side in range(z.shape[0]):
            kept, others = _positives(labels, z.shape[0], image, side, max_positives, own)
            if not kept:
                continue

            def exp(pair, at=(side, image)):
                return np.exp(z[at] @ z[pair[1], pair[0]] / temperature)

            total = sum(exp(pair) for pair in others)
            ratios = [exp(pair) / total for pair in kept]
            losses.append(-np.log(np.mean(ratios)) if inside else -np.mean(np.log(ratios)))
    return np.mean(losses) if losses else 0.0


VARIANTS: dict[str, dict[str, Any]] = {
    "out": {},
    "in": {"inside": True},
    "out-most-1": {"max_positives": 1},
    "out-most-3": {"max_positives": 3},
    "in-most-3": {"inside": True, "max_positives": 3},
    "n-pairs": {"max_positives": 1, "own": False},
    "others-only": {"own": False},
}


def _loss(variant, *, temperature=0.3, tile=None):
    settings = VARIANTS[variant]
    function = supcon.supcon_in if settings.get("inside") else supcon.supcon
    return lambda views, labels: (
        function(
            tf.unstack(views),
            labels,
            temperature=temperature,
            max_positives=settings.get("max_positives", 0),
            own_image=settings.get("own", True),
            tile=tile,
        ).loss
    )


@functools.cache
def _gradient_by_loops(variant):
    """Returns the gradient of the formula at `_views()`."""
    return over.numerical_gradient(
        lambda views: _by_loops(views, LABELS, 0.3, **VARIANTS[variant]), _views()
    )


@pytest.mark.parametrize("tile", [None, 5])
@pytest.mark.parametrize("variant", VARIANTS)
def test_value_and_gradient_equal_the_formula(variant, tile):
    views = _views()
    value, gradient = over.value_and_gradient(_loss(variant, tile=tile), views, LABELS)
    assert value == pytest.approx(_by_loops(views, LABELS, 0.3, **VARIANTS[variant]), rel=1e-10)
    np.testing.assert_allclose(gradient, _gradient_by_loops(variant), atol=1e-7)


@functools.cache
def _on_one_replica(variant):
    """Returns the loss and its gradient in float32."""
    return over.value_and_gradient(_loss(variant), _views(dtype=np.float32), LABELS)


@pytest.mark.parametrize(("replicas", "tile"), [(4, None), (2, 3)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_value_and_gradient_do_not_depend_on_the_number_of_replicas(variant, replicas, tile):
    want, want_gradient = _on_one_replica(variant)
    value, gradient = over.value_and_gradient(
        _loss(variant, tile=tile), _views(dtype=np.float32), LABELS, replicas=replicas
    )
    assert value == pytest.approx(want, rel=1e-5)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", ["out", "in", "n-pairs"])
def test_gradient_flows_through_the_gather_to_all_replicas(variant):
    _, gradient = over.value_and_gradient(_loss(variant), _views(), LABELS, replicas=2)
    np.testing.assert_allclose(gradient, _gradient_by_loops(variant), atol=1e-7)


@pytest.mark.parametrize("tile", [None, 50])
@pytest.mark.parametrize("kind", ["out", "in"])
@pytest.mark.parametrize("case", range(3))
def test_equals_the_golden_value_and_gradient(golden, case, kind, tile):
    stored = np.load(golden / "supcon.npz")
    z, labels = stored[f"{case}/z"], stored[f"{case}/labels"].astype(np.int32)
    labels = labels[: len(z) // 2] if len(labels) == len(z) else labels
    views = np.stack(np.split(z, 2))
    value, gradient = over.value_and_gradient(
        _loss(kind, temperature=float(stored[f"{case}/temperature"]), tile=tile), views, labels
    )
    assert value == pytest.approx(float(stored[f"{case}/{kind}/loss"]), rel=1e-10)
    np.testing.assert_allclose(np.concatenate(gradient), stored[f"{case}/{kind}/grad"], atol=1e-10)


def test_takes_one_view_or_three_views():
    for num_views in (1, 3):
        views = _views(num_views)
        for variant in ("out", "in", "out-most-3", "n-pairs"):
            value = float(_loss(variant)(tf.constant(views), tf.constant(LABELS)))
            want = _by_loops(views, LABELS, 0.3, **VARIANTS[variant])
            assert value == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("tile", [None, 4])
@pytest.mark.parametrize("function", [supcon.supcon, supcon.supcon_in])
def test_with_a_class_for_each_image_it_is_nt_xent(function, tile):
    za, zb = _views()
    for labels in (np.arange(8), np.full(8, -1)):
        found = function([za, zb], tf.constant(labels, tf.int32), temperature=0.2, tile=tile)
        assert float(found.loss) == pytest.approx(
            float(contrastive.nt_xent([za, zb], temperature=0.2)), rel=1e-10
        )
        assert float(found.without_positive) == 0


@pytest.mark.parametrize("tile", [None, 4])
@pytest.mark.parametrize("function", [supcon.supcon, supcon.supcon_in])
def test_views_without_a_positive_are_left_out_and_counted(function, tile):
    # With one view per image, the images of classes 2, -1 and -1 have no positive.
    views, labels = tf.constant(_views(1)), tf.constant(LABELS)
    with tf.GradientTape() as tape:
        tape.watch(views)
        found = function(tf.unstack(views), labels, temperature=0.2, tile=tile)
    assert float(found.without_positive) == pytest.approx(3 / 8)
    assert np.isfinite(tape.gradient(found.loss, views)).all()
    inside = function is supcon.supcon_in
    assert float(found.loss) == pytest.approx(_by_loops(views, LABELS, 0.2, inside=inside))
    with tf.GradientTape() as tape:
        tape.watch(views)
        alone = function(tf.unstack(views), tf.range(8), temperature=0.2, tile=tile)
    assert float(alone.loss) == 0 and float(alone.without_positive) == 1
    np.testing.assert_array_equal(tape.gradient(alone.loss, views), np.zeros((1, 8, 4)))


def test_the_loss_outside_the_logarithm_is_never_below_that_inside():
    for seed in range(5):
        views = tf.constant(_views(seed=seed))
        outside, inside = (_loss(v)(views, tf.constant(LABELS)) for v in ("out", "in"))
        assert float(outside) > float(inside)


def test_one_positive_and_one_negative_make_a_triplet_of_margin_two_tau():
    # exp(loss) - 1 is exp(x), whose first order 1 + x is the triplet loss over 2 tau (sec. 8). Both
    # anchors are equally far from the negative, which has no positive itself.
    tau = 0.5
    z = np.array([[1, 0.02, 0], [1, -0.02, 0], [1, 0, 0.03]])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    found = supcon.supcon([z], tf.constant([0, 0, 1]), temperature=tau)
    to_positive, to_negative = (np.sum((z[0] - z[k]) ** 2) for k in (1, 2))
    triplet = max(to_positive - to_negative + 2 * tau, 0)
    assert to_positive != to_negative
    assert np.expm1(float(found.loss)) == pytest.approx(triplet / (2 * tau), rel=1e-6)


def test_collapsed_classes_reach_the_value_of_a_simplex():
    # Ten classes, each at one corner: the minimum of the loss is above 0.
    corners = np.eye(10) - 0.1
    labels = np.arange(250) % 10
    z = corners[labels]
    loss = supcon.supcon([z, z], tf.constant(labels, tf.int32), temperature=0.1).loss
    per_class = 50
    want = np.log(per_class - 1 + 450 * np.exp(-(1 + 1 / 9) / 0.1))
    assert float(loss) == pytest.approx(want, rel=1e-6)


def test_scaling_by_temperature_scales_the_loss():
    views, labels = tf.unstack(tf.constant(_views())), tf.constant(LABELS)
    plain = supcon.supcon(views, labels, temperature=0.2).loss
    scaled = supcon.supcon(views, labels, temperature=0.2, scale_by_temperature=True).loss
    assert float(scaled) == pytest.approx(0.2 * float(plain))


def test_rejects_labels_of_another_number():
    with pytest.raises(ValueError, match=r"labels must be \(8,\), one for each image, got \(4,\)"):
        supcon.supcon(list(_views()), tf.range(4), temperature=0.1)


def _averaged_by_loops(views, labels, temperature, *, inside):
    """Equations 2 and 3 with the mean over each class in the denominators, in float64."""
    z = views / np.linalg.norm(views, axis=2, keepdims=True)
    losses = []
    for image in range(z.shape[1]):
        for side in range(z.shape[0]):
            kept, others = _positives(labels, z.shape[0], image, side, 0, own=True)
            exp = {(k, s): np.exp(z[side, image] @ z[s, k] / temperature) for k, s in others}
            # Every unlabelled image is a class of its own.
            class_of = {(k, s): -1 - k if labels[k] < 0 else labels[k] for k, s in others}
            means = [
                np.mean([exp[pair] for pair in others if class_of[pair] == one])
                for one in set(class_of.values())
            ]
            ratios = [exp[pair] / np.sum(means) for pair in kept]
            losses.append(-np.log(np.mean(ratios)) if inside else -np.mean(np.log(ratios)))
    return np.mean(losses)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_the_mean_of_each_class_is_in_the_denominators(count, inside):
    function = supcon.supcon_in if inside else supcon.supcon

    def loss(views, labels):
        return function(tf.unstack(views), labels, temperature=0.3, average_classes=True).loss

    views = _views(num_views=2, b=8, d=3)
    value, gradient = over.value_and_gradient(loss, views, LABELS, replicas=count)
    by_loops = functools.partial(_averaged_by_loops, labels=LABELS, temperature=0.3, inside=inside)
    assert value == pytest.approx(by_loops(views), rel=1e-9)
    np.testing.assert_allclose(gradient, over.numerical_gradient(by_loops, views), atol=1e-7)


def test_the_mean_of_each_class_needs_all_views():
    views = tf.unstack(tf.constant(_views()))
    refused: tuple[dict[str, Any], ...] = ({"tile": 4}, {"max_positives": 1})
    for settings in refused:
        with pytest.raises(ValueError, match="needs all positives, and no tiles"):
            supcon.supcon(views, LABELS, temperature=0.3, average_classes=True, **settings)
