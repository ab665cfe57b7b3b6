"""Losses of classifiers equal NumPy in float64; mixtures of images are drawn as documented."""

import numpy as np
import pytest
import replicas as over
import tensorflow as tf

from simclr_tf.data import mixing
from simclr_tf.losses import classification


def _log_softmax(x):
    x = np.asarray(x, np.float64)
    return (
        x
        - x.max(1, keepdims=True)
        - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True))
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_label_smoothing_equals_that_of_smoothed_targets(smoothing):
    logits = 3 * np.random.default_rng(0).normal(size=(6, 5))
    labels = np.array([0, 1, 2, 3, 4, 0])
    targets = (1 - smoothing) * np.eye(5)[labels] + smoothing / 5

    def oracle(logits):
        return -np.sum(targets * _log_softmax(logits), 1)

    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        losses = classification.cross_entropy(x, labels, label_smoothing=smoothing)
    np.testing.assert_allclose(losses, oracle(logits), rtol=1e-10)
    want = over.numerical_gradient(lambda x: oracle(x).sum(), logits)
    np.testing.assert_allclose(tape.gradient(losses, x), want, atol=1e-7)
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got 1"):
        classification.cross_entropy(x, labels, label_smoothing=1)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.0])
def test_distillation_equals_the_golden_value(golden, temperature):
    stored = np.load(golden / "distillation.npz")
    loss = classification.distillation(
        tf.constant(stored["student_logits"]),
        tf.constant(stored["teacher_logits"]),
        temperature=temperature,
    )
    assert float(loss) == pytest.approx(float(stored[f"loss/{temperature}"]), rel=1e-10)


def test_distillation_equals_its_formula_and_has_no_gradient_to_the_teacher():
    student, teacher = np.random.default_rng(0).normal(size=(2, 4, 3))

    def oracle(student):
        return -np.mean(
            np.sum(np.exp(_log_softmax(teacher / 0.5)) * _log_softmax(student / 0.5), 1)
        )

    x, y = tf.constant(student), tf.constant(teacher)
    with tf.GradientTape() as tape:
        tape.watch([x, y])
        loss = classification.distillation(x, y, temperature=0.5)
    of_student, of_teacher = tape.gradient(loss, [x, y])
    assert float(loss) == pytest.approx(oracle(student), rel=1e-10)
    np.testing.assert_allclose(of_student, over.numerical_gradient(oracle, student), atol=1e-8)
    assert of_teacher is None
    with pytest.raises(ValueError, match=r"same classes, got logits of \(4, 3\) and \(4, 2\)"):
        classification.distillation(x, y[:, :2], temperature=0.5)
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        classification.distillation(x, y, temperature=0)


def _images(n=4, side=16):
    """Image k is k everywhere, so that the pixels of a mixture identify its images."""
    return tf.ones([n, side, side, 3]) * tf.range(n, dtype=tf.float32)[:, None, None, None]


def test_mixup_averages_each_image_with_the_one_before():
    mixed = mixing.mixup(_images(), tf.range(4), tf.constant([0, 1]), alpha=1.0)
    weight = float(mixed.weight)
    assert 0 <= weight <= 1
    np.testing.assert_array_equal(mixed.other_labels, [3, 0, 1, 2])
    want = weight * np.arange(4) + (1 - weight) * np.array([3, 0, 1, 2])
    np.testing.assert_allclose(mixed.images[:, 5, 7, 1], want, rtol=1e-6)


def test_cutmix_pastes_a_box_whose_area_is_one_minus_the_weight():
    for k in range(20):
        mixed = mixing.cutmix(_images(), tf.range(4), tf.constant([k, 1]), alpha=1.0)
        pasted = mixed.images[1, :, :, 0].numpy() == 0
        assert float(mixed.weight) == pytest.approx(1 - pasted.mean(), abs=1e-6)
        rows, columns = pasted.any(1), pasted.any(0)
        np.testing.assert_array_equal(pasted, np.outer(rows, columns))
        assert set(np.unique(mixed.images[1])) <= {0.0, 1.0}


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_weights_are_drawn_from_a_beta_distribution(alpha):
    @tf.function(autograph=False)
    def draw(seeds):
        def weight(seed):
            return mixing.mixup(_images(2, 2), tf.range(2), seed, alpha=alpha).weight

        return tf.map_fn(weight, seeds, fn_output_signature=tf.float32)

    weights = draw(tf.stack([tf.zeros(1000, tf.int32), tf.range(1000)], 1)).numpy()
    assert np.mean(weights) == pytest.approx(0.5, abs=0.05)
    assert np.var(weights) == pytest.approx(0.25 / (2 * alpha + 1), rel=0.1)
    with pytest.raises(ValueError, match="alpha=0 must be greater than 0"):
        mixing.mixup(_images(), tf.range(4), tf.constant([0, 1]), alpha=0)
