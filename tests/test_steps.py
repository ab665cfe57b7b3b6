"""Training steps: equal on 1, 2 and 4 replicas, at the scale of the published runs."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf import config, distribute
from simclr_tf.losses import mixing
from simclr_tf.models import simclr
from simclr_tf.training import accumulation, loop, objectives, optimizers, schedules, steps

_BATCH = 16


def _strategy(replicas):
    if replicas == 1:
        return tf.distribute.OneDeviceStrategy("/cpu:0")
    return distribute.virtual_cpu_strategy(replicas)


def _learner(strategy, kind, **settings):
    settings = {"optimizer": "momentum", "weight_decay": 1e-2, **settings}
    run = config.Config(**settings)
    with strategy.scope():
        model = simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=0, mixed_precision=run.mixed_precision)
        # The last gammas start at zero and would hide the gradients behind them.
        for variable in model.norm_variables():
            variable.assign(tf.ones_like(variable) * 0.8)
        variables = model.trainable_variables if kind != "supervised" else None
        variables = variables or model.classifier_variables()
        schedule = schedules.WarmupCosine(0.05, 0, 100)
        optimizer = optimizers.make_optimizer(run, model, variables, schedule)
        trained = {v.ref() for v in variables}
        decayed = [v for v in optimizers.decay_in_loss(run, model) if v.ref() in trained]
    return steps.Learner(model, optimizer, variables, decayed, run.weight_decay)


def _task(model, kind):
    if kind == "supervised":
        return steps.supervised_task(model)
    objective = objectives.make_objective(config.Config(objective=kind, temperature=0.5))
    return steps.contrastive_task(
        model, objective, temperature=0.5, hidden_norm=True, labelled=True
    )


def _step(learner, kind):
    return steps.whole_step(learner, _task(learner.model, kind))


def _data(num_views, count=4 * _BATCH):
    rng = np.random.default_rng(0)
    return {
        "views": rng.uniform(size=(count, num_views, 8, 8, 3)).astype(np.float32),
        "label": rng.integers(3, size=count).astype(np.int32),
    }


@functools.cache
def _train(replicas, kind, count, **settings):
    """Returns metrics and variables after `count` steps on the same global batches."""
    strategy = _strategy(replicas)
    learner = _learner(strategy, kind, **settings)
    data = _data(1 if kind == "supervised" else 2)

    def of_host(context):
        del context
        return tf.data.Dataset.from_tensor_slices(data).batch(
            _BATCH // replicas, drop_remainder=True
        )

    dealt = strategy.distribute_datasets_from_function(of_host)
    train_steps = loop.compile_steps(strategy, _step(learner, kind))
    sums = train_steps(iter(dealt), count)
    assert sums.steps == count and sums.finite
    model = learner.model
    trained = model.trainable_variables  # Keras's own order of all variables mixes them.
    return sums.totals, [v.numpy() for v in (*trained, *model.non_trainable_variables)]


@pytest.mark.parametrize(
    ("kind", "optimizer", "replicas"),
    [
        ("nt_xent", "lars", 2),
        ("nt_xent", "lars", 4),
        ("nt_xent", "momentum", 2),
        ("supervised", "momentum", 4),
    ],
)
def test_replicas_reach_the_loss_and_weights_of_one(kind, optimizer, replicas):
    metrics, weights = _train(1, kind, 2, optimizer=optimizer)
    more_metrics, more_weights = _train(replicas, kind, 2, optimizer=optimizer)
    for name, value in metrics.items():
        if name != "train/feature_spread":  # It is of a replica's own images.
            assert more_metrics[name] == pytest.approx(value, rel=1e-4), name
    for one, other in zip(weights, more_weights):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_have_the_gradients_of_one(replicas):
    # With plain SGD and no decay, what a weight lost is its gradient.
    settings = {"momentum": 0.0, "weight_decay": 0.0}
    before = [v.numpy() for v in _learner(_strategy(1), "nt_xent").model.trainable_variables]
    count = len(before)

    def gradients(replicas):
        return [
            new - old for new, old in zip(_train(replicas, "nt_xent", 1, **settings)[1], before)
        ]

    for one, other in zip(gradients(1)[:count], gradients(replicas)[:count]):
        assert np.abs(one).max() > 0
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4 * np.abs(one).max())


def test_the_objective_is_twice_the_papers_loss_plus_cross_entropy_and_decay():
    metrics, _ = _train(1, "nt_xent", 1)
    want = 2 * metrics["train/contrast_loss"] + metrics["train/supervised_loss"]
    want += metrics["train/weight_decay"]
    assert metrics["train/total_loss"] == pytest.approx(want, rel=1e-6)


def test_decay_in_the_loss_is_half_the_squared_norm():
    learner = _learner(_strategy(1), "nt_xent", optimizer="lars", weight_decay=0.1)
    kernel = learner.model.linear_head.dense.kernel.numpy().astype(np.float64)
    assert float(learner.decay()) == pytest.approx(0.05 * np.sum(kernel**2), rel=1e-5)
    assert _learner(_strategy(1), "nt_xent", optimizer="adamw").decayed == []
    momentum = _learner(_strategy(1), "nt_xent", optimizer="momentum")
    norms = {v.ref() for v in momentum.model.norm_variables()}
    decayed = {v.ref() for v in momentum.decayed}
    assert decayed | norms == {v.ref() for v in momentum.variables} and not decayed & norms


@pytest.mark.parametrize("optimizer", config.OPTIMIZERS)
def test_every_optimizer_moves_every_variable(optimizer):
    if optimizer == "lamb":
        pytest.importorskip("tensorflow_addons")
    before = [v.numpy() for v in _learner(_strategy(1), "nt_xent").model.trainable_variables]
    _, weights = _train(1, "nt_xent", 2, optimizer=optimizer)
    assert all(np.any(new != old) for new, old in zip(weights, before))


@pytest.mark.parametrize("mixed_precision", ["bfloat16", "float16"])
def test_half_precision_trains_near_float32(mixed_precision):
    metrics, _ = _train(1, "nt_xent", 3)
    half, weights = _train(1, "nt_xent", 3, mixed_precision=mixed_precision)
    assert half["train/contrast_loss"] == pytest.approx(metrics["train/contrast_loss"], rel=0.03)
    assert all(np.isfinite(weight).all() for weight in weights)


def _first_move(**settings):
    """Returns by how much the first step that moves anything moves each variable."""
    strategy = _strategy(1)
    learner = _learner(strategy, "supervised", momentum=0.0, weight_decay=0.0, **settings)
    before = [variable.numpy() for variable in learner.variables]
    batch = tf.data.Dataset.from_tensors(_data(1, _BATCH)).repeat()  # The same one at every step.
    batches = iter(strategy.distribute_datasets_from_function(lambda _: batch))
    train_steps = loop.compile_steps(strategy, _step(learner, "supervised"))
    for _ in range(16):  # A scale that overflows float16 is halved, and its step left out.
        train_steps(batches, 1)
        moves = [v.numpy() - old for v, old in zip(learner.variables, before)]
        if any(np.any(move) for move in moves):
            return moves
    raise AssertionError("16 steps moved nothing")


def test_a_float16_step_goes_as_far_as_a_float32_step():
    # The loss is scaled up for float16, and the gradients are scaled down again.
    for full, half in zip(_first_move(), _first_move(mixed_precision="float16")):
        assert np.linalg.norm(half - full) < 0.1 * np.linalg.norm(full)


class _Colours(tf.Module):
    """A classifier whose logits are how red, green and blue an image is."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(3.0)

    def classify(self, images, training):
        assert training
        return self.scale * tf.reduce_mean(images, [1, 2])


