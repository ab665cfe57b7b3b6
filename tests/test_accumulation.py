"""A batch in chunks: the gradient of the whole batch, one chunk in memory at a time."""

import dataclasses
import functools

import numpy as np
import pytest
import replicas as over
import tensorflow as tf
import tiny_runs

from simclr_tf import config, distribute
from simclr_tf.models import batch_norm, simclr
from simclr_tf.training import accumulation, loop, objectives, optimizers, schedules, steps

_BATCH, _CHUNKS = 16, 4


class _Inference(simclr.SimCLR):
    """A network whose batch norm always normalises by its moving averages."""

    def call(self, images, training=False, stop_gradient=True):
        return super().call(images, training=False, stop_gradient=stop_gradient)

    def classify(self, images, training=False):
        return super().classify(images, training=False)


class _PerChunk(simclr.SimCLR):
    """A network that is called once on both views and normalises each chunk of images by itself."""

    chunks = _CHUNKS

    def call(self, images, training=False, stop_gradient=True):
        if images.shape[0] == 1:  # When its variables are made.
            return super().call(images, training=training)
        views = tf.reshape(images, [2, self.chunks, -1, *images.shape[1:]])
        made = []
        for k in range(self.chunks):
            with batch_norm.averages_following(1 / self.chunks if training else 1.0):
                chunk = tf.reshape(views[:, k], [-1, *images.shape[1:]])
                made.append(super().call(chunk, training=training, stop_gradient=stop_gradient))

        def joined(name):
            parts = [tf.reshape(m[name], [2, -1, m[name].shape[-1]]) for m in made]
            return tf.reshape(tf.concat(parts, 1), [-1, parts[0].shape[-1]])

        return {name: joined(name) for name in made[0]}


class _PerHalf(_PerChunk):
    """The same, of two chunks."""

    chunks = 2


@functools.cache
def _averages():
    """Returns moving averages that fit the data, without which projections would be all alike."""
    architecture = dataclasses.replace(tiny_runs.ARCHITECTURE, batch_norm_decay=0.0)
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
    # At such a rate what a variable moved is its gradient, not rounding.
    optimizer = optimizers.make_optimizer(
        run, model, variables, schedules.WarmupCosine(1e4, 0, 100)
    )
    return steps.Learner(
        model, optimizer, variables, optimizers.decay_in_loss(run, model), run.weight_decay
    )


def _task(model, objective):
    if objective == "supervised":
        return steps.supervised_task(model)
    run = config.Config(objective=objective, temperature=0.5)
    return steps.contrastive_task(
        model, objectives.make_objective(run), temperature=0.5, hidden_norm=True, labelled=True
    )


def _data(num_views):
    rng = np.random.default_rng(0)
    return {
        "views": rng.uniform(size=(_BATCH, num_views, 8, 8, 3)).astype(np.float32),
        "label": rng.integers(3, size=_BATCH).astype(np.int32),
    }


@functools.cache
def _train(kind, objective, chunks, replicas=1, jit_compile=False, **settings):
    """Returns the metrics of the first step that moves weights, and how far all variables moved.

    That is the first of all, unless its scale overflows float16: then the scale is halved.
    """
    strategy = over.strategy(replicas)
    with strategy.scope():
        precision = settings.get("mixed_precision", "none")
        model = kind(tiny_runs.ARCHITECTURE, seed=0, mixed_precision=precision)
        learner = _learner(model, **settings)
    task = _task(model, objective)
    step = steps.whole_step(learner, task)
    if chunks > 1:
        step = accumulation.accumulated_step(learner, task, chunks)
    before = [v.numpy() for v in (*learner.variables, *model.non_trainable_variables)]
    data = _data(1 if objective == "supervised" else 2)
    batches = tf.data.Dataset.from_tensor_slices(data).batch(
        _BATCH // replicas, drop_remainder=True
    )
    dealt = iter(strategy.distribute_datasets_from_function(lambda _: batches.repeat()))
    train_steps = loop.compile_steps(strategy, step, jit_compile=jit_compile)
    for _ in range(16):
        sums = train_steps(dealt, 1)
        after = [v.numpy() for v in (*learner.variables, *model.non_trainable_variables)]
        moves = [new - old for new, old in zip(after, before)]
        if any(np.any(move) for move in moves[: len(learner.variables)]):
            return sums.totals, moves
    raise AssertionError("16 steps moved nothing")


