"""The files of a step at which training met a number that is not finite.

`MODEL_DIR/bad_step/` has its batch, the weights and the optimizer before it, the settings, and what
is known about it. The next such step replaces them.
"""

from __future__ import annotations

import dataclasses
import io
import os
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import errors, storage, text
from simclr_tf.runs import checkpoints, directory

FACTS, _BATCH, _STATE = "step.json", "batch.npz", "state"
_NUMBERS = ("loss", "gradient_norm", "learning_rate")  # Which may be not finite.


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known about the step.

    Attributes:
        step: its number; the first is 1.
        loss: total loss; None if it is the step after a checkpoint whose weights are not finite.
        gradient_norm: norm of the gradient; None as for the loss.
        learning_rate: learning rate of the last step that ran.
        num_examples: number of training images, from which the plan of the learning rate follows.
        replicas: number of replicas.
        seed: seed of the run.
        finding: where the first number is not finite.
        has_batch: whether the batch is saved.
        moving_averages: what the moving averages of batch norm are.
    """

    step: int
    loss: float | None
    gradient_norm: float | None
    learning_rate: float
    num_examples: int
    replicas: int
    seed: int
    finding: str
    has_batch: bool
    moving_averages: str = "those after the batch of the step, which training does not read"


@dataclasses.dataclass(frozen=True)
class Saved:
    """A saved step.

    Attributes:
        facts: what is known about it.
        batch: the batch of all replicas; None if it could not be saved.
        state: prefix of the checkpoint with the weights and the optimizer before the step.
    """

    facts: Facts
    batch: dict[str, np.ndarray] | None
    state: str


def save(
    config: config_lib.Config,
    facts: Facts,
    batch: dict[str, np.ndarray] | None,
    state: checkpoints.Checkpoints,
) -> str:
    """Writes a step into the run directory, instead of the one that is there.

    The facts come last, so that a folder with them is complete.

    Args:
        config: the settings of the run.
        facts: what is known about the step.
        batch: the batch of all replicas; None if it is unknown.
        state: the weights, the optimizer and the number of steps before it.

    Returns:
        The clause of a sentence that says how to use the files, or why they were not written.
    """
    assert config.model_dir is not None
    folder = os.path.join(config.model_dir, directory.BAD_STEP)
    try:
        if tf.io.gfile.isdir(folder):
            tf.io.gfile.rmtree(folder)
        tf.io.gfile.makedirs(folder)
        if batch is not None:
            content = io.BytesIO()
            np.savez(content, **batch)
            storage.replace(os.path.join(folder, _BATCH), content.getvalue())
        state.write(os.path.join(folder, _STATE))
        directory.write_config(folder, config)
        values = {name: _to_json(value) for name, value in dataclasses.asdict(facts).items()}
        storage.write_json(os.path.join(folder, FACTS), values)
    except (errors.UserError, OSError, tf.errors.OpError) as error:
        return f"it could not be saved ({text.reason(error)})"
    if batch is None:
        return f"its weights, without the batch, are saved in {folder}"
    return f"--mode=replay --model_dir={config.model_dir} runs step {facts.step}"


def _to_json(value: Any) -> Any:
    """Returns a value for JSON, which has no numbers that are not finite."""
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def _from_json(value: Any) -> float | None:
    return None if value is None else float(value)


def read(model_dir: str) -> Saved:
    """Reads the step that was saved in a run directory.

    Raises:
        UserError: if there is none, or a file is damaged.
    """
    folder = os.path.join(model_dir, directory.BAD_STEP)
    path = os.path.join(folder, FACTS)
    if not tf.io.gfile.exists(path):
        raise errors.UserError(
            f"--model_dir={model_dir} has no {directory.BAD_STEP}/{FACTS}, so there is no step to "
            "replay; training writes it when a loss or a weight is not finite."
        )
    values = storage.read_json(path)
    try:
        numbers = {name: _from_json(values[name]) for name in _NUMBERS}
        facts = Facts(**{**values, **numbers})
        batch = _read_batch(os.path.join(folder, _BATCH)) if facts.has_batch else None
    except (TypeError, ValueError, KeyError, OSError, EOFError, tf.errors.OpError) as error:
        raise errors.UserError(
            f"The saved step in {folder} is damaged ({text.reason(error)}); train again to write "
            "it again."
        ) from error
    return Saved(facts, batch, os.path.join(folder, _STATE))


def _read_batch(path: str) -> dict[str, np.ndarray]:
    with tf.io.gfile.GFile(path, "rb") as file:
        content = io.BytesIO(file.read())
    with np.load(content, allow_pickle=False) as arrays:
        return dict(arrays)
