"""The estimate of a step's memory: right on graphs done by hand, and what it advises."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf import config, distribute
from simclr_tf.models import simclr
from simclr_tf.training import memory, objectives, optimizers, schedules, steps

_MIB = 2**20


def _peak(function, *shapes):
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    return memory._peak(tf.function(function).get_concrete_function(*specs).graph)


def test_a_tensor_lives_to_its_last_reader():
    def chain(x):
        a = tf.exp(x)  # With b: two tensors at once, and never three.
        b = tf.sin(a)
        return tf.reduce_sum(tf.cos(b))

    assert _peak(chain, [1000]) == 2 * 4000

    def kept(x):
        a = tf.exp(x)
        b = tf.sin(a)
        return tf.reduce_sum(tf.cos(b) * a)  # a, b, cos(b), and then the product.

    assert _peak(kept, [1000]) == 3 * 4000


def test_reshaped_is_the_same_memory():
    def function(x):
        a = tf.reshape(tf.exp(x), [10, 100])
        return tf.reduce_sum(tf.sin(tf.identity(a)))

    assert _peak(function, [1000]) == 2 * 4000


def _needs(replicas=1, image_size=8, **settings):
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
    task = steps.contrastive_task(
        model,
        objectives.make_objective(run),
        temperature=0.1,
        hidden_norm=True,
        labelled=model.linear_head is not None,
    )
    needs = memory.needs_of(learner, task, views=2, image_size=image_size)
    return needs, model


def test_activations_grow_with_the_pixels_and_gradients_with_the_weights():
    small, model = _needs()
    large, _ = _needs(image_size=16)
    assert large.per_image == pytest.approx(4 * small.per_image, rel=0.2)
    weights = 4 * sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert small.gradients == large.gradients == weights
    assert small.state >= 2 * weights  # Momentum has a slot for each.


def test_a_replica_needs_what_one_alone_does():
    assert _needs(replicas=2)[0].per_image == pytest.approx(_needs()[0].per_image, rel=0.1)


def test_the_estimate_leaves_no_trace():
    needs, model = _needs()
    before = [variable.numpy() for variable in model.variables]
    assert needs.per_image > 0
    _, again = _needs()
    for one, other in zip(before, [variable.numpy() for variable in again.variables]):
        np.testing.assert_array_equal(one, other)


NEEDS = memory.Needs(state=100 * _MIB, gradients=50 * _MIB, per_image=10 * _MIB)


def test_chunks_hold_a_share_of_the_activations_and_the_gradients_twice():
    whole, eighth = NEEDS.step(64), NEEDS.step(64, chunks=8)
    assert whole - eighth == (640 - 80 - 50) * _MIB


def test_what_fits_is_not_spoken_of():
    assert memory.advice(NEEDS, 64, 1, 2 * NEEDS.step(64)) is None


def test_what_does_not_fit_is_told_with_the_chunks_that_would():
    free = 800 * _MIB
    assert memory.fitting_chunks(NEEDS, 64, free) == 4
    told = memory.advice(NEEDS, 64, 1, free)
    assert "A step needs about 1.02 GiB a replica, and 0.78 GiB are free" in told
    assert "--accum_chunks=4 would need 0.60 GiB" in told


def test_what_no_chunks_make_fit_is_told_too():
    assert "too little even image by image" in memory.advice(NEEDS, 64, 1, 300 * _MIB)
