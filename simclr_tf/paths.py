"""Paths of files: made absolute, and passed to TensorFlow so that it reads them literally.

A remote path, such as gs://bucket/run, is passed on as it is.
"""

from __future__ import annotations

import atexit
import functools
import os
import pathlib
import re
import shutil
import tempfile

from simclr_tf import errors

# As TensorFlow recognises them.
_SCHEME = re.compile(r"([a-zA-Z][0-9a-zA-Z.]*)://")
# Data sets whose names are KIND:PATH.
_NAMED_BY_PATH = ("tfrecord",)
# TensorFlow's readers of checkpoints use a path as a pattern of file names, where these characters
# have a meaning.
_PATTERN = re.compile(r"[\[*?\\]")


def scheme(path: str) -> str | None:
    """Returns the scheme of a remote path, such as "gs"; None for a local path."""
    match = _SCHEME.match(path)
    return match[1] if match else None


def absolute(path: str) -> str:
    """Returns a local path as an absolute one, with ~ expanded; a remote path as it is.

    Symbolic links are not resolved, and neither is "..", which may follow one.
    """
    if not path or scheme(path) is not None:
        return path
    return str(pathlib.Path(os.path.expanduser(path)).absolute())


def absolute_data_set(name: str) -> str:
    """Returns the name of a data set with the path in it absolute, if it has one."""
    kind, colon, path = name.partition(":")
    return f"{kind}:{absolute(path)}" if colon and kind in _NAMED_BY_PATH else name


def pattern_character(path: str) -> str | None:
    """Returns the first character of a path that checkpoint readers do not take literally."""
    match = _PATTERN.search(path)
    return match[0] if match else None


def literal_folder(folder: str) -> str:
    """Returns a path of a folder that TensorFlow's readers of checkpoints take literally.

    They cannot be passed [ or a backslash in any other way, so the result is a symbolic link to
    such a folder, which lasts as long as this process.

    Raises:
        UserError: for such a folder that is remote, or if the link cannot be made.
    """
    character = pattern_character(folder)
    if character is None:
        return folder
    if scheme(folder) is not None:
        raise _not_literal(folder, character)
    try:
        return _link(os.path.abspath(folder))
    except OSError as error:
        raise errors.UserError(
            f"{folder} contains {character}, so it is read through a symbolic link, which cannot "
            f"be made ({error.strerror}); rename the folder, or set TMPDIR to a folder that you "
            "may write to."
        ) from error


def literal_prefix(prefix: str) -> str:
    """Returns the path of a checkpoint in its `literal_folder`.

    Raises:
        UserError: if the name of the checkpoint itself is not literal, and as for `literal_folder`.
    """
    folder, name = os.path.split(prefix)
    character = pattern_character(name)
    if character is not None:
        raise _not_literal(prefix, character)
    return os.path.join(literal_folder(folder), name)


@functools.cache
def _link(folder: str) -> str:
    """Makes a symbolic link to a folder, which is removed when the process ends."""
    links = tempfile.mkdtemp(prefix="simclr_tf_")
    atexit.register(shutil.rmtree, links, ignore_errors=True)
    link = os.path.join(links, "run")
    os.symlink(folder, link, target_is_directory=True)
    return link


def _not_literal(path: str, character: str) -> errors.UserError:
    return errors.UserError(
        f"{path} contains {character}, which TensorFlow reads as part of a pattern of file names; "
        "rename it."
    )
