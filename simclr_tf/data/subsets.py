"""Draws images of a split, so that every class has its fraction of them, and reads only those."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses

import numpy as np
import tensorflow as tf

from simclr_tf.data import holdout, indicators, sources

_READ_BATCH = 1024


def read_names_and_labels(source: sources.Source, split: str) -> tuple[list[str], np.ndarray]:
    """Returns the names of the images of a split, in their stored order, and their labels.

    Where labels are stored with the images, this reads the whole split once, without decoding.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.

    Returns:
        The names (n), without those of excluded images; and (n,) int64, -1 where there is no label,
        or (n, c) of several.
    """
    access = source.random_access(split)
    if access is not None and access.labels is not None:
        kept = np.flatnonzero(~access.excluded)
        return [access.name(index) for index in kept], access.labels[kept]
    names, labels = [], []
    for batch in _names_and_labels(source, split).batch(_READ_BATCH).as_numpy_iterator():
        names += [name.decode() for name in batch["name"]]
        labels.append(batch["label"])
    return names, np.concatenate(labels)


@tf.autograph.experimental.do_not_convert
def _names_and_labels(source: sources.Source, split: str) -> tf.data.Dataset:
    return source.examples(split).map(lambda one: {"name": one["name"], "label": one["label"]})


def stratified_order(names: Sequence[str], labels: np.ndarray, *, seed: int) -> np.ndarray:
    """Returns an order of images in which every class is spread evenly.

    The first k of n images have k / n of every class, rounded. The order depends on the names, the
    labels and the seed, and on nothing else.

    Args:
        names: of n images.
        labels: (n,) their classes. Images without a label, -1, count as a class. Of (n, c) several,
            the rarest of each image counts.
        seed: seed of the draw.

    Returns:
        (n,) indices.
    """
    if labels.ndim > 1:
        labels = indicators.rarest(labels)
    hashes = [holdout.path_hash(f"validation/{seed}/{name}") for name in names]
    shuffled = np.array(sorted(range(len(names)), key=hashes.__getitem__), np.int64)
    position = np.empty(len(names))  # Of an image within its class, from 0 to 1.
    for label in np.unique(labels):
        of_class = shuffled[labels[shuffled] == label]
        position[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    return shuffled[np.argsort(position[shuffled], kind="stable")]


def excluding(source: sources.Source, split: str, names: Iterable[str]) -> sources.Source:
    """Returns a data set that also leaves out the images of a split that have these names."""
    excluded = {**source.excluded, split: (*source.excluded.get(split, ()), *names)}
    return dataclasses.replace(source, excluded=excluded)
