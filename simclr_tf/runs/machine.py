"""The processor that the program runs on, and its commit; found without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
import pathlib
import platform
import subprocess
from typing import Any, NamedTuple

# The variable by which TensorFlow uses oneDNN for its operations on a processor, or does not.
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# The first NVIDIA GPUs that multiply in bfloat16 (Ampere).
_COMPUTE_CAPABILITY = (8, 0)
# Linux's names of the instruction sets that multiply in bfloat16, and those of the makers.
_BFLOAT16 = {"avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX", "bf16": "BF16"}


def commit() -> str | None:
    """Returns the commit that the program is run from, with "-dirty" if files differ from it.

    None for an installed package, and where there is no git.
    """
    root = pathlib.Path(__file__).parents[2]
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


def processor(root: pathlib.Path = pathlib.Path("/")) -> str:
    """Returns the model of the processor, from Linux's list or as far as Python knows it.

    Args:
        root: the folder that contains proc/.
    """
    return _entry("model name", root) or platform.processor()


def instructions(root: pathlib.Path = pathlib.Path("/")) -> frozenset[str]:
    """Returns Linux's names of the instruction sets of the processor; none if they are unknown.

    Args:
        root: the folder that contains proc/.
    """
    listed = _entry("flags", root) or _entry("Features", root) or ""  # On x86, and on ARM.
    return frozenset(listed.split())


def bfloat16_instructions(sets: Set[str]) -> list[str]:
    """Returns the makers' names of the instruction sets that multiply in bfloat16.

    Args:
        sets: Linux's names of the instruction sets of a processor.
    """
    return [shown for name, shown in _BFLOAT16.items() if name in sets]


class Bfloat16(NamedTuple):
    """Whether a machine multiplies in bfloat16, rather than emulating it.

    Attributes:
        fast: whether it does; None if that is unknown.
        why: the clause that says so.
    """

    fast: bool | None
    why: str


def bfloat16_of_processor(sets: Set[str], environment: Mapping[str, str]) -> Bfloat16:
    """Returns whether TensorFlow multiplies in bfloat16 on a processor, which only oneDNN does.

    Args:
        sets: Linux's names of its instruction sets; none if they are unknown.
        environment: the variables of the process.
    """
    if not sets:
        return Bfloat16(None, "the instructions of this processor are unknown")
    names = bfloat16_instructions(sets)
    if not names:
        return Bfloat16(False, "this processor has no instructions for bfloat16")
    if not uses_onednn(environment):
        return Bfloat16(False, f"{ONEDNN}={environment[ONEDNN]} switches oneDNN off")
    return Bfloat16(True, f"this processor has {' and '.join(names)}")


def uses_onednn(environment: Mapping[str, str]) -> bool:
    """Returns whether the program lets TensorFlow use oneDNN, which run.py does by default."""
    return environment.get(ONEDNN, "1").lower() not in ("0", "false")


def bfloat16_of_gpus(details: Sequence[Mapping[str, Any]]) -> Bfloat16:
    """Returns whether all GPUs multiply in bfloat16.

    Args:
        details: what TensorFlow knows of each (`tf.config.experimental.get_device_details`). It
            knows the compute capability of those of NVIDIA.
    """
    for gpu in details:
        name = gpu.get("device_name", "a GPU of unknown model")
        if "compute_capability" not in gpu:
            return Bfloat16(None, f"what {name} multiplies in is unknown")
        major, minor = gpu["compute_capability"]
        if (major, minor) < _COMPUTE_CAPABILITY:
            return Bfloat16(False, f"{name} has compute capability {major}.{minor}, below 8.0")
    lowest = ".".join(map(str, min(gpu["compute_capability"] for gpu in details)))
    return Bfloat16(True, f"compute capability {lowest}")


def _entry(name: str, root: pathlib.Path) -> str | None:
    """Returns an entry of Linux's list of processors, that of the first one."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    entries = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in entries if key.strip() == name), None)
