"""Parts of splits: consecutive examples in the stored order, and single ones by their names."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from simclr_tf.data import folder, sources


def of_split(source: sources.Source, split: str, size: int) -> list[str]:
    """Returns consecutive parts of a split, as splits in the syntax of tensorflow-datasets.

    Args:
        source: the opened data set. Examples that it excludes are counted.
        split: split of the data set, in the same syntax.
        size: examples of each part but the last.
    """
    slices = source.slices(split)
    total = sum(stop - start for _, start, stop in slices)
    return [_between(slices, start, start + size) for start in range(0, total, size)]


def _between(slices: list[folder.Slice], first: int, last: int) -> str:
    """Returns the examples from `first` to before `last`, counted over all slices."""
    terms, before = [], 0
    for name, start, stop in slices:
        low = max(start, start + first - before)
        high = min(stop, start + last - before)
        if low < high:
            terms.append(f"{name}[{low}:{high}]")
        before += stop - start
    return "+".join(terms)


def images(source: sources.Source, split: str, names: Iterable[str]) -> dict[str, tf.Tensor]:
    """Reads single examples of a split.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.
        names: names of examples.

    Returns:
        Name -> the encoded image, () string; without names that the split does not have.
    """
    wanted = set(names)
    slices = source.slices(split)
    stored = source.reader.example_names(slices)
    positions = {name: i for i, name in enumerate(stored) if name in wanted}
    found: dict[str, tf.Tensor] = {}
    for name, position in positions.items():
        for example in source.examples(_between(slices, position, position + 1)):
            found[name] = example["image"]
    return found
