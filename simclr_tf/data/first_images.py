"""The first images of a split, from which something is learned about all of them."""

from __future__ import annotations

from collections.abc import Iterator
import itertools
import statistics

import numpy as np
import tensorflow as tf

from simclr_tf.data import array_files, decode, iterators, kinds, sources

COUNT = 32


def first_files(source: sources.Source, split: str) -> Iterator[tuple[str, bytes]]:
    """Yields the names and the encoded content of the first images of a split, at most `COUNT`.

    Raises:
        tf.errors.OpError: if one cannot be read.
    """
    access = source.random_access(split)
    if access is None:
        examples = iterators.without_tuning(source.examples(split).take(COUNT))
        for example in examples.as_numpy_iterator():
            yield example["name"].decode(), example["image"]
        return
    for index in itertools.islice(np.flatnonzero(~access.excluded), COUNT):
        example = access.read(tf.constant(index, tf.int32))
        yield example["name"].numpy().decode(), example["image"].numpy()


def usual_side(source: sources.Source, split: str) -> int | None:
    """Returns the median of the shorter sides of the first images, in pixels.

    Images that cannot be read do not count; training reports them.

    Returns:
        None if none can be read.
    """
    sides = []
    try:
        for _, encoded in first_files(source, split):
            side = _side(encoded)
            sides += [] if side is None else [side]
    except tf.errors.OpError:
        pass
    return int(statistics.median_low(sides)) if sides else None


def _side(encoded: bytes) -> int | None:
    try:
        return int(tf.reduce_min(decode.image_size(tf.constant(encoded))))
    except tf.errors.OpError:
        pass
    try:
        return min(array_files.read(encoded).shape[:2])
    except kinds.RefusedError:
        return None
