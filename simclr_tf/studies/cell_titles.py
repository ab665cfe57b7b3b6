"""What studies call a run, kept in its run directory for the list of runs."""

from __future__ import annotations

import contextlib
import os

from simclr_tf import errors, storage
from simclr_tf.runs import listing


def add(folder: str, title: str) -> None:
    """Adds what a study calls a run to what other studies call it.

    Args:
        folder: the run directory, which is made.
        title: the study, the labels of the cell and the seed.
    """
    path = os.path.join(folder, listing.CELL_TITLES)
    known: list[str] = []
    if os.path.exists(path):
        with contextlib.suppress(errors.UserError):  # A damaged file is written again.
            known = storage.read_json(path)
    if title not in known:
        os.makedirs(folder, exist_ok=True)
        storage.write_json(path, [*known, title])
