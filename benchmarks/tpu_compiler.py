"""Runs the compiler for TPUs, in a virtual environment that it makes."""

from __future__ import annotations

from collections.abc import Sequence
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

# The compiler is in libtpu. JAX's own requirement of it admits other versions.
_PACKAGES = ("jax==0.10.2", "jaxlib==0.10.2", "libtpu==0.0.42.1")
_PROGRAM = pathlib.Path(__file__).with_name("tpu_compile.py")
_INSTALLATION_SECONDS = 300


class UnavailableError(Exception):
    """The compiler cannot be installed; the message says why."""


def python() -> str:
    """Returns the Python that has the compiler. The first call downloads it, about 300 MB.

    Raises:
        UnavailableError: if that fails, as without a network.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    names = "-".join(package.replace("==", "") for package in _PACKAGES)
    folder = pathlib.Path(cache, "simclr_tf", f"{version}-{names}")
    executable, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(executable), "-m", "pip", "install", "--quiet", *_PACKAGES])
        complete.touch()
    return str(executable)


def _run(command: list[str]) -> None:
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_INSTALLATION_SECONDS
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise UnavailableError(f"{' '.join(command[1:4])}: {lines[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{' '.join(command[1:4])}: {error}") from error


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
