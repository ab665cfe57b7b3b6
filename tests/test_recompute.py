"""Recomputation changes no results, and the backward pass computes activations again."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import replicas
import tensorflow as tf
import tiny_runs

from simclr_tf.models import batch_norm, simclr

ATTENTION = {"sk_ratio": 0.0625, "se_ratio": 0.25}


def _trained(
    recompute, *, count=1, mixed="none", jit_compile=False, fraction=1.0, freeze=-1, **changes
):
    """Returns loss, gradients and all variables after one forward and backward pass."""
    strategy = replicas.strategy(count)
    architecture = dataclasses.replace(tiny_runs.ARCHITECTURE, **changes)
    with strategy.scope():
        model = simclr.SimCLR(architecture, seed=0, mixed_precision=mixed, recompute=recompute)
        model.encoder.freeze(freeze)
        for variable in model.norm_variables():  # Not zero, so that every branch contributes.
            variable.assign(tf.ones_like(variable) / 2)
    slices = tf.split(tf.random.stateless_uniform([8, 8, 8, 3], [0, 1]), count)
    images = strategy.experimental_distribute_values_from_function(
        lambda context: slices[context.replica_id_in_sync_group]
    )
    variables = model.encoder.trainable_variables

    def step(images):
        with tf.GradientTape() as tape, batch_norm.moving_average_scale(fraction):
            features = model.encoder(images, training=True)["features"]
            loss = tf.reduce_sum(features**2) / 8
        gradients = tape.gradient(loss, variables)
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    if jit_compile:
        step = tf.function(step, jit_compile=True, autograph=False)
    loss, gradients = tf.function(lambda: strategy.run(step, (images,)), autograph=False)()
    total = [sum(strategy.experimental_local_results(x)) for x in (loss, *gradients)]
    return [x.numpy() for x in total], [v.numpy() for v in model.encoder.variables]


@pytest.mark.parametrize(
    "setting",
    [
        {},
        pytest.param({"count": 2}, marks=pytest.mark.exhaustive),
        {"mixed": "bfloat16"},
        {"jit_compile": True},
        {"fraction": 0.5},
        {"freeze": 1},
        ATTENTION,
    ],
    ids=["plain", "replicas", "bfloat16", "xla", "chunks", "frozen", "attention"],
)
def test_loss_gradients_and_averages_are_the_same_as_without(setting):
    plain, recomputed = _trained(False, **setting), _trained(True, **setting)
    tolerance: dict[str, Any] = (
        {"rtol": 0.05, "atol": 0.02} if "mixed" in setting else {"rtol": 1e-4, "atol": 1e-5}
    )
    assert any(np.any(gradient) for gradient in plain[0][1:])
    for values, others in zip(plain, recomputed):
        for one, other in zip(values, others):
            np.testing.assert_allclose(one, other, **tolerance)


def _convolutions(recompute):
    """Returns the number of convolutions that a step runs, without those of gradients."""
    model = simclr.SimCLR(
        dataclasses.replace(tiny_runs.ARCHITECTURE, resnet_depth=20), seed=0, recompute=recompute
    )

    @tf.function(autograph=False)
    def step(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model.encoder(images, training=True)["features"])
        return tape.gradient(loss, model.encoder.trainable_variables)

    graph = step.get_concrete_function(tf.TensorSpec([8, 8, 8, 3])).graph
    return sum(operation.type == "Conv2D" for operation in graph.get_operations())


def test_the_backward_pass_runs_the_blocks_again():
    blocks = 3 * 3 * 2 + 3  # Convolutions in blocks, including shortcuts.
    assert _convolutions(False) == blocks + 1
    assert _convolutions(True) == 2 * blocks + 1
