"""Draws a class-balanced subset of the labels of a split, and hides all other labels.

The images of a class are ordered by a hash of (seed, number of the draw, class, image), and the
first ones are drawn. So the draw of a class depends neither on the machine nor on other classes,
and a smaller one is contained in a larger one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from simclr_tf import errors, text
from simclr_tf.data import folder, holdout, iterators, membership

if TYPE_CHECKING:
    from simclr_tf.data import readers, sources

_READ_BATCH = 1024


@dataclasses.dataclass(frozen=True)
class Draw:
    """The images of a split whose labels are used.

    Attributes:
        number: the number of the draw.
        label_of: name of an image -> name of its class, in the stored order of the split.
        rounded_up: number of classes of which a fraction of less than one image was rounded up.
    """

    number: int
    label_of: Mapping[str, str]
    rounded_up: int

    @property
    def sizes(self) -> dict[str, int]:
        """The number of images of each class."""
        names, counts = np.unique(list(self.label_of.values()), return_counts=True)
        return dict(zip(map(str, names), map(int, counts), strict=True))

    def summary(self) -> str:
        """Describes the draw, as in "30 images, 10 of each of 3 classes"."""
        sizes = sorted(self.sizes.values())
        each = f"{sizes[0]:,}" if sizes[0] == sizes[-1] else f"{sizes[0]:,} to {sizes[-1]:,}"
        return (
            f"{text.count(len(self.label_of), 'image')}, {each} of each of {len(sizes):,} classes"
        )


def examples_of(source: sources.Source, split: str) -> dict[str, str]:
    """Returns name -> class of the labelled images of a split, in their stored order.

    Of a data set that can only be streamed, every record is read once.

    Args:
        source: a data set with labels.
        split: split of the data set, in tensorflow-datasets syntax.
    """
    assert source.class_names is not None
    access = source.random_access(split)
    pairs: Iterable[tuple[str, int]]
    if access is None or access.labels is None:
        pairs = _read(source, split)
    else:
        pairs = ((access.name(index), label) for index, label in enumerate(access.labels))
    return {name: source.class_names[label] for name, label in pairs if label >= 0}


def _read(source: sources.Source, split: str) -> Iterable[tuple[str, int]]:
    columns = source.examples(split).map(lambda example: (example["name"], example["label"]))
    batches = iterators.without_tuning(columns.batch(_READ_BATCH))
    for names, labels in batches.as_numpy_iterator():
        yield from zip((name.decode() for name in names), map(int, labels), strict=True)


def draw(
    label_of: Mapping[str, str],
    *,
    per_class: int = 0,
    fraction: float = 0.0,
    seed: int,
    number: int = 0,
) -> Draw:
    """Draws the same number, or the same fraction, of the images of each class.

    Args:
        label_of: name of an image -> name of its class.
        per_class: images of each class; 0 to draw a fraction.
        fraction: fraction of the images of each class, rounded to the nearest number, at least 1.
        seed: seed of the draw.
        number: number of the draw; each gives another one.

    Raises:
        errors.UserError: if a class has fewer images than `per_class`.
    """
    members: dict[str, list[str]] = {}
    for name, label in label_of.items():
        members.setdefault(label, []).append(name)
    if per_class:
        _check_sizes({label: len(names) for label, names in members.items()}, per_class)
    drawn: set[str] = set()
    rounded_up = 0
    for label, names in members.items():
        wanted = per_class or round(fraction * len(names))
        rounded_up += wanted == 0
        names.sort(key=lambda name: holdout.path_hash(f"{seed}/{number}/{label}/{name}"))
        drawn.update(names[: max(wanted, 1)])
    chosen = {name: label for name, label in label_of.items() if name in drawn}
    return Draw(number, chosen, rounded_up)


def _check_sizes(sizes: Mapping[str, int], per_class: int) -> None:
    few = {label: size for label, size in sizes.items() if size < per_class}
    if few:
        smallest = min(few, key=lambda label: few[label])
        raise errors.ArgumentError(
            "labels_per_class",
            per_class,
            f"takes more labelled images than the class {smallest!r} has, which are "
            f"{few[smallest]:,} ({len(few):,} of {len(sizes):,} classes have fewer than "
            f"{per_class:,}); use at most {few[smallest]:,}, or draw a fraction of each class "
            "(--label_fraction).",
        )


class HidingReader:
    """Reads a data set as another reader does, and hides most labels of some slices.

    Attributes:
        inner: the other reader.
        split_infos: name of a split -> tfds.core.SplitInfo.
    """

    def __init__(
        self, inner: readers.Reader, slices: Sequence[folder.Slice], names: Collection[str]
    ) -> None:
        """Creates the reader.

        Args:
            inner: the other reader.
            slices: the slices in which labels are hidden; other slices are read as they are.
            names: names of the examples in them that keep their labels.
        """
        self.inner, self.split_infos = inner, inner.split_infos
        self._slices, self._names = list(slices), frozenset(names)

    def examples(
        self,
        slices: Sequence[folder.Slice],
        *,
        order_seed: tf.Tensor | None = None,
        excluded: Sequence[str] = (),
    ) -> tf.data.Dataset:
        """Streams the examples of some slices once; see `sources.Source.examples`."""
        access = self.random_access(slices, excluded=excluded)
        if access is not None:
            return folder.stream(access, order_seed)
        examples = self.inner.examples(slices, order_seed=order_seed, excluded=excluded)
        if list(slices) != self._slices:
            return examples
        keeps = membership.is_among(self._names)
        return examples.map(
            lambda example: _with_label(example, keeps(example["name"])),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def random_access(
        self, slices: Sequence[folder.Slice], *, excluded: Sequence[str] = ()
    ) -> folder.RandomAccess | None:
        """Returns the examples of some slices; those whose label is hidden have label -1."""
        access = self.inner.random_access(slices, excluded=excluded)
        if access is None or list(slices) != self._slices:
            return access
        count, names = len(access.excluded), self._names
        keeps = np.fromiter((access.name(i) in names for i in range(count)), bool, count)
        labels = None if access.labels is None else np.where(keeps, access.labels, -1)
        with tf.init_scope():
            all_keeps = tf.constant(keeps)

        def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
            return _with_label(access.read(index), all_keeps[index])

        return access._replace(labels=labels, read=read)

    def positions(self, slices: Sequence[folder.Slice], order_seed: tf.Tensor) -> tf.data.Dataset:
        """Streams the positions of all examples in an order; see `readers.Reader.positions`."""
        return self.inner.positions(slices, order_seed)

    def num_bytes(self, slices: Sequence[folder.Slice]) -> int:
        """Estimates the bytes of some slices."""
        return self.inner.num_bytes(slices)

    def example_name(self, slices: Sequence[folder.Slice], index: int) -> str:
        """Returns the name of one example, counted in the stored order of `slices`."""
        return self.inner.example_name(slices, index)

    def example_names(self, slices: Sequence[folder.Slice]) -> Iterable[str]:
        """Returns the names of all examples, in the stored order of `slices`."""
        return self.inner.example_names(slices)


def _with_label(example: dict[str, tf.Tensor], keeps: tf.Tensor) -> dict[str, tf.Tensor]:
    hidden = tf.constant(-1, tf.int64)
    return {**example, "label": tf.where(keeps, example["label"], hidden)}


def unwrapped(reader: Any) -> Any:
    """Returns the reader that reads the files."""
    return reader.inner if isinstance(reader, HidingReader) else reader


def hide_labels(source: sources.Source, split: str, names: Collection[str]) -> sources.Source:
    """Returns the data set with the labels of a split hidden, except for those of some images."""
    reader = HidingReader(unwrapped(source.reader), source.slices(split), names)
    return dataclasses.replace(source, reader=reader)


def exclude_others(source: sources.Source, split: str, names: Collection[str]) -> sources.Source:
    """Returns the data set with no other images in a split than some."""
    kept = frozenset(names)
    others = tuple(name for name in source.example_names(split) if name not in kept)
    already = source.excluded.get(split, ())
    return dataclasses.replace(source, excluded={**source.excluded, split: (*already, *others)})
