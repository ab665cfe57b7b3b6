"""What a run was made with: environment.json in its directory."""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess
from typing import Any

import tensorflow as tf

import simclr_tf
from simclr_tf import keras_api, storage

ENVIRONMENT = "environment.json"


def write(model_dir: str, strategy: tf.distribute.Strategy) -> None:
    """Writes versions, devices and the host of this process into the run directory.

    A run that is resumed on another machine has the description of the latest one.

    Args:
        model_dir: the run directory, which exists.
        strategy: the strategy that runs on the replicas.

    Raises:
        UserError: if the disk is full or refuses.
    """
    storage.write_json(os.path.join(model_dir, ENVIRONMENT), describe(strategy))


def describe(strategy: tf.distribute.Strategy) -> dict[str, Any]:
    """Returns versions, devices and the host of this process, for `json.dumps`."""
    return {
        "simclr_tf": simclr_tf.__version__,
        "commit": _commit(pathlib.Path(__file__).parents[2]),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras_api.version(),
        "strategy": type(strategy).__name__,
        "replicas": strategy.num_replicas_in_sync,
        "devices": [_device(device) for device in tf.config.list_physical_devices()],
        "host": platform.node(),
        "host_cpu": _host_cpu(),
        "host_cores": os.cpu_count(),
        "platform": platform.platform(),
    }


def _device(device: Any) -> str:
    """Returns the type of a device and, where it is known, its model."""
    model = tf.config.experimental.get_device_details(device).get("device_name")
    return f"{device.device_type}: {model}" if model else device.device_type


def _commit(root: pathlib.Path) -> str | None:
    """Returns the commit that the program is run from, with "-dirty" if files differ from it.

    None for an installed package, and where there is no git.
    """
    if not (root / ".git").exists():
        return None
    try:
        process = subprocess.run(
            [
                "git",
                "-C",
                str(root),
                "describe",
                "--always",
                "--dirty",
                "--abbrev=40",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()


def _host_cpu() -> str:
    """Returns the model of the CPU, from Linux's list or as far as Python knows it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())
