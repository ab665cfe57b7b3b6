"""Compares the input of images of 13 channels of 16 bits with that of pictures of as many bytes.

    python benchmarks/channels.py               prints a table
    python benchmarks/channels.py --json        prints a JSON object as the last line
    python benchmarks/channels.py --smallest    takes seconds

Both are read from a folder, decoded, cropped, and distorted on the host: 13 channels of 64 pixels
from .npy files, and three channels of 188 pixels from PNG files. Their views have as many values,
too: 48 and 100 pixels. Both are measured in turns, by the CPU time of this process, so that other
load on the machine affects them little. The results are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import numpy as np
from rich.console import Console
from rich.table import Table

import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

import tensorflow as tf  # isort: skip

from simclr_tf import pixel_format
from simclr_tf.data import operation_names, pipeline, policies, sources

_FIRST = 4  # Batches that are not measured.
_POLICY = "crop,flip,channel_brightness,contrast,blur"  # Suits both.


class Kind(NamedTuple):
    """Pixels of images, and the sides of images and of views."""

    pixels: pixel_format.PixelFormat
    side: int
    view: int


_KINDS = {
    "13 channels of uint16": Kind(pixel_format.of_dtype(13, "uint16"), 64, 48),
    "RGB of 8 bits": Kind(pixel_format.RGB, 188, 100),
}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Compares inputs by their channels.")
    parser.add_argument("--json", action="store_true", help="print a JSON object at the end")
    parser.add_argument("--smallest", action="store_true", help="few images, one round")
    options = parser.parse_args()
    images, batch, rounds = (8, 4, 1) if options.smallest else (512, 64, 5)
    with tempfile.TemporaryDirectory() as folder:
        folders = {name: pathlib.Path(folder) / str(i) for i, name in enumerate(_KINDS)}
        for name, kind in _KINDS.items():
            _write(kind, folders[name], images)
        found: dict[str, list[float]] = {name: [] for name in _KINDS}
        for _ in range(rounds):
            for name, kind in _KINDS.items():
                seconds = _seconds_per_image(kind, folders[name], 2 * images // batch, batch)
                found[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    ratio = statistics.median(one / other for one, other in zip(*found.values(), strict=True))
    table = Table("images", "CPU ms per image", title=f"Input, two views; ratio {ratio:.2f}")
    for name, seconds in medians.items():
        table.add_row(name, f"{1000 * seconds:.2f}")
    Console().print(table)
    if options.json:
        print(json.dumps({**{name: 1000 * s for name, s in medians.items()}, "ratio": ratio}))


def _write(kind: Kind, folder: pathlib.Path, images: int) -> None:
    """Writes images."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    highest = np.iinfo(kind.pixels.dtype).max
    shape = (kind.side, kind.side, kind.pixels.channels)
    for index in range(images):
        image = rng.integers(0, highest, shape).astype(kind.pixels.dtype)
        if kind.pixels.is_rgb:
            (folder / f"{index}.png").write_bytes(tf.io.encode_png(image).numpy())
        else:
            np.save(folder / f"{index}.npy", image)


def _seconds_per_image(kind: Kind, folder: pathlib.Path, batches: int, batch: int) -> float:
    """Returns the CPU time of two views of an image, without that of the first batches."""
    source = sources.open_source("image_folder", data_dir=str(folder), seed=0)
    policy = policies.Policy(kind.view, ops=operation_names.parse(_POLICY), pixels=kind.pixels)
    # A new stream each time: another one that waits would fill its buffers meanwhile.
    stream = iter(
        pipeline.train_batches(source, "train", policy, batch_size=batch, num_views=2, seed=0)
    )
    for _ in range(_FIRST):
        next(stream)  # Traces, compiles, and fills the buffers.
    start = time.process_time()
    for _ in range(batches):
        next(stream)
    return (time.process_time() - start) / (batches * batch)


if __name__ == "__main__":
    main()
