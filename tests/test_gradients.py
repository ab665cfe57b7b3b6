"""The norm of the gradient of a step: logged, limited, and what happens if it is not finite."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import replicas as replicas_lib
import tensorflow as tf
import test_accumulation
import test_steps

from simclr_tf.training import accumulation, averages, gradients, loop, schedules, steps

RATE = test_accumulation._RATE
INFERENCE = test_accumulation._Inference  # Whose result does not depend on chunks.
NORM = steps.GRADIENT_NORM


def _applied(moves):
    """Returns the norm of an update in float64, divided by the rate of plain SGD."""
    return np.sqrt(sum(np.sum(np.float64(move) ** 2) for move in moves)) / RATE


@pytest.mark.parametrize(("chunks", "replicas"), [(1, 1), (1, 4), (2, 2)])
def test_clipping_scales_the_global_gradient_and_the_logged_norm_is_that_before(chunks, replicas):
    _, whole = test_accumulation._train(INFERENCE, "nt_xent", 1)  # On one replica, not clipped.
    metrics, moves = test_accumulation._train(
        INFERENCE, "nt_xent", chunks, replicas, clip_gradient_norm=0.02
    )
    assert metrics[NORM] == pytest.approx(_applied(whole), rel=1e-4)
    scale = 0.02 / _applied(whole)
    assert scale < 0.9
    largest = max(np.abs(move).max() for move in whole)
    for move, one in zip(moves, whole):  # The moving averages do not move here.
        np.testing.assert_allclose(move, scale * one, rtol=1e-3, atol=1e-5 * scale * largest)


def test_a_gradient_within_the_limit_is_unchanged_bit_for_bit():
    rng = np.random.default_rng(0)
    given = [tf.constant(rng.normal(size=5), tf.float32), None]
    norm = gradients.global_norm(given)
    assert gradients.clip(given, norm, float(norm) * 1.01)[0].numpy().tobytes() == (
        given[0].numpy().tobytes()
    )


def test_rows_of_a_sparse_gradient_that_are_named_twice_are_summed():
    sparse = tf.IndexedSlices(tf.constant([[3.0], [1.0]]), tf.constant([1, 1]), tf.constant([2, 1]))
    norm = gradients.global_norm([sparse, tf.constant([3.0])])
    assert float(norm) == 5
    clipped, other = gradients.clip([sparse, tf.constant([3.0])], norm, 2.5)
    np.testing.assert_allclose(tf.convert_to_tensor(clipped), [[0.0], [2.0]])
    np.testing.assert_allclose(other, [1.5])


@pytest.mark.parametrize(("chunks", "replicas"), [(1, 2), (2, 1)])
def test_a_step_that_is_not_finite_changes_neither_weights_nor_optimizer(chunks, replicas):
    strategy = replicas_lib.strategy(replicas)
    learner = test_steps._learner(strategy, "nt_xent")
    task = test_steps._task(learner.model, "nt_xent")
    data = test_steps._data(2)
    data["views"][test_steps._BATCH + 1] = np.nan  # In the second of four batches.

    def batches(_):
        per_replica = test_steps._BATCH // replicas
        return tf.data.Dataset.from_tensor_slices(data).batch(per_replica, drop_remainder=True)

    step = steps.whole_step(learner, task, strategy)
    if chunks > 1:
        step = accumulation.chunked_step(learner, task, strategy, chunks)
    train_steps = loop.compile_steps(step)
    iterator = iter(strategy.distribute_datasets_from_function(batches))
    assert train_steps(iterator, 1).finite
    kept = [*learner.model.trainable_variables, *learner.optimizer.variables]
    before = [variable.numpy() for variable in kept]
    sums = train_steps(iterator, 3)
    assert (sums.steps, sums.finite) == (1, False)
    assert np.isnan(sums.last["train/total_loss"]) and np.isnan(sums.last[NORM])
    for variable, value in zip(kept, before):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert train_steps(iterator, 1).finite  # And the next batch trains.


def test_a_gradient_that_is_not_finite_stops_although_the_loss_is():
    strategy = replicas_lib.strategy(1)
    learner = test_steps._learner(strategy, "nt_xent")
    task = test_steps._task(learner.model, "nt_xent")

    @tf.custom_gradient
    def spoiled(x):
        return x, lambda upstream: upstream * np.inf

    loss = task.batch_loss
    spoiled_task = dataclasses.replace(task, batch_loss=lambda z, labels: loss(spoiled(z), labels))
    batch = tf.data.Dataset.from_tensors(test_steps._data(2, 4)).repeat()
    iterator = iter(strategy.distribute_datasets_from_function(lambda _: batch))
    sums = loop.compile_steps(steps.whole_step(learner, spoiled_task, strategy))(iterator, 3)
    assert (sums.steps, sums.finite) == (1, False)
    assert np.isfinite(sums.last["train/total_loss"])
    assert int(learner.optimizer.iterations) == 0


def test_a_metric_is_averaged_over_the_steps_in_which_it_is_defined():
    values = iter([2.0, np.nan, 4.0])

    def train(_):
        return {"train/total_loss": tf.constant(1.0), NORM: tf.constant(next(values))}

    step = steps.Step(train, ("train/total_loss", NORM), scales_loss=True, multi_graph=True)
    sums = loop.compile_steps(step)(iter([{}] * 3), 3)
    assert sums.steps == 3 and sums.finite
    watch = averages.Averages(schedules.Plan(1000, 100, 50, 0, 10, 10, 0.1), None)
    watch.add(sums, 1.0)
    means = watch.flush()
    assert means[NORM] == 3 and means["train/total_loss"] == 1
    json.loads(json.dumps(means, allow_nan=False))
