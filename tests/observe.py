"""What two runs of the program are compared by: functions of an observed run."""

from __future__ import annotations

from collections.abc import Callable
import functools
import re
from typing import Any

import numpy as np
import observed_runs
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf import keras_api
from simclr_tf.data import policies, views
from simclr_tf.models import batch_norm

Observation = Callable[[observed_runs.Observed], Any]


def argument(function: str, name: str) -> Observation:
    """Returns an observation: an argument of the last call of a function."""
    return lambda run: run.call(function)[name]


def every_argument(function: str, name: str) -> Observation:
    """Returns an observation: an argument of all calls of a function."""
    return lambda run: [call[name] for call in run.calls[function]]


def metric(name: str) -> Observation:
    """Returns an observation: a metric of the first training step."""
    return lambda run: run.first_step[0][f"train/{name}"]


def changes(run: observed_runs.Observed) -> list[np.ndarray]:
    """Returns by how much two training steps change every variable."""
    return [after - before for after, before in zip(run.second_step[1], run.weights)]


def weights(run: observed_runs.Observed) -> list[np.ndarray]:
    """Returns the weights from which training starts."""
    return run.weights


def shapes(run: observed_runs.Observed) -> list[tuple[int, ...]]:
    """Returns the shapes of all variables of the network."""
    return [tuple(variable.shape) for variable in run.model.variables]


def outputs(run: observed_runs.Observed) -> dict[str, np.ndarray]:
    """Returns the outputs of the network for fixed images, in inference mode."""
    side = run.model.architecture.image_size
    images = np.random.default_rng(1).uniform(size=(4, side, side, 3)).astype(np.float32)
    return {name: value.numpy() for name, value in run.model(images).items()}


def views_of(run: observed_runs.Observed) -> np.ndarray:
    """Returns the views of fixed images by the policy of the run."""
    return _views(run.call("train_batches")["policy"])


def sizes_of_views(run: observed_runs.Observed) -> list[int]:
    """Returns the sizes of the views of a run, one after another."""
    return [call["policy"].image_size for call in run.calls["train_batches"]]


@functools.cache
def _views(policy: policies.Policy) -> np.ndarray:
    images = np.random.default_rng(1).uniform(size=(16, 24, 24, 3)).astype(np.float32)
    make_views = tf.autograph.experimental.do_not_convert(views.make_views)  # As in the program.
    with observed_runs.eagerly():
        return make_views(images, tf.constant([3, 5]), policy, num_views=2).numpy()


def pixels(run: observed_runs.Observed) -> Any:
    """Returns what the pixels of the training images are."""
    found = run.call("train_batches")["policy"].pixels
    return [found.dtype, found.low, found.high, found.names, found.mean, found.deviation]


def left_out(run: observed_runs.Observed) -> Any:
    """Returns the images that are not trained on, by split."""
    return run.call("train_batches")["source"].excluded


def checkpoints(run: observed_runs.Observed) -> list[int]:
    """Returns the steps of the checkpoints that are left."""
    return sorted(int(path.stem.split("-")[1]) for path in run.folder.glob("ckpt-*.index"))


def recorded_steps(run: observed_runs.Observed) -> list[int]:
    """Returns the steps of the lines in metrics.jsonl."""
    return [line["step"] for line in tiny_runs.lines_of(run.folder / "metrics.jsonl")]


def rates(run: observed_runs.Observed) -> list[float]:
    """Returns the learning rates in metrics.jsonl."""
    return [line["learning_rate"] for line in tiny_runs.lines_of(run.folder / "metrics.jsonl")]


def trained_variables(run: observed_runs.Observed) -> int:
    """Returns how many variables train."""
    return len(run.call("make_optimizer")["variables"])


def optimizer_class(run: observed_runs.Observed) -> str:
    """Returns the class of the optimizer."""
    return type(run.returned["make_optimizer"]).__name__


def recomputed_groups(run: observed_runs.Observed) -> int:
    """Returns how many parts of the network are computed again in the backward pass."""
    parts: list[Any] = []
    side = run.model.architecture.image_size
    with pytest.MonkeyPatch.context() as patch, batch_norm.moving_average_scale(0.0):
        patch.setattr(tf, "recompute_grad", lambda function: parts.append(function) or function)
        run.model(np.zeros([2, side, side, 3], np.float32), training=True)
    return len(parts)


def normalised_on_two(run: observed_runs.Observed) -> np.ndarray:
    """Returns the output of the first batch norm on two replicas with different inputs."""
    norm = run.model.encoder.stem_norm
    channels = norm.moving_mean.shape[0]
    images = np.random.default_rng(1).normal(size=(2, 4, 8, 8, channels)).astype(np.float32)
    images[1] += 3
    dealt = run.strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(images[context.replica_id_in_sync_group])
    )
    step = tf.function(lambda x: run.strategy.run(lambda x: norm(x, training=True), (x,)))
    return np.stack(run.strategy.experimental_local_results(step(dealt)))


def synchronized(run: observed_runs.Observed) -> set[bool]:
    """Returns whether batch norms take their statistics over all replicas."""
    layers = [x for x in keras_api.layers_in(run.model) if isinstance(x, batch_norm.BatchNorm)]
    return {layer.synchronized for layer in layers}


def warnings(run: observed_runs.Observed) -> list[str]:
    """Returns the warnings that are printed."""
    return re.findall("warning: (.*)", run.printed)


def scores(run: observed_runs.Observed) -> set[str]:
    """Returns the names of the scores in result.json."""
    return {name for name in run.result if "accuracy" in name}


def classes(run: observed_runs.Observed) -> tuple[str, ...] | None:
    """Returns the classes of the linear head."""
    return run.model.architecture.class_names


def same(one: Any, other: Any) -> bool:
    """Returns whether two observations are equal, numbers to four digits."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (float, np.ndarray)):
        scale = 1e-4 * np.max(np.abs(one), initial=1e-6)
        return np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=0, atol=scale)
    return one == other
