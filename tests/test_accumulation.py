"""A batch in chunks: the gradient of the whole batch, with one chunk in memory at a time."""

import dataclasses
import functools

import numpy as np
import pytest
import replicas as replicas_lib
import tensorflow as tf
import tiny_runs

from simclr_tf import config
from simclr_tf.models import batch_norm, simclr
from simclr_tf.training import (
    accumulation,
    loop,
    objectives,
    optimizers,
    schedules,
    steps,
    tasks,
)

EXHAUSTIVE = functools.partial(pytest.param, marks=pytest.mark.exhaustive)
_BATCH, _CHUNKS = 16, 4
# At such a rate the update of a variable is its gradient, without rounding errors.
_RATE = 1e4
_ARCHITECTURE = dataclasses.replace(tiny_runs.ARCHITECTURE, encoder="tiny_encoders:plain")


class _Inference(simclr.SimCLR):
    """A network whose batch norm always normalizes by its moving averages."""

    def call(self, images, training=False):
        return super().call(images, training=False)

    def classify(self, images, training=False):
        return super().classify(images, training=False)


class _PerChunk(simclr.SimCLR):
    """A network that takes the whole batch and normalizes each chunk of images separately."""

    chunks = _CHUNKS

    def call(self, images, training=False):
        if images.shape[0] == 1:  # When its variables are made.
            return super().call(images, training=training)
        views = tf.reshape(images, [2, self.chunks, -1, *images.shape[1:]])
        outputs = []
        for k in range(self.chunks):
            with batch_norm.moving_average_scale(1 / self.chunks if training else 1.0):
                chunk = tf.reshape(views[:, k], [-1, *images.shape[1:]])
                outputs.append(super().call(chunk, training=training))

        def concatenate(name):
            by_view = [tf.reshape(o[name], [2, -1, o[name].shape[-1]]) for o in outputs]
            return tf.reshape(tf.concat(by_view, 1), [-1, by_view[0].shape[-1]])

        return {name: concatenate(name) for name in outputs[0]}


class _PerHalf(_PerChunk):
    """The same, with two chunks."""

    chunks = 2


@functools.cache
def _averages():
    """Returns moving averages that fit the data; without them all projections would be alike."""
    architecture = dataclasses.replace(_ARCHITECTURE, batch_norm_decay=0.0)
    model = simclr.SimCLR(architecture, seed=0)
    for variable in model.norm_variables():
        variable.assign(tf.ones_like(variable) * 0.8)
    model(_data(2)["views"].reshape(-1, 8, 8, 3), training=True)
    return [variable.numpy() for variable in model.non_trainable_variables]


def _learner(model, **settings):
    run = config.Config(**{"optimizer": "momentum", "momentum": 0.0, **settings})
    for variable in model.norm_variables():
        variable.assign(tf.ones_like(variable) * 0.8)
    for variable, average in zip(model.non_trainable_variables, _averages()):
        variable.assign(average)
    variables = model.trainable_variables
    if run.resolved_objective == "supervised":
        variables = model.classifier_variables()
    optimizer = optimizers.make_optimizer(
        run, model, variables, schedules.WarmupCosine(_RATE, 0, 100)
    )
    return steps.Learner(
        model,
        optimizer,
        variables,
        optimizers.decay_in_loss(run, model),
        run.weight_decay,
        clip_norm=run.clip_gradient_norm,
    )


def _task(model, objective):
    if objective == "supervised":
        return tasks.supervised_task(model)
    run = config.Config(objective=objective, temperature=0.5)
    return tasks.contrastive_task(
        model, objectives.make_objective(run), temperature=0.5, hidden_norm=True, labelled=True
    )


def _data(num_views):
    rng = np.random.default_rng(0)
    return {
        "views": rng.uniform(size=(_BATCH, num_views, 8, 8, 3)).astype(np.float32),
        "label": rng.integers(3, size=_BATCH).astype(np.int32),
    }


@functools.cache
def _train(kind, objective, chunks, replicas=1, jit_compile=False, num_views=2, **settings):
    """Returns the metrics of the first step that moves weights, and how far all variables moved.

    That is the first of all, unless its scale overflows float16: then the scale is halved.
    """
    strategy = replicas_lib.strategy(replicas)
    with strategy.scope():
        precision = settings.get("mixed_precision", "none")
        model = kind(_ARCHITECTURE, seed=0, mixed_precision=precision)
        learner = _learner(model, **settings)
    task = _task(model, objective)
    if chunks > 1:
        step = accumulation.chunked_step(learner, task, strategy, chunks, jit_compile=jit_compile)
    else:
        step = steps.whole_step(learner, task, strategy, jit_compile=jit_compile)
    before = [v.numpy() for v in (*learner.variables, *model.non_trainable_variables)]
    data = _data(1 if objective == "supervised" else num_views)
    batches = tf.data.Dataset.from_tensor_slices(data).batch(
        _BATCH // replicas, drop_remainder=True
    )
    dealt = iter(strategy.distribute_datasets_from_function(lambda _: batches.repeat()))
    train_steps = loop.compile_steps(step)
    for _ in range(16):
        sums = train_steps(dealt, 1)
        after = [v.numpy() for v in (*learner.variables, *model.non_trainable_variables)]
        moves = [new - old for new, old in zip(after, before)]
        if any(np.any(move) for move in moves[: len(learner.variables)]):
            return sums.totals, moves
    raise AssertionError("16 steps moved nothing")


