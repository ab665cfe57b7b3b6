"""A cell of a transfer on disk: a folder whose cell.json says that it is complete."""

from __future__ import annotations

from collections.abc import Mapping
import os
from typing import Any

import tensorflow as tf

from simclr_tf import errors, storage

FILE = "cell.json"
_INPUTS = "inputs"


def is_finished(folder: str) -> bool:
    """Returns whether the cell in a folder is complete."""
    return tf.io.gfile.exists(os.path.join(folder, FILE))


def read(folder: str, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what was written of a finished cell; None if it is not finished.

    Args:
        folder: the folder of the cell.
        inputs: all that its result depends on, as JSON has it.

    Raises:
        UserError: if it was computed from other inputs.
    """
    if not is_finished(folder):
        return None
    path = os.path.join(folder, FILE)
    stored = storage.read_json(path)
    earlier = stored.get(_INPUTS, {}) if isinstance(stored, dict) else {}
    differing = [
        f"{name} is {earlier.get(name)} there and {inputs.get(name)} here"
        for name in sorted({*earlier, *inputs})
        if earlier.get(name) != inputs.get(name)
    ]
    if differing:
        raise errors.UserError(
            f"{path} is of another transfer ({'; '.join(differing)}); use another --model_dir, the "
            "same settings, or delete that folder to compute it again."
        )
    return stored


def read_numbers(folder: str) -> dict[str, Any]:
    """Returns the results of a finished cell.

    Raises:
        UserError: if they cannot be read.
    """
    stored = storage.read_json(os.path.join(folder, FILE))
    return {name: value for name, value in stored.items() if name != _INPUTS}


def finish(folder: str, inputs: Mapping[str, Any], numbers: Mapping[str, Any]) -> None:
    """Marks a cell as complete, after all of its other files were written.

    Args:
        folder: the folder of the cell.
        inputs: see `read`.
        numbers: its results.
    """
    storage.write_json(os.path.join(folder, FILE), {_INPUTS: dict(inputs), **numbers})


def remove_weights(folder: str) -> None:
    """Deletes the checkpoints and the SavedModel of a cell that was not chosen."""
    for name in storage.names_in(folder):
        path = os.path.join(folder, name)
        if name.startswith("ckpt-") or name == "checkpoint":
            tf.io.gfile.remove(path)
        elif name == "saved_model":
            tf.io.gfile.rmtree(path)