@pytest.mark.parametrize("mix", [mixing.mixup, mixing.cutmix])
@pytest.mark.parametrize("seed", range(4))
def test_the_labels_of_a_mixture_count_as_much_as_their_pixels(mix, seed):
    labels = np.int32([0, 1, 2, 1])
    # Each image has the colour of its class; the next in the batch is of another class.
    views = np.zeros([4, 1, 8, 8, 3]) + np.eye(3)[labels][:, None, None, None]
    mixed = []

    def mixer(images, labels):
        mixed.append(mix(images, labels, tf.constant([seed, 1]), alpha=1.0))
        return mixed[-1]

    strategy = _strategy(1)
    with strategy.scope():
        model, optimizer = _Colours(), tf.keras.optimizers.SGD(0.0)
        optimizer.build([model.scale])
    learner = steps.Learner(model, optimizer, [model.scale], [], 0.0)
    step = steps.whole_step(learner, steps.supervised_task(model, mixer=mixer))
    batch = {"views": tf.constant(views, tf.float32), "label": tf.constant(labels)}
    metrics = step.on(distribute.Replicas(strategy))(batch)
    shares = mixed[0].images.numpy().mean(axis=(1, 2))  # (4, 3), of each class.
    log_p = 3 * shares - np.log(np.exp(3 * shares).sum(1, keepdims=True))
    want = -np.mean(np.sum(shares * log_p, 1))
    assert float(metrics["train/supervised_loss"]) == pytest.approx(want, rel=1e-5)
    assert float(metrics["train/supervised_acc"]) == 1  # The class with most pixels comes first.


