"""The layout of a run directory: architecture.json, flags.txt and results."""

from __future__ import annotations

import dataclasses
import json
import os
import typing
from typing import Any

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, pixel_format, storage, text
from simclr_tf.data import layout
from simclr_tf.models import simclr

_ARCHITECTURE = "architecture.json"
FLAGS = "flags.txt"
BAD_STEP = "bad_step"  # The folder of the step at which training went wrong.
# Entry of a result: the weights and the data that its numbers belong to.
MEASURED_ON = "eval/measured_on"
# What a field of the architecture must be, by its type; lists of names are described where used.
_EXPECTED = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


def ensure_writable(model_dir: str, *, flag: str = "model_dir") -> None:
    """Makes the directory if it does not exist, and checks that files can be written to it.

    Args:
        model_dir: the directory.
        flag: name of the flag with that path, for messages.

    Raises:
        UserError: if they cannot.
    """
    # Two processes that start at the same moment must not delete each other's file.
    probe = os.path.join(model_dir, f".writable-{os.getpid()}")
    try:
        tf.io.gfile.makedirs(model_dir)
        with tf.io.gfile.GFile(probe, "w") as file:
            file.write("")
        tf.io.gfile.remove(probe)
    except (OSError, tf.errors.OpError) as error:
        raise errors.UserError(
            f"--{flag}={model_dir} cannot be written to ({text.reason(error)}); name a "
            "folder that you may write to."
        ) from error


def missing(model_dir: str) -> str:
    """Returns the sentence for a run directory that was deleted or moved during training."""
    return (
        f"--model_dir={model_dir} was deleted or moved during training; move it back and run the "
        "same command again to resume, or run it again to train from the start."
    )


def write_architecture(model_dir: str, architecture: simclr.Architecture) -> None:
    """Stores the architecture beside the weights that belong to it."""
    storage.write_json(os.path.join(model_dir, _ARCHITECTURE), dataclasses.asdict(architecture))


def read_architecture(model_dir: str) -> simclr.Architecture | None:
    """Returns the stored architecture, or None if there is none."""
    path = os.path.join(model_dir, _ARCHITECTURE)
    if not tf.io.gfile.exists(path):
        return None
    stored = storage.read_json(path)
    if isinstance(stored, dict):
        _check_types(path, stored)
    try:
        names = stored["class_names"]
        stored["class_names"] = None if names is None else tuple(map(layout.usual_form, names))
        if "pixels" in stored:
            stored["pixels"] = pixel_format.from_json(stored["pixels"])
        return simclr.Architecture(**stored)
    except (KeyError, TypeError, ValueError) as error:
        raise errors.UserError(
            f"{path} does not describe a network ({text.reason(error)}); restore it, or use "
            "another --model_dir."
        ) from error


def _check_types(path: str, stored: dict[str, Any]) -> None:
    """Refuses stored values of the wrong type."""
    for name, kind in typing.get_type_hints(simclr.Architecture).items():
        if name in stored and name != "pixels" and not _is_a(kind, stored[name]):
            expected = _EXPECTED.get(kind, "a list of names, or null")
            value = _brief(json.dumps(stored[name]))
            raise errors.UserError(
                f"{path} does not describe a network: {name} is {value} and must be {expected}; "
                "restore it, or use another --model_dir."
            )


def _is_a(kind: Any, value: Any) -> bool:
    """Returns whether a value of JSON fits the type of a field of the architecture."""
    if kind is float:
        return type(value) in (int, float)
    if kind in _EXPECTED:
        return type(value) is kind
    is_names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return value is None or is_names


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
        path: path of the weights, for the message.
        flag: name of the flag with that path.

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
            f"--{flag}={path} contains a run with a different architecture "
            f"({'; '.join(differing)}); use another --{flag}, or the settings of that run."
        )


def read_config(model_dir: str) -> config_lib.Config | None:
    """Returns the settings that a run was trained with, or None if there are none.

    Raises:
        UserError: if the file cannot be read, or has a line that is not a setting.
    """
    path = os.path.join(model_dir, FLAGS)
    if not tf.io.gfile.exists(path):
        return None
    return config_lib.Config.from_flagfile(storage.read_text(path), origin=path)


def write_config(model_dir: str, config: config_lib.Config) -> None:
    """Stores the settings of a run as a flagfile that reproduces it."""
    storage.replace(os.path.join(model_dir, FLAGS), config.to_flagfile())


def _brief(value: object) -> str:
    full = str(value)
    return full if len(full) <= 60 else f"{full[:57]}..."


def write_result(model_dir: str, result: dict[str, Any]) -> dict[str, Any]:
    """Writes result.json and result_STEP.json.

    Numbers in result_STEP.json that were not measured again are kept in both files if they are of
    the same weights and data, which the entry `MEASURED_ON` describes.

    Args:
        model_dir: the run directory.
        result: the numbers of an evaluation and their "global_step".

    Returns:
        What was written.
    """
    of_step = os.path.join(model_dir, f"result_{result['global_step']}.json")
    written = {**_earlier_result(of_step, result), **result}
    for path in (os.path.join(model_dir, "result.json"), of_step):
        storage.write_json(path, written)
    return written


def _earlier_result(path: str, result: dict[str, Any]) -> dict[str, Any]:
    """Returns the result in a file if it is of the same weights and data, or an empty one."""
    if not tf.io.gfile.exists(path):
        return {}
    try:
        earlier = storage.read_json(path)
    except errors.UserError:
        console.warn(f"{path} was damaged and is replaced.")
        return {}
    measured_on = earlier.get(MEASURED_ON) if isinstance(earlier, dict) else None
    if not isinstance(measured_on, dict):
        return {}
    # Results of older versions say less about the data.
    now = result.get(MEASURED_ON) or {}
    if any(now.get(name) != value for name, value in measured_on.items()):
        kept = path.removesuffix(".json") + ".earlier.json"
        storage.write_json(kept, earlier)
        console.say(
            f"{path} was an evaluation of other weights or data, and is replaced; its numbers are "
            f"in {os.path.basename(kept)}."
        )
        return {}
    return earlier
