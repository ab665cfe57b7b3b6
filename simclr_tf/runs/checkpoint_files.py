"""Removes the files of checkpoints, also of those that were never completed."""

from __future__ import annotations

from collections.abc import Collection
import os
import re

import tensorflow as tf

from simclr_tf import storage

# What follows the prefix in the names of a checkpoint's files, and of those that TensorFlow leaves
# if it is stopped while it writes one.
_INDEX = re.compile(r"\.index(\.tempstate[0-9]+)?")
_DATA = re.compile(r"\.data-[0-9]{5}-of-[0-9]{5}(\.tempstate[0-9]+)?|_temp")
_UNFINISHED = re.compile(r".*(\.tempstate[0-9]+|_temp)")


def remove(prefix: str) -> None:
    """Deletes the files of a checkpoint, its index first, so that only complete ones are listed."""
    folder, name = os.path.split(prefix)
    names = storage.names_in(folder)
    for pattern in (_INDEX, _DATA):
        for found in names:
            if found.startswith(name) and pattern.fullmatch(found, len(name)):
                _delete(os.path.join(folder, found))


def remove_unfinished(folder: str, name: str, complete: Collection[str]) -> None:
    """Deletes what killed processes left of checkpoints that they were writing or deleting.

    Args:
        folder: the run directory, in which no checkpoint is being written.
        name: what the names of checkpoints have before "-STEP".
        complete: the names of its complete checkpoints.
    """
    for found in storage.names_in(folder):
        match = re.fullmatch(rf"({re.escape(name)}-[0-9]+)([._].*)", found)
        if match is None or not (_INDEX.fullmatch(match[2]) or _DATA.fullmatch(match[2])):
            continue
        if match[1] not in complete or _UNFINISHED.fullmatch(found):
            _delete(os.path.join(folder, found))


def _delete(path: str) -> None:
    if tf.io.gfile.isdir(path):
        tf.io.gfile.rmtree(path)
    else:
        tf.io.gfile.remove(path)
