"""Makes virtual environments for packages that do not fit beside those of this project."""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib
import subprocess
import sys
import sysconfig

_INSTALLATION_SECONDS = 300


class UnavailableError(Exception):
    """The packages cannot be installed; the message says why."""


def python(packages: Sequence[str], *, name: str, over: bool = False) -> str:
    """Returns a Python that has some packages. The first call downloads them.

    One that also has the packages of this Python lies in the environment of this Python, and
    goes with it; one of its own is kept in the cache folder of the user.

    Args:
        packages: what pip is to install, with versions.
        name: name of the environment, which has to change when the packages do.
        over: whether it also has the packages of this Python, of other versions if need be.

    Raises:
        UnavailableError: if that fails, as without a network.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if over:
        folder = pathlib.Path(sys.prefix, "side_environments", name)
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(cache, "simclr_tf", f"{version}-{name}")
    executable, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        if over:
            own = folder / "lib" / version / "site-packages" / "over.pth"
            own.write_text(sysconfig.get_paths()["purelib"] + "\n")
        _run([str(executable), "-m", "pip", "install", "--quiet", "--no-compile", *packages])
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
