"""Checks the folders that runs and data sets are written to, and which data sets are prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import os
import pathlib
import re
import shutil

from simclr_tf import paths, text
from simclr_tf.doctor import finding

_GIB = 2**30
_TOO_LITTLE, _LITTLE = _GIB // 10, 2 * _GIB
# tensorflow-datasets gives a folder its name when it is complete.
_VERSION = re.compile(r"(incomplete\.\w+_)?\d+\.\d+\.\d+")
_MAX_LISTED = 8
# Whether files can be made in a folder, and the bytes that are free there.
CanWrite = Callable[[str], bool]
FreeBytes = Callable[[str], int]


def can_write(folder: str) -> bool:
    """Returns whether files can be made in a folder, without making one."""
    return os.access(folder, os.W_OK | os.X_OK)


def free_bytes(folder: str) -> int:
    """Returns the bytes that this user can still write to the disk of a folder."""
    return shutil.disk_usage(folder).free


def default_data_dir(environment: Mapping[str, str]) -> str:
    """Returns where tensorflow-datasets keeps its data unless --data_dir is given."""
    default = os.path.join("~", "tensorflow_datasets")
    return paths.absolute(environment.get("TFDS_DATA_DIR") or default)


def model_dir(
    path: str | None, *, writable: CanWrite = can_write, free: FreeBytes = free_bytes
) -> finding.Finding:
    """Checks the folder that a run is written to.

    Args:
        path: --model_dir; None without one, for the current directory.
        writable: see `can_write`.
        free: see `free_bytes`.
    """
    if path is None:
        return _folder("current directory", os.getcwd(), writable, free)
    return _folder("run directory", path, writable, free)


def data_dir(
    path: str, *, writable: CanWrite = can_write, free: FreeBytes = free_bytes
) -> finding.Finding:
    """Checks the folder of tensorflow-datasets.

    Args:
        path: the folder.
        writable: see `can_write`.
        free: see `free_bytes`.
    """
    found = _folder("data folder", path, writable, free)
    if found.state == finding.PROBLEM and paths.scheme(path) is None and _prepared(path)[0]:
        remedy = f"Only what is prepared there can be used. {found.remedy}"
        return finding.Finding(found.what, finding.WARNING, found.value, remedy)
    return found


def _folder(what: str, path: str, writable: CanWrite, free: FreeBytes) -> finding.Finding:
    if paths.scheme(path) is not None:
        return finding.ok(what, f"{path} is remote and was not checked")
    existing = next(one for one in (path, *map(str, pathlib.Path(path).parents)) if _exists(one))
    if not os.path.isdir(existing):
        remedy = "Rename or remove that file, or name another folder."
        return finding.Finding(what, finding.PROBLEM, f"{existing} is a file", remedy)
    missing = "" if existing == path else ", does not exist yet"
    if not writable(existing):
        return finding.Finding(
            what,
            finding.PROBLEM,
            f"{path}{missing}, cannot be written to",
            f"Change the permissions of {existing}, or name a folder that you may write to with "
            f"{'--data_dir' if what == 'data folder' else '--model_dir'}.",
        )
    value = f"{path}{missing}, {text.gib(free(existing))} free"
    if free(existing) >= _LITTLE:
        return finding.ok(what, value)
    state = finding.PROBLEM if free(existing) < _TOO_LITTLE else finding.WARNING
    return finding.Finding(what, state, value, "Free some space, or name a folder on another disk.")


def _exists(path: str) -> bool:
    return os.path.lexists(path)


def prepared(folder: str) -> finding.Finding:
    """Checks which data sets tensorflow-datasets has prepared.

    Args:
        folder: the folder of tensorflow-datasets.
    """
    what = "data sets"
    if paths.scheme(folder) is not None:
        return finding.ok(what, "not listed, because the data folder is remote")
    complete, incomplete = _prepared(folder)
    value = text.shortened(complete, _MAX_LISTED) or "none prepared yet"
    if not incomplete:
        return finding.ok(what, value)
    return finding.Finding(
        what,
        finding.WARNING,
        f"{value}; incomplete: {text.shortened(incomplete, _MAX_LISTED)}",
        f"Unless it is being prepared now, delete {os.path.join(folder, incomplete[0])}.",
    )


def _prepared(folder: str) -> tuple[list[str], list[str]]:
    """Returns the prepared data sets in a folder, and those whose preparation did not end."""
    complete: list[str] = []
    incomplete: list[str] = []
    for path in _versions(folder):
        done = os.path.exists(os.path.join(path, "dataset_info.json"))
        (complete if done else incomplete).append(os.path.relpath(path, folder))
    return complete, incomplete


def _versions(folder: str) -> Iterator[str]:
    """Yields the folders NAME/VERSION and NAME/CONFIGURATION/VERSION."""
    for name in _folders_in(folder):
        if os.path.basename(name) == "downloads":
            continue
        for below in _folders_in(name):
            if _VERSION.fullmatch(os.path.basename(below)):
                yield below
                continue
            for path in _folders_in(below):
                if _VERSION.fullmatch(os.path.basename(path)):
                    yield path


def _folders_in(folder: str) -> list[str]:
    """Returns the folders in a folder; none if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir())
    except OSError:
        return []
