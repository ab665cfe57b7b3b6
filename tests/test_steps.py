"""Training steps: equal on 1, 2 and 4 replicas, and at the scale of the published runs."""

import dataclasses
import functools

import numpy as np
import pytest
import replicas as replicas_lib
import tensorflow as tf
import tiny_runs

from simclr_tf import config, keras_optimizers
from simclr_tf.config import metadata
from simclr_tf.data import mixing
from simclr_tf.models import simclr
from simclr_tf.training import (
    accumulation,
    feature_metrics,
    loop,
    memory,
    objectives,
    optimizers,
    schedules,
    steps,
    tasks,
)

_BATCH = 16
OPTIMIZERS = metadata.describe(config.Config.__dataclass_fields__["optimizer"]).choices


def _learner(strategy, kind, **settings):
    settings = {"encoder": "tiny_encoders:plain", "optimizer": "momentum", **settings}
    settings = {"weight_decay": 1e-2, **settings}
    run = config.Config(**settings)
    with strategy.scope():
        architecture = dataclasses.replace(tiny_runs.ARCHITECTURE, encoder=run.encoder)
        model = simclr.SimCLR(architecture, seed=0, mixed_precision=run.mixed_precision)
        # The last gammas of blocks start at zero and would block the gradients.
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
        return tasks.supervised_task(model)
    objective = objectives.make_objective(config.Config(objective=kind, temperature=0.5))
    return tasks.contrastive_task(
        model, objective, temperature=0.5, hidden_norm=True, labelled=True
    )


def _step(strategy, learner, kind, **settings):
    return steps.whole_step(learner, _task(learner.model, kind), strategy, **settings)


def _data(num_views, count=4 * _BATCH):
    rng = np.random.default_rng(0)
    return {
        "views": rng.uniform(size=(count, num_views, 8, 8, 3)).astype(np.float32),
        "label": rng.integers(3, size=count).astype(np.int32),
    }


@functools.cache
def _train(replicas, kind, count, **settings):
    """Returns metrics and variables after `count` steps, on the same global batches."""
    strategy = replicas_lib.strategy(replicas)
    learner = _learner(strategy, kind, **settings)
    data = _data(1 if kind == "supervised" else 2)

    def batches(_):
        return tf.data.Dataset.from_tensor_slices(data).batch(
            _BATCH // replicas, drop_remainder=True
        )

    distributed = strategy.distribute_datasets_from_function(batches)
    train_steps = loop.compile_steps(_step(strategy, learner, kind))
    sums = train_steps(iter(distributed), count)
    assert sums.steps == count and sums.finite
    model = learner.model
    trained = model.trainable_variables  # Keras's order of `variables` mixes the two.
    return sums.totals, [v.numpy() for v in (*trained, *model.non_trainable_variables)]


@pytest.mark.parametrize(
    ("kind", "optimizer", "replicas"),
    [
        ("nt_xent", "lars", 2),
        ("supervised", "momentum", 4),
    ],
)
def test_several_replicas_reach_the_loss_and_weights_of_one(kind, optimizer, replicas):
    expected_metrics, expected_weights = _train(1, kind, 2, optimizer=optimizer)
    metrics, weights = _train(replicas, kind, 2, optimizer=optimizer)
    for name, value in expected_metrics.items():
        if not name.startswith("train/feature_"):  # Computed from the images of one replica.
            assert metrics[name] == pytest.approx(value, rel=1e-4), name
    for value, expected in zip(weights, expected_weights):
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=5e-5)


