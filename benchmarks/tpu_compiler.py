"""Runs the compiler for TPUs, in a virtual environment that it makes."""

from __future__ import annotations

from collections.abc import Sequence
import json
import os
import pathlib
import subprocess
from typing import Any

from benchmarks import side_environment

# The compiler is in libtpu. JAX's own requirement of it admits other versions.
_PACKAGES = ("jax==0.10.2", "jaxlib==0.10.2", "libtpu==0.0.42.1")
_PROGRAM = pathlib.Path(__file__).with_name("tpu_compile.py")
UnavailableError = side_environment.UnavailableError


def python() -> str:
    """Returns the Python that has the compiler. The first call downloads it, about 300 MB.

    Raises:
        UnavailableError: if that fails, as without a network.
    """
    name = "-".join(package.replace("==", "") for package in _PACKAGES)
    return side_environment.python(_PACKAGES, name=name)


def compile_files(
    files: Sequence[str | os.PathLike[str]],
    *,
    topology: str = "v5e:2x2",
    replicas: int = 1,
    fast: bool = False,
) -> list[dict[str, Any]]:
    """Returns what `tpu_compile.compile_file` returns for each file of serialized HLO.

    Args:
        files: the files.
        topology: the TPU, such as v4:2x2x1, v5e:2x2 or v6e:2x2.
        replicas: replicas of the programs.
        fast: whether to optimize less, which takes less time.

    Raises:
        UnavailableError: if the compiler cannot be installed.
        RuntimeError: if it cannot be started.
    """
    command = [python(), str(_PROGRAM), f"--topology={topology}", f"--replicas={replicas}"]
    # Otherwise that Python would find the packages of this one.
    environment = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        [*command, *(["--fast"] if fast else []), *map(str, files)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    results = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    if process.returncode or len(results) != len(files):
        raise RuntimeError(f"The compiler ended with code {process.returncode}: {process.stderr}")
    return results
