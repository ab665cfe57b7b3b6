"""A small folder of images that may show several classes, with a file of labels."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

CLASSES = ("blue", "green", "red")  # In the order of their names.
COUNTS = {"train": 40, "test": 24}
_SIDE = 16


def labels_of(split: str) -> np.ndarray:
    """Returns the labels (n, 3) of a split; some images show none of the classes."""
    rng = np.random.default_rng(len(split))
    return (rng.random((COUNTS[split], 3)) < (0.5, 0.4, 0.3)).astype(int)


def write(root: pathlib.Path) -> pathlib.Path:
    """Writes noise that is brighter in the channels of its labels; returns the file of labels."""
    rng, rows = np.random.default_rng(0), ["file,labels,split"]
    for split in COUNTS:
        for index, shown in enumerate(labels_of(split)):
            image = rng.integers(0, 150, (_SIDE, _SIDE, 3)) + 90 * shown[::-1]
            path = root / split / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(image.astype(np.uint8)).numpy())
            names = "|".join(name for name, value in zip(CLASSES, shown, strict=True) if value)
            rows.append(f"{split}/{index}.png,{names},{split}")
    file = root / "labels.csv"
    file.write_text("\n".join(rows) + "\n")
    return file


@tiny_runs.once
def folder(factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns the folder, whose file of labels is labels.csv."""
    root = factory.mktemp("several")
    write(root)
    return root


def main(mode: str, model_dir: pathlib.Path, root: pathlib.Path, **changes: object) -> int:
    """Runs the program on the folder in this process, and returns its exit code."""
    flags = {"labels": root / "labels.csv", **tiny_runs.NO_COLOR, **changes}
    return tiny_runs.main(mode, model_dir, root, **flags)
