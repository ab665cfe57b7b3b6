"""The layout of a run directory: architecture.json, flags.txt and results."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import errors, storage
from simclr_tf.models import simclr

_ARCHITECTURE = "architecture.json"
FLAGS = "flags.txt"


def prepare(model_dir: str) -> None:
    """Makes the directory and checks that it is writable.

    Raises:
        UserError: if it is not.
    """
    probe = os.path.join(model_dir, ".writable")
    try:
        tf.io.gfile.makedirs(model_dir)
        with tf.io.gfile.GFile(probe, "w") as file:
            file.write("")
        tf.io.gfile.remove(probe)
    except (OSError, tf.errors.OpError) as error:
        raise errors.UserError(
            f"--model_dir={model_dir} cannot be written to ({storage.reason(error)}); name a "
            "folder that you may write to."
        ) from error


def write_architecture(model_dir: str, architecture: simclr.Architecture) -> None:
    """Stores the architecture beside the weights that belong to it."""
    storage.write_json(os.path.join(model_dir, _ARCHITECTURE), dataclasses.asdict(architecture))


def read_architecture(model_dir: str) -> simclr.Architecture | None:
    """Returns the stored architecture, or None if there is none."""
    path = os.path.join(model_dir, _ARCHITECTURE)
    if not tf.io.gfile.exists(path):
        return None
    stored = storage.read_json(path)
    try:
        names = stored["class_names"]
        stored["class_names"] = None if names is None else tuple(names)
        return simclr.Architecture(**stored)
    except (KeyError, TypeError) as error:
        raise errors.UserError(
            f"{path} does not describe a network ({storage.reason(error)}); restore it, or use "
            "another --model_dir."
        ) from error


def check_same(
    stored: simclr.Architecture,
    requested: simclr.Architecture,
    path: str,
    *,
    flag: str = "model_dir",
) -> None:
    """Refuses weights of another architecture.

    Args:
        stored: architecture of the weights.
        requested: architecture that the run asks for.
        path: of the weights, for the message.
        flag: that named the path.

    Raises:
        UserError: naming every field that differs.
    """
    differing = [
        f"{field.name} is {_brief(getattr(stored, field.name))} there and "
        f"{_brief(getattr(requested, field.name))} here"
        for field in dataclasses.fields(stored)
        if getattr(stored, field.name) != getattr(requested, field.name)
    ]
    if differing:
        raise errors.UserError(
            f"--{flag}={path} holds a run of another architecture ({'; '.join(differing)}); use "
            f"another --{flag}, or the settings of that run."
        )


def check_same_training(model_dir: str, asked: dict[str, Any]) -> None:
    """Refuses to go on with a training that its checkpoints would not fit.

    Args:
        model_dir: holds a run.
        asked: settings by name, as this run has them.

    Raises:
        UserError: naming every setting that differs from the run's flags.
    """
    path = os.path.join(model_dir, FLAGS)
    if not tf.io.gfile.exists(path):
        return
    with tf.io.gfile.GFile(path) as file:
        pairs = [line[2:].split("=", 1) for line in file.read().splitlines() if "=" in line]
    stored = dict(pairs)
    if stored.get("mode") == "convert":
        raise errors.UserError(
            f"--model_dir={model_dir} holds converted weights and no training to go on with; start "
            f"from them by --checkpoint={model_dir} and another --model_dir."
        )
    if stored.get("objective") == "auto":
        mode = stored.get("train_mode", config_lib.Config.train_mode)
        stored["objective"] = config_lib.Config(train_mode=mode).resolved_objective
    differing = [
        f"--{name}={stored[name]} there and --{name}={value} here"
        for name, value in asked.items()
        if name in stored and stored[name] != str(value)
    ]
    if differing:
        raise errors.UserError(
            f"--model_dir={model_dir} holds another training ({'; '.join(differing)}), which "
            "cannot be resumed like that; use another --model_dir, or the settings of that run."
        )


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def write_result(model_dir: str, result: dict[str, Any]) -> None:
    """Writes result.json and result_STEP.json."""
    for name in ("result.json", f"result_{result['global_step']}.json"):
        storage.write_json(os.path.join(model_dir, name), result)


def write_flags(model_dir: str, flagfile: str) -> None:
    """Stores the flags of a run as a flagfile that repeats it."""
    storage.replace(os.path.join(model_dir, FLAGS), flagfile)
