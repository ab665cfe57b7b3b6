"""Atomic writes, folders, and files of text, JSON and PNG, local or remote.

Whatever fails is a UserError that names the file.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
import re
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import errors, paths, text

# What file systems raise, by way of TensorFlow.
_FAILURES = (OSError, tf.errors.OpError)


def write_json(path: str, value: Any) -> None:
    """Writes a JSON file atomically, see `replace`."""
    replace(path, json.dumps(value, indent=2) + "\n")


def replace(path: str, content: str | bytes, *, partial: str = ".partial") -> None:
    """Writes a file atomically: a reader sees the old content or the new, never a mixture.

    Args:
        path: the file.
        content: what to write.
        partial: end of the name of the file while it is written, which must differ between
            processes that write the same file at the same time.

    Raises:
        UserError: if the disk is full or refuses, or there is a folder of that name.
    """
    partial = f"{path}{partial}"
    try:
        with tf.io.gfile.GFile(partial, "w" if isinstance(content, str) else "wb") as file:
            file.write(content)
        tf.io.gfile.rename(partial, path, overwrite=True)
    except _FAILURES as error:
        raise errors.UserError(
            f"{path} could not be written ({text.reason(error)}); "
            f"{remedy(error, files=(path, partial))} and run the same command again."
        ) from error


def is_full(error: Exception) -> bool:
    """Returns whether a write failed for lack of space."""
    return bool(re.search("No space left|File too large|quota", str(error)))


def remedy(error: Exception, *, files: Sequence[str] = (), folders: Sequence[str] = ()) -> str:
    """Returns what the user can do if something could not be written, as an imperative.

    Args:
        error: why it could not be written.
        files: paths that were to become files; a folder of that name is in the way.
        folders: paths that were to become folders; a file of that name is in the way.
    """
    if is_full(error):
        return "free some space"
    for path in files:
        if tf.io.gfile.isdir(path):
            return f"rename or remove the folder {path}"
    for path in folders:
        if tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path):
            return f"rename or remove the file {path}"
    return "check its disk and permissions"


def append(path: str, line: str) -> None:
    """Adds a line to a small text file atomically, see `replace`."""
    content = read_text(path) if tf.io.gfile.exists(path) else ""
    replace(path, content + line)


def read_text(path: str) -> str:
    """Reads a text file.

    Raises:
        UserError: if it cannot be read, or is not UTF-8.
    """
    try:
        with tf.io.gfile.GFile(path) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise errors.UserError(
            f"{path} is not UTF-8 text (its byte {error.start} is {error.object[error.start]:#x}); "
            "restore or remove it."
        ) from error
    except _FAILURES as error:
        raise errors.UserError(
            f"{path} cannot be read ({text.reason(error)}); restore or remove it."
        ) from error


def read_bytes(path: str) -> bytes:
    """Reads a file.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    except _FAILURES as error:
        raise errors.UserError(
            f"{path} cannot be read ({text.reason(error)}); restore or remove it."
        ) from error


def read_json(path: str) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: if it cannot be read, or is not JSON.
    """
    content = read_text(path)
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise errors.UserError(f"{path} is damaged ({error}); restore or remove it.") from error


def write_png(path: str, image: np.ndarray) -> None:
    """Writes a (h, w, 3) uint8 picture, see `replace`."""
    replace(path, tf.io.encode_png(image).numpy())


def names_in(folder: str) -> list[str]:
    """Returns the names of the files and folders in a folder; none if there is no such folder.

    Unlike `tf.io.gfile.glob`, this takes the path literally, whatever characters it has.

    Raises:
        UserError: if the folder cannot be listed.
    """
    if not tf.io.gfile.isdir(folder):
        return []
    try:
        return [name.rstrip("/") for name in tf.io.gfile.listdir(folder)]
    except (*_FAILURES, UnicodeDecodeError) as error:
        raise errors.UserError(
            f"The folder {folder} cannot be listed ({text.reason(error)}); fix its permissions and "
            "the names in it, or use another one."
        ) from error


def is_folder_name(name: str) -> bool:
    """Returns whether the name of a data set is a folder's path, and not NAME/CONFIGURATION."""
    if name.startswith(("/", ".", "~")) or paths.scheme(name) is not None:
        return True
    return "/" in name and tf.io.gfile.isdir(name)


def why_unreachable(path: str) -> str | None:
    """Returns why TensorFlow cannot open a remote path, and the remedy.

    Returns:
        The rest of a sentence that begins with the path; None for a local path, and if it can be
        opened, whether anything is there or not.
    """
    scheme = paths.scheme(path)
    if scheme is None:
        return None
    remedy = "copy the files to this machine or mount their storage, and give the local path"
    if scheme not in tf.io.gfile.get_registered_schemes():
        if scheme == "gs":
            # TensorFlow loads the package only if that variable is set.
            remedy = (
                "install the package tensorflow-io-gcs-filesystem and set "
                f"TF_USE_MODULAR_FILESYSTEM=1, or {remedy}"
            )
        return f"cannot be opened, because this TensorFlow does not support {scheme}://; {remedy}."
    try:
        tf.io.gfile.exists(path)
    except _FAILURES as error:
        return f"cannot be opened ({text.reason(error)}); correct the address, or {remedy}."
    return None
