"""A folder of exports, one for each step, of which those that are found are always complete."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import os
import re

import tensorflow as tf

from simclr_tf import errors, storage, text

# Ends of the names of an export that is being written, and of one that a new one replaces.
_PARTIAL, _REPLACED = ".partial", ".replaced"


def write(
    parent: str,
    step: int,
    save: Callable[[str], None],
    *,
    keep: int,
    name: str,
    complete: Callable[[str], None] = lambda folder: None,
) -> str:
    """Writes PARENT/STEP and removes older ones.

    It is written under another name, which programs that serve PARENT ignore, and then renamed, so
    an export that is found is complete even if this process is killed.

    Args:
        parent: folder of exports.
        step: name of the export.
        save: called with the folder to write.
        keep: number of exports to keep.
        name: what is written, for messages.
        complete: called with the folder before it is renamed, to add files and to check them.

    Returns:
        The folder written.

    Raises:
        UserError: if it cannot be written, or from `save` and `complete`.
    """
    folder = os.path.join(parent, str(step))
    try:
        _remove_leftovers(parent)
        save(folder + _PARTIAL)
        complete(folder + _PARTIAL)
        if tf.io.gfile.isdir(folder):
            tf.io.gfile.rename(folder, folder + _REPLACED)
        tf.io.gfile.rename(folder + _PARTIAL, folder)
        _rename_older(parent, keep)
        _remove_leftovers(parent)
    except (OSError, tf.errors.OpError) as error:
        _remove_partial(folder)
        raise errors.UserError(
            f"The {name} could not be written to {folder} ({text.reason(error)}); "
            f"{storage.remedy(error, folders=(parent, folder))} and run the same command again."
        ) from error
    except errors.UserError:
        _remove_partial(folder)
        raise
    return folder


def _remove_partial(folder: str) -> None:
    with contextlib.suppress(OSError, tf.errors.OpError):
        tf.io.gfile.rmtree(folder + _PARTIAL)


def _remove_leftovers(parent: str) -> None:
    """Deletes exports that were replaced, and what a killed process did not finish."""
    for name in storage.names_in(parent):
        if re.fullmatch(rf"[0-9]+({re.escape(_PARTIAL)}|{re.escape(_REPLACED)})", name):
            tf.io.gfile.rmtree(os.path.join(parent, name))


def _rename_older(parent: str, keep: int) -> None:
    steps = sorted(
        int(name)
        for name in storage.names_in(parent)
        if re.fullmatch("0|[1-9][0-9]*", name) and tf.io.gfile.isdir(os.path.join(parent, name))
    )
    for step in steps[:-keep]:
        folder = os.path.join(parent, str(step))
        tf.io.gfile.rename(folder, folder + _REPLACED)