def _assert_equal_steps(expected, step, tolerance):
    expected_metrics, expected_changes = expected
    metrics, changes = step
    assert metrics.keys() == expected_metrics.keys()
    for name, value in expected_metrics.items():
        if not name.startswith("train/feature_"):  # Computed from one chunk of one replica.
            assert metrics[name] == pytest.approx(value, rel=tolerance, abs=1e-6), name
    assert len(changes) == len(expected_changes)
    for change, expected in zip(changes, expected_changes):
        error = np.linalg.norm(change - expected)
        assert error <= tolerance * np.linalg.norm(expected) + 1e-6


@pytest.mark.parametrize("objective", ["nt_xent", EXHAUSTIVE("supcon"), "supervised"])
def test_without_batch_statistics_chunks_have_the_gradient_of_the_whole_batch(objective):
    whole = _train(_Inference, objective, 1)
    assert any(np.abs(change).max() > 1e-6 for change in whole[1])
    _assert_equal_steps(whole, _train(_Inference, objective, _CHUNKS), 1e-5)


@pytest.mark.parametrize("objective", ["nt_xent", EXHAUSTIVE("supcon")])
def test_with_batch_statistics_chunks_have_the_gradient_of_statistics_per_chunk(objective):
    # This includes the moving averages: k chunks update them as much as one step does.
    whole = _train(_PerChunk, objective, 1)
    chunked = _train(simclr.SimCLR, objective, _CHUNKS)
    _assert_equal_steps(whole, chunked, 1e-4)
    assert not np.allclose(_train(simclr.SimCLR, objective, 1)[1][0], chunked[1][0], rtol=1e-2)


@pytest.mark.exhaustive  # On both stacks there are two replicas, below.
def test_chunks_on_four_replicas_have_the_gradient_of_the_whole_batch():
    # Without batch statistics it does not matter which images form a chunk.
    whole = _train(_Inference, "nt_xent", 1, weight_decay=1e-2)
    chunked = _train(_Inference, "nt_xent", 2, 4, weight_decay=1e-2)
    _assert_equal_steps(whole, chunked, 1e-4)


def test_chunks_of_three_views_on_two_replicas_have_the_gradient_of_the_whole_batch():
    whole = _train(_Inference, "nt_xent", 1, num_views=3)
    _assert_equal_steps(whole, _train(_Inference, "nt_xent", 2, 2, num_views=3), 1e-4)


def test_batch_statistics_of_a_chunk_are_over_all_replicas():
    whole = _train(_PerHalf, "supcon", 1, 2)
    _assert_equal_steps(whole, _train(simclr.SimCLR, "supcon", 2, 2), 1e-4)


@pytest.mark.parametrize("mixed_precision", [EXHAUSTIVE("bfloat16"), "float16"])
def test_chunks_in_half_precision_are_near_float32(mixed_precision):
    plain = _train(_Inference, "nt_xent", _CHUNKS)
    half = _train(_Inference, "nt_xent", _CHUNKS, mixed_precision=mixed_precision)
    whole = _train(_Inference, "nt_xent", 1, mixed_precision=mixed_precision)
    assert half[0]["train/contrast_loss"] == pytest.approx(
        plain[0]["train/contrast_loss"], rel=0.03
    )
    # The norm is that of the gradient after it was scaled back.
    assert half[0][steps.GRADIENT_NORM] == pytest.approx(plain[0][steps.GRADIENT_NORM], rel=0.1)
    for chunked, at_once, full in zip(half[1], whole[1], plain[1]):
        assert np.linalg.norm(chunked - at_once) <= 0.05 * np.linalg.norm(at_once) + 1e-7
        assert np.linalg.norm(chunked - full) <= 0.2 * np.linalg.norm(full) + 1e-7


def test_chunks_compiled_with_xla_agree():
    plain = _train(simclr.SimCLR, "nt_xent", 2)
    _assert_equal_steps(plain, _train(simclr.SimCLR, "nt_xent", 2, jit_compile=True), 2e-3)


def test_moving_averages_can_be_updated_by_a_fraction_of_a_step():
    x = tf.constant(np.random.default_rng(0).normal(3, 2, (64, 5)), tf.float32)
    once, thrice, never = (batch_norm.BatchNorm(momentum=0.9) for _ in range(3))
    once(x, training=True)
    for _ in range(3):
        with batch_norm.moving_average_scale(1 / 3):
            thrice(x, training=True)
        with batch_norm.moving_average_scale(0.0):
            never(x, training=True)
    np.testing.assert_allclose(thrice.moving_mean, once.moving_mean, rtol=1e-5)
    np.testing.assert_allclose(thrice.moving_variance, once.moving_variance, rtol=1e-5)
    np.testing.assert_array_equal(never.moving_mean, np.zeros(5))


def test_no_graph_convolves_more_than_one_chunk():
    model = simclr.SimCLR(_ARCHITECTURE, seed=0)
    learner = _learner(model)
    strategy = tf.distribute.get_strategy()
    step = accumulation.chunked_step(learner, _task(model, "nt_xent"), strategy, _CHUNKS)
    signature = {
        "views": tf.TensorSpec([_BATCH, 2, 8, 8, 3]),
        "label": tf.TensorSpec([_BATCH], tf.int32),
    }
    graph = tf.function(step.train, autograph=False).get_concrete_function(signature).graph
    bodies = [graph, *(f.graph for f in graph._functions.values() if hasattr(f, "graph"))]
    convolutions = [
        op.outputs[0].shape[0]
        for body in bodies
        for op in body.get_operations()
        if op.type == "Conv2D"
    ]
    assert convolutions and set(convolutions) == {2 * _BATCH // _CHUNKS}