def test_four_replicas_have_the_gradients_of_one():
    # With plain SGD and no weight decay, the change of a weight is its gradient.
    settings = {"momentum": 0.0, "weight_decay": 0.0, "encoder": "tiny_encoders:sequential"}
    learner = _learner(replicas_lib.strategy(1), "nt_xent", **settings)
    before = [variable.numpy() for variable in learner.variables]

    def gradients(replicas):
        weights = _train(replicas, "nt_xent", 1, **settings)[1]
        return [new - old for new, old in zip(weights, before)]

    expected = gradients(1)
    scale = max(np.abs(gradient).max() for gradient in expected)
    # Batch norm cancels the gradients of the two biases before it.
    assert sum(np.abs(gradient).max() > 1e-3 * scale for gradient in expected) == len(before) - 2
    for one, four in zip(expected, gradients(4)):
        np.testing.assert_allclose(four, one, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.usefixtures("with_memory_estimates")
def test_an_encoder_with_python_control_flow_on_tensors_trains(chunks):
    strategy = replicas_lib.strategy(1)
    learner = _learner(strategy, "nt_xent", encoder="tiny_encoders:branching")
    task = _task(learner.model, "nt_xent")
    estimate = memory.estimate(learner, task, views=2, image_size=8)
    before = [variable.numpy() for variable in learner.model.encoder.trainable_variables]
    batches = tf.data.Dataset.from_tensor_slices(_data(2)).batch(_BATCH, drop_remainder=True)
    distributed = strategy.distribute_datasets_from_function(lambda _: batches)
    step = steps.whole_step(learner, task, strategy)
    if chunks > 1:
        step = accumulation.chunked_step(learner, task, strategy, chunks)
    sums = loop.compile_steps(step)(iter(distributed), 2)
    assert sums.steps == 2 and sums.finite and estimate.per_image > 0
    for old, variable in zip(before, learner.model.encoder.trainable_variables):
        assert np.any(variable.numpy() != old)


def test_the_objective_is_twice_the_papers_loss_plus_cross_entropy_and_decay():
    metrics, _ = _train(1, "nt_xent", 1)
    want = 2 * metrics["train/contrast_loss"] + metrics["train/supervised_loss"]
    want += metrics["train/weight_decay"]
    assert metrics["train/total_loss"] == pytest.approx(want, rel=1e-6)


def test_the_weight_decay_loss_is_half_the_squared_norm():
    learner = _learner(replicas_lib.strategy(1), "nt_xent", optimizer="lars", weight_decay=0.1)
    kernel = learner.model.linear_head.dense.kernel.numpy().astype(np.float64)
    assert float(learner.weight_decay_loss()) == pytest.approx(0.05 * np.sum(kernel**2), rel=1e-5)
    assert _learner(replicas_lib.strategy(1), "nt_xent", optimizer="adamw").decayed == []
    momentum = _learner(replicas_lib.strategy(1), "nt_xent", optimizer="momentum")
    norms = {v.ref() for v in momentum.model.norm_variables()}
    decayed = {v.ref() for v in momentum.decayed}
    assert decayed | norms == {v.ref() for v in momentum.variables} and not decayed & norms


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_updates_every_variable(optimizer):
    if optimizer == "lamb":
        pytest.importorskip("tensorflow_addons")
    before = [
        v.numpy() for v in _learner(replicas_lib.strategy(1), "nt_xent").model.trainable_variables
    ]
    _, weights = _train(1, "nt_xent", 2, optimizer=optimizer)
    assert all(np.any(new != old) for new, old in zip(weights, before))


@pytest.mark.parametrize("mixed_precision", ["bfloat16", "float16"])
def test_half_precision_trains_near_float32(mixed_precision):
    resnet = {"encoder": config.Config().encoder}
    metrics, _ = _train(1, "nt_xent", 3, **resnet)
    half, weights = _train(1, "nt_xent", 3, mixed_precision=mixed_precision, **resnet)
    assert half["train/contrast_loss"] == pytest.approx(metrics["train/contrast_loss"], rel=0.03)
    assert all(np.isfinite(weight).all() for weight in weights)


def _first_move(**settings):
    """Returns by how much the first step that moves anything moves each variable."""
    strategy = replicas_lib.strategy(1)
    learner = _learner(strategy, "supervised", momentum=0.0, weight_decay=0.0, **settings)
    before = [variable.numpy() for variable in learner.variables]
    batch = tf.data.Dataset.from_tensors(_data(1, _BATCH)).repeat()  # The same one at every step.
    batches = iter(strategy.distribute_datasets_from_function(lambda _: batch))
    train_steps = loop.compile_steps(_step(strategy, learner, "supervised"))
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
        self.needs_autograph = False

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

    strategy = replicas_lib.strategy(1)
    with strategy.scope():
        model, optimizer = _Colours(), keras_optimizers.SGD(0.0)
        optimizer.build([model.scale])
    learner = steps.Learner(model, optimizer, [model.scale], [], 0.0)
    step = steps.whole_step(learner, tasks.supervised_task(model, mixer=mixer), strategy)
    batch = {"views": tf.constant(views, tf.float32), "label": tf.constant(labels)}
    metrics = step.train(batch)
    fractions = mixed[0].images.numpy().mean(axis=(1, 2))  # (4, 3), of each class.
    log_p = 3 * fractions - np.log(np.exp(3 * fractions).sum(1, keepdims=True))
    want = -np.mean(np.sum(fractions * log_p, 1))
    assert float(metrics["train/supervised_loss"]) == pytest.approx(want, rel=1e-5)
    assert float(metrics["train/supervised_acc"]) == 1  # The class with most pixels comes first.


def test_the_step_compiled_with_xla_agrees():
    results = []
    for jit_compile in (False, True):
        strategy = replicas_lib.strategy(1)
        learner = _learner(strategy, "nt_xent", optimizer="lars")
        data = tf.data.Dataset.from_tensor_slices(_data(2)).batch(_BATCH, drop_remainder=True)
        step = _step(strategy, learner, "nt_xent", jit_compile=jit_compile)
        train_steps = loop.compile_steps(step)
        distributed = strategy.distribute_datasets_from_function(lambda _, data=data: data)
        train_steps(iter(distributed), 2)
        results.append([variable.numpy() for variable in learner.model.variables])
    for plain, compiled in zip(*results):
        np.testing.assert_allclose(compiled, plain, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("chunks", [1, 2])
def test_stops_at_the_first_loss_that_is_not_finite(chunks):
    strategy = replicas_lib.strategy(1)
    learner = _learner(strategy, "nt_xent")
    data = _data(2)
    data["views"][_BATCH] = np.nan  # In the second of four batches.
    batches = tf.data.Dataset.from_tensor_slices(data).batch(_BATCH, drop_remainder=True)
    distributed = strategy.distribute_datasets_from_function(lambda _: batches)
    step = _step(strategy, learner, "nt_xent")
    if chunks > 1:
        task = _task(learner.model, "nt_xent")
        step = accumulation.chunked_step(learner, task, strategy, chunks)
    sums = loop.compile_steps(step)(iter(distributed), 4)
    assert sums.steps == 2 and not sums.finite


def test_the_time_spent_waiting_for_input_is_measured():
    strategy = replicas_lib.strategy(1)
    learner = _learner(strategy, "nt_xent")
    batches = tf.data.Dataset.from_tensor_slices(_data(2)).batch(_BATCH, drop_remainder=True)

    def slow(batch):
        with tf.control_dependencies([tf.py_function(_sleep, [], [])]):
            return {name: tf.identity(value) for name, value in batch.items()}

    distributed = strategy.distribute_datasets_from_function(lambda _: batches.map(slow))
    sums = loop.compile_steps(_step(strategy, learner, "nt_xent"))(iter(distributed), 3)
    assert sums.waited > 0.3


def test_a_step_begins_only_when_its_batch_has_arrived():
    # What does not depend on the batch could otherwise run while the input is waited for.
    events = []
    weight = tf.Variable(2.0)

    def arrive(number):
        with tf.control_dependencies([tf.py_function(_sleep, [], [])]):
            return {"number": tf.numpy_function(record_batch, [number], tf.int64)}

    def record_batch(number):
        events.append("batch")
        return number

    def record_step(value):
        events.append("step")
        return value

    def train(batch):
        # Stateless, so that TensorFlow itself does not keep the order.
        loss = tf.numpy_function(record_step, [weight + 1], tf.float32, stateful=False)
        loss.set_shape([])
        return {steps.TOTAL_LOSS: loss, steps.GRADIENT_NORM: tf.zeros([])}

    step = steps.Step(train, (steps.TOTAL_LOSS, steps.GRADIENT_NORM))
    loop.compile_steps(step)(iter(tf.data.Dataset.range(1).map(arrive)), 1)
    assert events == ["batch", "step"]


def _sleep():
    import time

    time.sleep(0.2)


def test_spread_is_zero_for_equal_features_and_one_for_isotropic_ones():
    rng = np.random.default_rng(0)
    equal = tf.ones([8, 4])
    isotropic = tf.constant(rng.normal(size=(20000, 16)), tf.float32)
    assert float(feature_metrics.spread(equal)) == pytest.approx(0, abs=1e-6)
    assert float(feature_metrics.spread(isotropic)) == pytest.approx(1, abs=0.01)


def test_rank_is_the_number_of_directions_in_which_features_differ():
    rng = np.random.default_rng(0)
    for k in (1, 2, 5):
        isotropic = np.zeros([256, 16])
        isotropic[:, :k] = rng.choice([-1, 1], [256, k])  # Rows of equal length.
        for features in (isotropic, isotropic[:15], 3 * isotropic):
            rank = float(feature_metrics.rank(tf.constant(features, tf.float32)))
            expected = np.linalg.eigvalsh(np.cov(features, rowvar=False, bias=True))
            assert rank == pytest.approx(np.sum(expected) ** 2 / np.sum(expected**2), rel=1e-4)
    for equal in (tf.ones([8, 4]), tf.ones([256, 1]) * rng.normal(size=512).astype("f")):
        assert float(feature_metrics.rank(equal)) == 0  # Whatever the rounding of their mean is.
    almost = tf.ones([256, 16]) + 1e-5 * isotropic.astype("f")
    assert float(feature_metrics.rank(almost)) > 1
