"""The memory estimate of a step: correct on graphs counted by hand, and its suggestions."""

import types

import numpy as np
import psutil
import pynvml
import pytest
import replicas as replicas_lib
import tensorflow as tf
import tiny_runs

from simclr_tf import config, distribute
from simclr_tf.models import simclr
from simclr_tf.training import memory, objectives, optimizers, schedules, steps, tasks

_MIB = 2**20


def _peak(function, *shapes):
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    return memory._peak(tf.function(function).get_concrete_function(*specs).graph)


def test_a_tensor_lives_until_its_last_use():
    def chain(x):
        a = tf.exp(x)  # Alive together with b: two tensors at once, never three.
        b = tf.sin(a)
        return tf.reduce_sum(tf.cos(b))

    assert _peak(chain, [1000]) == 2 * 4000

    def kept(x):
        a = tf.exp(x)
        b = tf.sin(a)
        return tf.reduce_sum(tf.cos(b) * a)  # a, b and cos(b), then the product.

    assert _peak(kept, [1000]) == 3 * 4000


def test_a_reshaped_tensor_takes_no_memory_of_its_own():
    def function(x):
        a = tf.reshape(tf.exp(x), [10, 100])
        return tf.reduce_sum(tf.sin(tf.identity(a)))

    assert _peak(function, [1000]) == 2 * 4000


def _estimate(replicas=1, image_size=8, **settings):
    run = config.Config(image_size=image_size, resnet_depth=8, optimizer="momentum", **settings)
    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        strategy = distribute.virtual_cpu_strategy(replicas)
    with strategy.scope():
        model = simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=0)
        variables = model.trainable_variables
        optimizer = optimizers.make_optimizer(
            run, model, variables, schedules.WarmupCosine(1.0, 0, 10)
        )
    learner = steps.Learner(model, optimizer, variables, [], 0.0)
    task = tasks.contrastive_task(
        model,
        objectives.make_objective(run),
        temperature=0.1,
        hidden_norm=True,
        labelled=model.linear_head is not None,
    )
    return memory.estimate(learner, task, views=2, image_size=image_size), model


def test_activations_scale_with_the_pixels_and_gradients_with_the_weights():
    small, model = _estimate()
    large, _ = _estimate(image_size=16)
    assert large.per_image == pytest.approx(4 * small.per_image, rel=0.2)
    weights = 4 * sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert small.gradients == large.gradients == weights
    assert small.state >= 2 * weights  # Momentum has a slot for each.


def test_the_estimate_per_replica_does_not_depend_on_their_number():
    assert _estimate(replicas=2)[0].per_image == pytest.approx(_estimate()[0].per_image, rel=0.1)


def test_the_estimate_changes_no_variable():
    estimate, model = _estimate()
    before = [variable.numpy() for variable in model.variables]
    assert estimate.per_image > 0
    _, again = _estimate()
    for one, other in zip(before, [variable.numpy() for variable in again.variables]):
        np.testing.assert_array_equal(one, other)


NEEDED = memory.Estimate(state=100 * _MIB, gradients=50 * _MIB, per_image=10 * _MIB)


def test_chunks_divide_the_activations_and_double_the_gradients():
    whole, eighth = NEEDED.step(64), NEEDED.step(64, chunks=8)
    assert whole - eighth == (640 - 80 - 50) * _MIB


def test_there_is_no_suggestion_if_the_step_fits():
    assert memory.suggestion(NEEDED, 64, 1, 2 * NEEDED.step(64)) is None


def test_suggests_the_fewest_chunks_that_fit():
    free = 800 * _MIB
    assert memory.fitting_chunks(NEEDED, 64, free) == 4
    text = memory.suggestion(NEEDED, 64, 1, free)
    assert "A step needs about 1.02 GiB per replica, and 0.78 GiB are free" in text
    assert "--accum_chunks=4 would need 0.60 GiB" in text


def test_suggests_a_smaller_network_if_no_number_of_chunks_fits():
    assert "too little even for one image at a time" in memory.suggestion(NEEDED, 64, 1, 300 * _MIB)


def _use_gpus(monkeypatch, free):
    """Makes TensorFlow and NVIDIA's library report GPUs with these free bytes."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: list(free))
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(free))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda gpu: types.SimpleNamespace(free=free[gpu])
    )


def test_the_gpu_with_the_least_free_memory_counts(monkeypatch):
    _use_gpus(monkeypatch, [3 * _MIB, 2 * _MIB, 5 * _MIB])
    assert memory.free_bytes(tf.distribute.get_strategy()) == 2 * _MIB


def test_the_free_memory_of_a_gpu_without_nvidias_driver_is_unknown(monkeypatch):
    def fail():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    _use_gpus(monkeypatch, [_MIB])
    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert memory.free_bytes(tf.distribute.get_strategy()) is None


def test_the_free_memory_of_a_cpu_is_split_among_its_replicas(monkeypatch):
    available = types.SimpleNamespace(available=8 * _MIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    assert memory.free_bytes(replicas_lib.strategy(2)) == 4 * _MIB
