"""What a run was made with: environment.json in its directory."""

from __future__ import annotations

import os
import platform
from typing import Any

import tensorflow as tf

import simclr_tf
from simclr_tf import errors, keras_api, storage
from simclr_tf.runs import arithmetic as arithmetic_lib
from simclr_tf.runs import machine

ENVIRONMENT = "environment.json"
_PRECISION = "mixed_precision"


def write(
    model_dir: str, strategy: tf.distribute.Strategy, arithmetic: arithmetic_lib.Arithmetic
) -> None:
    """Writes versions, devices, arithmetic and the host of this process into the run directory.

    A run that is resumed on another machine has the description of the latest one.

    Args:
        model_dir: the run directory, which exists.
        strategy: the strategy that runs on the replicas.
        arithmetic: in what the layers compute.

    Raises:
        UserError: if the disk is full or refuses.
    """
    described = {
        **describe(strategy),
        _PRECISION: arithmetic.mixed_precision,
        f"{_PRECISION}_reason": f"auto: {arithmetic.reason}" if arithmetic.reason else "given",
    }
    storage.write_json(os.path.join(model_dir, ENVIRONMENT), described)


def arithmetic_of(model_dir: str) -> arithmetic_lib.Arithmetic | None:
    """Returns the arithmetic in which a run was trained last; None if that is not known."""
    path = os.path.join(model_dir, ENVIRONMENT)
    if not tf.io.gfile.exists(path):
        return None
    try:
        stored = storage.read_json(path)
    except errors.UserError:  # Training writes it again.
        return None
    precision = stored.get(_PRECISION) if isinstance(stored, dict) else None
    return arithmetic_lib.Arithmetic(precision) if isinstance(precision, str) else None


def describe(strategy: tf.distribute.Strategy) -> dict[str, Any]:
    """Returns versions, devices and the host of this process, for `json.dumps`."""
    return {
        "simclr_tf": simclr_tf.__version__,
        "commit": machine.commit(),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras_api.version(),
        "strategy": type(strategy).__name__,
        "replicas": strategy.num_replicas_in_sync,
        "devices": [_device(device) for device in tf.config.list_physical_devices()],
        "host": platform.node(),
        "host_cpu": machine.processor(),
        "host_cores": os.cpu_count(),
        "onednn": machine.uses_onednn(os.environ),
        "platform": platform.platform(),
    }


def _device(device: Any) -> str:
    """Returns the type of a device and, where it is known, its model."""
    model = tf.config.experimental.get_device_details(device).get("device_name")
    return f"{device.device_type}: {model}" if model else device.device_type