def _assert_equal_steps(one, other, tolerance):
    metrics, moves = one
    other_metrics, other_moves = other
    assert metrics.keys() == other_metrics.keys()
    for name, value in metrics.items():
        if name != "train/feature_spread":  # It is of the images that are at hand.
            assert other_metrics[name] == pytest.approx(value, rel=tolerance, abs=1e-6), name
    assert len(moves) == len(other_moves)
    for move, other_move in zip(moves, other_moves):
        assert np.linalg.norm(other_move - move) <= tolerance * np.linalg.norm(move) + 1e-6


@pytest.mark.parametrize("objective", ["nt_xent", "supcon", "supervised"])
def test_without_batch_statistics_chunks_have_the_gradient_of_the_whole(objective):
    whole = _train(_Inference, objective, 1)
    assert any(np.abs(move).max() > 1e-6 for move in whole[1])
    _assert_equal_steps(whole, _train(_Inference, objective, _CHUNKS), 1e-5)


@pytest.mark.parametrize("objective", ["nt_xent", "supcon"])
def test_with_batch_statistics_they_have_that_of_a_network_that_takes_them_per_chunk(objective):
    # Moving averages included: one step moves them once, a k-th with each chunk.
    whole = _train(_PerChunk, objective, 1)
    chunked = _train(simclr.SimCLR, objective, _CHUNKS)
    _assert_equal_steps(whole, chunked, 1e-4)
    assert not np.allclose(_train(simclr.SimCLR, objective, 1)[1][0], chunked[1][0], rtol=1e-2)


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_take_chunks_as_one_would(replicas):
    # Without batch statistics a chunk of all replicas may be made of any images.
    whole = _train(_Inference, "nt_xent", 1, weight_decay=1e-2)
    chunked = _train(_Inference, "nt_xent", 2, replicas, weight_decay=1e-2)
    _assert_equal_steps(whole, chunked, 1e-4)


def test_replicas_share_the_statistics_of_a_chunk():
    whole = _train(_PerHalf, "supcon", 1, 2)
    _assert_equal_steps(whole, _train(simclr.SimCLR, "supcon", 2, 2), 1e-4)


@pytest.mark.parametrize("mixed_precision", ["bfloat16", "float16"])
def test_half_precision_takes_chunks_near_float32(mixed_precision):
    plain = _train(_Inference, "nt_xent", _CHUNKS)
    half = _train(_Inference, "nt_xent", _CHUNKS, mixed_precision=mixed_precision)
    whole = _train(_Inference, "nt_xent", 1, mixed_precision=mixed_precision)
    assert half[0]["train/contrast_loss"] == pytest.approx(
        plain[0]["train/contrast_loss"], rel=0.03
    )
    for chunked, at_once, full in zip(half[1], whole[1], plain[1]):
        assert np.linalg.norm(chunked - at_once) <= 0.05 * np.linalg.norm(at_once) + 1e-7
        assert np.linalg.norm(chunked - full) <= 0.2 * np.linalg.norm(full) + 1e-7


def test_chunks_compile_under_xla_and_agree():
    plain = _train(simclr.SimCLR, "nt_xent", 2)
    _assert_equal_steps(plain, _train(simclr.SimCLR, "nt_xent", 2, jit_compile=True), 2e-3)


def test_averages_go_a_share_of_their_way():
    x = tf.constant(np.random.default_rng(0).normal(3, 2, (64, 5)), tf.float32)
    once, thrice, never = (batch_norm.BatchNorm(momentum=0.9) for _ in range(3))
    once(x, training=True)
    for _ in range(3):
        with batch_norm.averages_following(1 / 3):
            thrice(x, training=True)
        with batch_norm.averages_following(0.0):
            never(x, training=True)
    np.testing.assert_allclose(thrice.moving_mean, once.moving_mean, rtol=1e-5)
    np.testing.assert_allclose(thrice.moving_variance, once.moving_variance, rtol=1e-5)
    np.testing.assert_array_equal(never.moving_mean, np.zeros(5))


def test_a_chunk_is_all_that_a_graph_holds():
    # No activation of the encoder is as large as the whole batch's.
    model = simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=0)
    learner = _learner(model)
    step = accumulation.accumulated_step(learner, _task(model, "nt_xent"), _CHUNKS)
    here = distribute.Replicas(tf.distribute.get_strategy())
    signature = {
        "views": tf.TensorSpec([_BATCH, 2, 8, 8, 3]),
        "label": tf.TensorSpec([_BATCH], tf.int32),
    }
    graph = tf.function(step.on(here)).get_concrete_function(signature).graph
    bodies = [graph, *(f.graph for f in graph._functions.values() if hasattr(f, "graph"))]
    convolutions = [
        op.outputs[0].shape[0]
        for body in bodies
        for op in body.get_operations()
        if op.type == "Conv2D"
    ]
    assert convolutions and set(convolutions) == {2 * _BATCH // _CHUNKS}
