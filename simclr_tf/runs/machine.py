"""The processor that the program runs on, and its commit; found without TensorFlow."""

from __future__ import annotations

import pathlib
import platform
import subprocess


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


def _entry(name: str, root: pathlib.Path) -> str | None:
    """Returns an entry of Linux's list of processors, that of the first one."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    entries = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in entries if key.strip() == name), None)
