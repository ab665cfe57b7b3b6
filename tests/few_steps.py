"""Trains a tiny network for a few steps, in this process or in one with the other Keras.

python tests/few_steps.py FOLDER OPTIMIZER START STOP
"""

# ruff: noqa: I001  (simclr_tf chooses Keras, so it is imported before TensorFlow)

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

import simclr_tf  # noqa: F401
import tensorflow as tf

import quick_tensorflow
from simclr_tf import config
from simclr_tf.models import simclr
from simclr_tf.runs import checkpoints
from simclr_tf.training import loop, objectives, optimizers, schedules, steps, tasks

_BATCH, _STEPS = 8, 4


def network(**changes: Any) -> simclr.SimCLR:
    """Returns a small network."""
    settings: dict[str, Any] = {
        "resnet_depth": 8,
        "width_multiplier": 1,
        "stem": "small",
        "image_size": 8,
        "proj_head_mode": "nonlinear",
        "num_proj_layers": 2,
        "proj_out_dim": 4,
        "ft_proj_selector": 0,
        "batch_norm_decay": 0.9,
        "class_names": ("a", "b"),
    }
    mixed_precision = changes.pop("mixed_precision", "none")
    architecture = simclr.Architecture(**{**settings, **changes})
    return simclr.SimCLR(architecture, seed=0, mixed_precision=mixed_precision)


def learner_of(model: simclr.SimCLR, run: config.Config) -> steps.Learner:
    """Returns a network with its optimizer."""
    variables = model.trainable_variables
    schedule = schedules.WarmupCosine(0.1, 1, 8)
    optimizer = optimizers.make_optimizer(run, model, variables, schedule)
    decayed = optimizers.decay_in_loss(run, model)
    return steps.Learner(model, optimizer, variables, decayed, run.weight_decay)


class Run:
    """Trains `network` on random views."""

    def __init__(self, optimizer: str) -> None:
        run = config.Config(optimizer=optimizer, weight_decay=1e-3)
        self._strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
        with self._strategy.scope():
            model = network()
            learner = learner_of(model, run)
        self._state = checkpoints.Checkpoints("", model, learner.optimizer)
        task = tasks.contrastive_task(
            model,
            objectives.make_objective(run),
            temperature=run.temperature,
            hidden_norm=run.hidden_norm,
            labelled=True,
        )
        self._train = loop.compile_steps(steps.whole_step(learner, task, self._strategy))
        rng = np.random.default_rng(0)
        count = _STEPS * _BATCH
        batch = {
            "views": rng.random([count, 2, 8, 8, 3], np.float32),
            "label": rng.integers(0, 2, count).astype(np.int32),
        }
        self._data = tf.data.Dataset.from_tensor_slices(batch).batch(_BATCH, drop_remainder=True)

    def train(self, count: int, prefix: str) -> None:
        """Trains for some steps, and writes a checkpoint."""
        data = self._data.skip(int(self._state.step))
        distributed = self._strategy.distribute_datasets_from_function(lambda _: data)
        self._train(iter(distributed), count)
        self._state.step.assign_add(count)
        self._state.write(prefix)

    def restore(self, prefix: str) -> None:
        """Reads a checkpoint."""
        self._state.restore(prefix)


if __name__ == "__main__":
    # As in tests/conftest.py: threads and the rewriting of graphs decide the last bits.
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = 4 * [tf.config.LogicalDeviceConfiguration()]
    tf.config.set_logical_device_configuration(cpu, devices)
    quick_tensorflow.apply()
    if "PYTEST_XDIST_WORKER" in os.environ:
        tf.config.threading.set_intra_op_parallelism_threads(1)
    _, name, begun, folder = sys.argv
    this = Run(name)
    this.train(2, f"{folder}/ckpt-2")
    this.restore(f"{begun}/ckpt-2")
    this.train(2, f"{folder}/ckpt-4")
