"""What a layout of images with several labels needs beside that of images with one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from simclr_tf import text
from simclr_tf.data import indicators, layout

# What stands for the class of an image that shows none, which is the name of no class.
_NONE = "\0none"


def strata(several: layout.Several) -> dict[str, str]:
    """Returns path -> what it is stratified by: the rarest class that the image shows."""
    paths = list(several.values)
    names = (*several.class_names, _NONE)
    rarest = indicators.rarest(_array(several, paths))
    return {path: names[index] for path, index in zip(paths, rarest, strict=True)}


def notes(splits: Mapping[str, Sequence[str]], several: layout.Several) -> list[str]:
    """Returns sentences on how many labels images have, and on classes without images."""
    found = []
    for split, paths in sorted(splits.items()):
        values = _array(several, paths)
        shown = np.sum(values == indicators.PRESENT, 1)
        unknown = int(np.sum(values == indicators.NEITHER))
        counts = (
            f"Images of {split!r} show {shown.mean():.2g} of {len(several.class_names):,} classes "
            f"on average; {np.sum(shown == 0):,} of {len(paths):,} show none"
        )
        if unknown:
            counts += f" ({text.count(unknown, 'label')} not known)"
        found.append(f"{counts}.")
        if not shown.any():
            continue
        present = np.array(several.class_names, object)[np.any(values == indicators.PRESENT, 0)]
        missing = layout.missing_classes(split, present, several.class_names)
        found += [missing] if missing else []
    return found


def _array(several: layout.Several, paths: Sequence[str]) -> np.ndarray:
    """Returns the labels (n, c) of images."""
    values = [several.values[path] for path in paths]
    return np.array(values, np.int64).reshape(len(paths), len(several.class_names))
