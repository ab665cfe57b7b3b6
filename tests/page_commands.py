"""Reads the commands of a page of the documentation, and runs them in a folder."""

from __future__ import annotations

from collections.abc import Mapping
import os
import pathlib
import re
import subprocess


def blocks(page: pathlib.Path, language: str) -> list[str]:
    """Returns the fenced blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def replaced(text: str, replacements: Mapping[str, str]) -> str:
    """Replaces parts of a text by others."""
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text


def run(script: str, folder: pathlib.Path, environment: Mapping[str, str]) -> str:
    """Runs a shell script, which ends at the first command that fails, and returns its output.

    FOLDER/bin is searched first for programs.
    """
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **environment, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout
