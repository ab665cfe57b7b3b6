"""How a classifier learns from several labels: the loss, the overlap, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import replicas
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.data import sources
from simclr_tf.losses import classification
from simclr_tf.runs import several_labels
from simclr_tf.training import label_terms, tasks

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32) * 3
LABELS = RNG.choice([1, 0, -1], (6, 4)).astype(np.int32)


def _oracle(logits, labels):
    """Negative log likelihood of the labels that are known, in float64, one by one."""
    losses = np.zeros(len(logits))
    for row, column in np.argwhere(labels >= 0):
        p = 1 / (1 + np.exp(-np.float64(logits[row, column])))
        losses[row] -= np.log(p if labels[row, column] else 1 - p)
    return losses


def test_the_loss_is_the_negative_log_likelihood_of_the_known_labels():
    found = classification.binary_cross_entropy(tf.constant(LOGITS), tf.constant(LABELS))
    np.testing.assert_allclose(found, _oracle(LOGITS, LABELS), rtol=1e-5)
    with pytest.raises(ValueError, match="must have one shape"):
        classification.binary_cross_entropy(tf.constant(LOGITS), tf.constant(LABELS[:, 0]))


def test_its_gradient_is_that_of_finite_differences_and_zero_where_nothing_is_known():
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_sum(classification.binary_cross_entropy(logits, tf.constant(LABELS)))
    gradient = tape.gradient(loss, logits).numpy()
    step = 1e-5
    for row, column in np.ndindex(LOGITS.shape):
        moved = [LOGITS.astype(np.float64) for _ in range(2)]
        moved[0][row, column] += step
        moved[1][row, column] -= step
        up, down = (_oracle(one, LABELS).sum() for one in moved)
        assert gradient[row, column] == pytest.approx((up - down) / (2 * step), abs=1e-4)
    assert np.all(gradient[LABELS < 0] == 0)


def test_the_overlap_is_of_predicted_and_right_labels():
    logits = tf.constant([[1.0, 1, -1], [-1, -1, -1], [1, -1, -1], [9, -9, 9]])
    labels = tf.constant([[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 0, -1]])
    np.testing.assert_allclose(label_terms.jaccard(logits, labels), [1 / 3, 1, 0, 1])


@pytest.mark.parametrize("count", [1, 2])
def test_images_without_any_known_label_have_no_weight(count):
    labels = np.array([[1, 0], [-1, -1], [0, -1], [-1, 1]], np.int32)

    strategy, parts = replicas.strategy(count), np.split(labels, count)
    inputs = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )
    run = tf.function(lambda: strategy.run(tasks.label_weights, (inputs,)), autograph=False)
    found = np.concatenate(strategy.experimental_local_results(run()))
    np.testing.assert_allclose(found, np.array([4, 0, 4, 4]) / 3)


WITHOUT_MEANING = [
    ({"label_smoothing": 0.1, "train_mode": "finetune"}, "--label_smoothing=0.1", "leave it out"),
    ({"mixup": 0.2, "train_mode": "finetune"}, "--mixup=0.2", "leave it out"),
    ({"cutmix": 1.0, "train_mode": "finetune"}, "--cutmix=1", "leave it out"),
    ({"objective": "n_pairs"}, "--objective=n_pairs", "use --objective=supcon or nt_xent"),
    ({"objective": "supcon_in"}, "--objective=supcon_in", "use --objective=supcon or nt_xent"),
    ({"objective": "supcon", "supcon_positives": 1}, "--supcon_positives=1", "leave it out"),
    (
        {"objective": "supcon", "supcon_class_average": True},
        "--supcon_class_average",
        "leave it out",
    ),
    ({"objective": "supcon", "decoupled": True}, "--decoupled", "leave it out"),
    ({"objective": "distill", "teacher": "t"}, "--objective=distill", "--objective=supervised"),
    ({"objective": "supervised", "samples_per_class": 2}, "--samples_per_class=2", "leave it out"),
    ({"labels_per_class": 2}, "--labels_per_class=2", "--train_split='train[:10%]'"),
    ({"label_fraction": 0.1}, "--label_fraction=0.1", "--train_split='train[:10%]'"),
]


@pytest.mark.parametrize(("settings", "flag", "remedy"), WITHOUT_MEANING)
def test_what_has_no_meaning_for_several_labels_is_refused(settings, flag, remedy):
    config = dataclasses.replace(config_lib.Config(), **settings)
    source = sources.Source("birds", ("a", "b"), {}, (None, None), (), None, several_labels=True)
    with pytest.raises(errors.UserError) as error:
        several_labels.check(config, source)
    message = str(error.value)
    assert message.startswith(flag) and "the images of birds may have several" in message
    assert remedy in message
