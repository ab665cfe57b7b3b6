"""Checks the files of a run directory, and compares them with those of another run.

`survive.py` calls these functions after it has killed a run.
"""

# ruff: noqa: I001  (simclr_tf chooses Keras 2, so it is imported before TensorFlow)

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from typing import Any

from google.protobuf import message
import numpy as np
from PIL import Image
import simclr_tf  # noqa: F401
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from simclr_tf import errors
from simclr_tf.runs import checkpoints, directory, metrics_log, resuming
from simclr_tf.serving import export

# What depends on the machine and not on the settings.
_TIMINGS = re.compile("seconds|images_per_second|input_wait")
_UNREADABLE = (ValueError, LookupError, OSError, errors.UserError, message.DecodeError)
_MOST_DIFFERENCES = 5
_OF_STARTS = re.compile(r"events\..*|ckpt-[0-9]+\.(index|data-00000-of-00001)")
_NOT_COMPARED = ("_CHECKPOINTABLE_OBJECT_GRAPH", "train_seconds", "save_counter")


def inspect(folder: pathlib.Path) -> tuple[int, int, list[str]]:
    """Inspects a run directory, which need not exist.

    Returns:
        The step of the last checkpoint, the number of lines of metrics, and what is damaged.
    """
    prefix, metrics = checkpoints.latest(str(folder)), folder / metrics_log.METRICS
    last = 0 if prefix is None else checkpoints.step_of(prefix)
    logged = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    return last, logged, _damaged(folder)


def _damaged(folder: pathlib.Path) -> list[str]:
    """Returns which files of a run are damaged, with what is wrong; an empty list if none are."""
    checks = {
        "ckpt-*.index": _check_checkpoint,
        metrics_log.METRICS: _check_metrics,
        "*.json": lambda path: json.loads(path.read_text()),
        resuming.HISTORY: lambda path: [json.loads(line) for line in path.open()],
        "*.png": lambda path: Image.open(path).load(),
        directory.FLAGS: lambda path: directory.read_config(str(path.parent)),
        f"{export.FOLDER}/*": _check_export,
    }
    found = []
    for pattern, check in checks.items():
        for path in sorted(folder.glob(pattern)):
            try:
                check(path)
            except _UNREADABLE as error:
                found.append(f"{path.relative_to(folder)}: {error}")
    return found


def _check_checkpoint(path: pathlib.Path) -> None:
    damage = checkpoints.damage_of(str(path.with_suffix("")))
    if damage is not None:
        raise ValueError(damage)


def _check_metrics(path: pathlib.Path) -> None:
    """Checks that there is a whole line for each step up to the last one."""
    content = path.read_text()
    steps = [json.loads(line)["step"] for line in content.splitlines()]
    if content and not content.endswith("\n"):
        raise ValueError("its last line is incomplete")
    if steps != list(range(1, len(steps) + 1)):
        raise ValueError(f"its steps are {steps}")


def _check_export(path: pathlib.Path) -> None:
    """Checks an export; a serving program takes any folder whose name is a number."""
    if path.name.isdigit():
        parsed = saved_model_pb2.SavedModel()
        parsed.ParseFromString((path / "saved_model.pb").read_bytes())
        if not parsed.meta_graphs:
            raise ValueError("it contains no graph")
        _check_checkpoint(path / "variables" / "variables.index")


def differences(folder: pathlib.Path, expected: pathlib.Path) -> list[str]:
    """Returns in what two finished runs differ, except for times; an empty list if in nothing."""
    one, other = _contents(folder), _contents(expected)
    return [
        f"{name}: {str(one.get(name))[:200]} instead of {str(other.get(name))[:200]}"
        for name in sorted(one.keys() | other.keys())
        if not _equal(one.get(name), other.get(name))
    ][:_MOST_DIFFERENCES]


def _contents(folder: pathlib.Path) -> dict[str, Any]:
    """Returns what two runs with the same settings have in common.

    SIGTERM saves additional checkpoints, so only the last ones are the same.
    """
    found: dict[str, Any] = {"files": _names(folder)}
    found.update(_tensors(str(checkpoints.latest(str(folder)))))
    for index in folder.glob(f"{export.FOLDER}/*/variables/variables.index"):
        found.update(_tensors(str(index.with_suffix(""))))
    found["flags"] = directory.read_config(str(folder))
    if found["flags"] is not None:
        found["flags"] = dataclasses.replace(found["flags"], model_dir=None)
    for line in (folder / metrics_log.METRICS).read_text().splitlines():
        values = json.loads(line)
        found.update(_without_times(f"metrics of step {values['step']}", values))
    for path in folder.glob("result*.json"):
        found.update(_without_times(path.name, json.loads(path.read_text())))
    return found


def _names(folder: pathlib.Path) -> list[str]:
    """Returns the names of files that do not depend on the starts, and of those left over."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return sorted(name for name in names if not _OF_STARTS.fullmatch(name))


def _tensors(prefix: str) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(prefix)
    return {
        f"{os.path.basename(prefix)}: {name}": reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if not name.startswith(_NOT_COMPARED)
    }


def _without_times(title: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{title}: {name}": x for name, x in values.items() if not _TIMINGS.search(name)}


def _equal(a: Any, b: Any) -> bool:
    """Returns whether two values are equal bit for bit."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and a == b