def test_the_step_compiles_under_xla_and_agrees():
    results = []
    for jit_compile in (False, True):
        strategy = _strategy(1)
        learner = _learner(strategy, "nt_xent", optimizer="lars")
        data = tf.data.Dataset.from_tensor_slices(_data(2)).batch(_BATCH, drop_remainder=True)
        train_steps = loop.compile_steps(
            strategy, _step(learner, "nt_xent"), jit_compile=jit_compile
        )
        dealt = strategy.distribute_datasets_from_function(lambda _, data=data: data)
        train_steps(iter(dealt), 2)
        results.append([variable.numpy() for variable in learner.model.variables])
    for plain, compiled in zip(*results):
        np.testing.assert_allclose(compiled, plain, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("chunks", [1, 2])
def test_stops_at_the_first_loss_that_is_not_finite(chunks):
    strategy = _strategy(1)
    learner = _learner(strategy, "nt_xent")
    data = _data(2)
    data["views"][_BATCH] = np.nan  # In the second of four batches.
    batches = tf.data.Dataset.from_tensor_slices(data).batch(_BATCH, drop_remainder=True)
    dealt = strategy.distribute_datasets_from_function(lambda _: batches)
    step = _step(learner, "nt_xent")
    if chunks > 1:
        step = accumulation.accumulated_step(learner, _task(learner.model, "nt_xent"), chunks)
    sums = loop.compile_steps(strategy, step)(iter(dealt), 4)
    assert sums.steps == 2 and not sums.finite


def test_time_spent_waiting_for_input_is_told():
    strategy = _strategy(1)
    learner = _learner(strategy, "nt_xent")
    batches = tf.data.Dataset.from_tensor_slices(_data(2)).batch(_BATCH, drop_remainder=True)

    def slow(batch):
        with tf.control_dependencies([tf.py_function(_sleep, [], [])]):
            return {name: tf.identity(value) for name, value in batch.items()}

    dealt = strategy.distribute_datasets_from_function(lambda _: batches.map(slow))
    sums = loop.compile_steps(strategy, _step(learner, "nt_xent"))(iter(dealt), 3)
    assert sums.waited > 0.3


def _sleep():
    import time

    time.sleep(0.2)


def test_spread_is_zero_for_equal_features_and_one_for_isotropic_ones():
    rng = np.random.default_rng(0)
    equal = tf.ones([8, 4])
    isotropic = tf.constant(rng.normal(size=(20000, 16)), tf.float32)
    assert float(steps.spread(equal)) == pytest.approx(0, abs=1e-6)
    assert float(steps.spread(isotropic)) == pytest.approx(1, abs=0.01)


def test_learners_are_values():
    learner = _learner(_strategy(1), "nt_xent")
    with pytest.raises(dataclasses.FrozenInstanceError):
        learner.weight_decay = 0.0
