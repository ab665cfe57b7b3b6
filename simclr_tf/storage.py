"""Atomic writes, and files of JSON and PNG."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import errors, text


def write_json(path: str, value: Any) -> None:
    """Writes a JSON file atomically, see `replace`."""
    replace(path, json.dumps(value, indent=2) + "\n")


def replace(path: str, content: str) -> None:
    """Writes a text file atomically: a reader sees the old content or the new, never a mixture.

    Raises:
        UserError: if the disk is full or refuses.
    """
    try:
        with tf.io.gfile.GFile(f"{path}.partial", "w") as file:
            file.write(content)
        tf.io.gfile.rename(f"{path}.partial", path, overwrite=True)
    except (OSError, tf.errors.OpError) as error:
        raise errors.UserError(
            f"{path} could not be written ({text.reason(error)}); free some space and run the same "
            "command again."
        ) from error


def read_json(path: str) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: if it is not JSON.
    """
    with tf.io.gfile.GFile(path) as file:
        content = file.read()
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise errors.UserError(f"{path} is damaged ({error}); restore or remove it.") from error


def write_png(path: str, image: np.ndarray) -> None:
    """Writes a (h, w, 3) uint8 picture."""
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(tf.io.encode_png(image).numpy())
