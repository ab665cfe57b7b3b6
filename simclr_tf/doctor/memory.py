"""Checks the memory and the shared memory."""

from __future__ import annotations

import os
import pathlib
import shutil

from simclr_tf import text
from simclr_tf.doctor import finding

_GIB = 2**30
# Importing TensorFlow and training the smallest networks takes about half of the first.
_TOO_LITTLE, _LITTLE = 1 * _GIB, 2 * _GIB
# Containers have 64 MiB by default, and NCCL needs more for several GPUs.
_LITTLE_SHARED = 256 * 2**20


def memory(free: int, total: int, limit: int | None) -> finding.Finding:
    """Checks the memory that this process may use.

    Args:
        free: bytes that it can still take.
        total: bytes that it may use, with swap space.
        limit: bytes that the container or job may use; None if that is not limited.
    """
    value = f"{text.gib(free)} free of {text.gib(total)}"
    if limit is not None and limit <= total:
        value += ", the limit of the container or job"
    if free >= _LITTLE:
        return finding.ok("memory", value)
    return finding.Finding(
        "memory",
        finding.PROBLEM if free < _TOO_LITTLE else finding.WARNING,
        value,
        "Training takes 1 GiB or more, or the system ends it without a message; end other "
        "programs, or raise the limit.",
    )


def shared(folder: pathlib.Path = pathlib.Path("/dev/shm")) -> finding.Finding:
    """Checks the shared memory, through which processes and GPUs exchange data.

    Args:
        folder: where it is mounted.
    """
    what = "shared memory"
    if not os.access(folder, os.W_OK | os.X_OK):
        return finding.Finding(
            what,
            finding.WARNING,
            f"{folder} is missing or cannot be written to",
            "Several GPUs, and evaluations that start processes, need it; mount a tmpfs there.",
        )
    usage = shutil.disk_usage(folder)
    value = f"{text.gib(usage.free)} free of {text.gib(usage.total)} in {folder}"
    if usage.free >= _LITTLE_SHARED:
        return finding.ok(what, value)
    return finding.Finding(
        what,
        finding.WARNING,
        value,
        "Training on several GPUs may fail; start a container with docker run --shm-size=1g, or "
        "remove files there.",
    )
