"""Opens a data set by name and streams its encoded images, through tensorflow-datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import errors, pixel_format
from simclr_tf.data import (
    array_source,
    folder,
    indicators,
    label_origin,
    preparation,
    readers,
    record_files,
    record_keys,
    records,
    split_slices,
    tfds_builders,
    tfrecords,
)

IMAGE_FOLDER = label_origin.IMAGE_FOLDER


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened data set.

    Attributes:
        name: name of the data set, as the user wrote it.
        class_names: names of the classes; None if it has no labels.
        splits: name of a split -> number of examples.
        image_shape: (height, width), each None unless all images are known to have it.
        notes: sentences to show the user at the start.
        reader: reader of the examples.
        excluded: split, as requested -> names of examples to skip.
        labelled_splits: names of the splits in which some examples have labels; None if that is
            known only from reading them.
        kind: "png" or "jpeg" if all images are encoded so, None if unknown.
        groups: name of an example -> its group; None if examples are independent.
        several_labels: whether an image may have several labels, which are then those of
            `indicators`.
        pixels: how the images are decoded.
        known_pixels: what the images hold, if that is known without reading any.
        channel_names: names of the channels, if they are known.
    """

    name: str
    class_names: tuple[str, ...] | None
    splits: Mapping[str, int]
    image_shape: tuple[int | None, int | None]
    notes: tuple[str, ...]
    reader: readers.Reader = dataclasses.field(repr=False, compare=False)
    excluded: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    labelled_splits: frozenset[str] | None = None
    kind: str | None = None
    groups: Mapping[str, str] | None = dataclasses.field(default=None, repr=False, compare=False)
    several_labels: bool = False
    pixels: pixel_format.PixelFormat = pixel_format.RGB
    known_pixels: pixel_format.PixelFormat | None = None
    channel_names: tuple[str, ...] | None = None

    def with_pixels(self, pixels: pixel_format.PixelFormat) -> Source:
        """Returns the data set whose images are decoded in another way."""
        return self if pixels == self.pixels else dataclasses.replace(self, pixels=pixels)

    def num_examples(self, split: str) -> int:
        """Counts the examples of a split.

        Args:
            split: split in the syntax of tensorflow-datasets: "train", "train[:10%]", "train+test".

        Raises:
            errors.UserError: if there is no such split, or nothing in it.
        """
        stored = sum(stop - start for _, start, stop in self.slices(split))
        return stored - len(self.excluded.get(split, ()))

    def num_bytes(self, split: str) -> int:
        """Estimates the bytes of the encoded images of a split; stats each file of a folder."""
        return self.reader.num_bytes(self.slices(split))

    # AutoGraph has nothing to convert in this package, and looking for it takes seconds.
    @tf.autograph.experimental.do_not_convert
    def examples(self, split: str, *, order_seed: tf.Tensor | None = None) -> tf.data.Dataset:
        """Streams the examples of a split once, each exactly once.

        May be called while a graph is built, such as inside `flat_map` over epochs.

        Args:
            split: as for `num_examples`.
            order_seed: None for the stored order; a (2,) integer tensor for an order that depends
                on it alone: not on parallelism, and not on TensorFlow's global seed.

        Returns:
            A data set of {"image": () string, encoded; "label": () int64, -1 where unlabelled, or
            (c,) if an image may have several; "name": () string, the file or record, for messages}.

        Raises:
            errors.UserError: if there is no such split, or nothing in it.
        """
        excluded = self.excluded.get(split, ())
        return self.reader.examples(self.slices(split), order_seed=order_seed, excluded=excluded)

    @tf.autograph.experimental.do_not_convert
    def positions(self, split: str, *, order_seed: tf.Tensor) -> tf.data.Dataset:
        """Streams the positions () int64 of the examples of a split in their stored order.

        They come in the order in which `examples` has the examples with that seed. No image is
        read. May be called while a graph is built.

        Args:
            split: as for `num_examples`.
            order_seed: (2,) integers.
        """
        slices, excluded = self.slices(split), frozenset(self.excluded.get(split, ()))
        positions = self.reader.positions(slices, order_seed)
        if not excluded:
            return positions
        kept = np.array([name not in excluded for name in self.reader.example_names(slices)])
        with tf.init_scope():  # Captured from outside; as constants they would enlarge the graph.
            is_kept, rank = tf.constant(kept), tf.constant(np.cumsum(kept) - 1)
        return positions.filter(lambda position: is_kept[position]).map(
            lambda position: rank[position]
        )

    def random_access(self, split: str) -> folder.RandomAccess | None:
        """Returns the examples of a split; None where they can only be streamed."""
        excluded = self.excluded.get(split, ())
        return self.reader.random_access(self.slices(split), excluded=excluded)

    def example_name(self, split: str, index: int) -> str:
        """Returns the name of an example of a split, counted in the stored order."""
        return self.reader.example_name(self.slices(split), index)

    def example_names(self, split: str) -> list[str]:
        """Returns the names of the examples of a split in the stored order, without those excluded.

        Raises:
            errors.UserError: if there is no such split, or nothing in it.
        """
        excluded = set(self.excluded.get(split, ()))
        names = self.reader.example_names(self.slices(split))
        return [name for name in names if name not in excluded]

    def example_groups(self, split: str) -> list[str] | None:
        """Returns the groups of the examples of a split, in the order of their names.

        None if examples are independent.
        """
        if self.groups is None:
            return None
        return [self.groups[name] for name in self.example_names(split)]

    def slices(self, split: str) -> list[folder.Slice]:
        """Returns the slices of the stored splits that a split consists of.

        Raises:
            errors.UserError: if there is no such split, or nothing in it.
        """
        return split_slices.of_split(split, self.name, self.splits, self.reader.split_infos)


def open_source(
    dataset: str,
    *,
    data_dir: str | None,
    seed: int,
    labels: str = label_origin.FOLDERS,
    image_key: str = "image/encoded",
    label_key: str = "image/class/label",
    group: str | None = None,
    channel_files: str | None = None,
    channel_names: Sequence[str] | None = None,
    several_labels: bool = False,
) -> Source:
    """Opens a data set, preparing it first if need be.

    Args:
        dataset: `digits`, which needs no download; `image_folder`, a folder of the user's;
            `csv:FILE`, such a folder with a file of labels; `array:FILE`, a .npz or .npy file;
            `tfrecord:` and a pattern of paths; or any name that tensorflow-datasets knows or that
            is prepared in `data_dir`.
        data_dir: where the data sets are, None for the default of tensorflow-datasets; for
            `image_folder` the folder; for `csv:FILE` too, None for the folder of the file.
        seed: seed of the held-out split of an image folder that has no splits.
        labels: of an image folder, see `folder.ImageFolder`.
        image_key: key of the image in the files of `tfrecord:`.
        label_key: key of the label in them; empty if they are unlabelled.
        group: of an image folder, see `folder.ImageFolder`.
        channel_files: of an image folder, see `folder.ImageFolder`.
        channel_names: of an image folder, see `folder.ImageFolder`.
        several_labels: whether to read the labels of a data set of tensorflow-datasets with
            several per image; otherwise it is unlabelled. A file of labels is read either way.

    Raises:
        errors.UserError: if it cannot be opened; says why and what to do.
    """
    if label_origin.is_folder(dataset):
        labels, data_dir = folder.located(dataset, data_dir, labels)
        images = folder.ImageFolder(
            data_dir,
            seed=seed,
            labels=labels,
            group=group,
            channel_files=channel_files,
            channel_names=channel_names,
        )
        return _of_folder(dataset, images)
    if group is not None:
        raise errors.ArgumentError(
            "group",
            group,
            f"needs the names of files, and the images of {dataset} have only numbers; leave it "
            "out, or use a folder of images (--dataset=image_folder).",
        )
    if dataset.startswith(record_files.PREFIX):
        return _open_record_files(dataset, data_dir, image_key=image_key, label_key=label_key)
    if dataset.startswith(array_source.PREFIX):
        return _open_arrays(dataset, data_dir)
    builder = tfds_builders.find(dataset, data_dir)
    notes = preparation.prepare(dataset, builder)
    return _open_records(dataset, builder, notes, several_labels=several_labels)


def _of_folder(dataset: str, images: folder.ImageFolder) -> Source:
    source = _with_reader(dataset, images, images.class_names, images.notes)
    return dataclasses.replace(
        source,
        groups=images.groups,
        channel_names=images.channels,
        several_labels=images.several_labels,
    )


def _open_record_files(
    dataset: str, data_dir: str | None, *, image_key: str, label_key: str
) -> Source:
    if data_dir:
        raise errors.ArgumentError(
            "data_dir", data_dir, f"has no effect beside the paths in {dataset}; leave it out."
        )
    pattern = dataset.removeprefix(record_files.PREFIX)
    opened = tfrecords.open_files(pattern, image_key=image_key, label_key=label_key)
    source = _with_reader(dataset, opened.reader, opened.class_names, opened.notes)
    return dataclasses.replace(
        source, labelled_splits=opened.labelled_splits, known_pixels=opened.pixels
    )


def _open_arrays(dataset: str, data_dir: str | None) -> Source:
    if data_dir:
        raise errors.ArgumentError(
            "data_dir", data_dir, f"has no effect beside the path in {dataset}; leave it out."
        )
    arrays = array_source.Arrays(dataset.removeprefix(array_source.PREFIX))
    source = _with_reader(dataset, arrays, arrays.class_names, ())
    return dataclasses.replace(
        source,
        image_shape=arrays.image_shape,
        labelled_splits=arrays.labelled_splits if arrays.class_names else None,
        known_pixels=arrays.pixels,
    )


def _with_reader(
    dataset: str,
    reader: readers.Reader,
    class_names: tuple[str, ...] | None,
    notes: tuple[str, ...],
) -> Source:
    """Returns a data set of images of any size and format."""
    return Source(
        name=dataset,
        class_names=class_names,
        splits={str(name): info.num_examples for name, info in reader.split_infos.items()},
        image_shape=(None, None),
        notes=notes,
        reader=reader,
    )


def _open_records(dataset: str, builder: Any, notes: list[str], *, several_labels: bool) -> Source:
    features = builder.info.features
    image = record_keys.image_key(dataset, features)
    label = record_keys.label_key(builder.info, several_labels=several_labels)
    if label is None:
        notes.append(f"The data set {dataset!r} has no class label, so it is used unlabelled.")
    shape = features[image].shape
    parser = records.Parser(builder.info, image=image, label=label)
    return Source(
        name=dataset,
        class_names=record_keys.class_names(builder.info, label),
        splits={str(name): info.num_examples for name, info in builder.info.splits.items()},
        image_shape=(shape[0], shape[1]) if len(shape) == 3 else (None, None),
        notes=tuple(notes),
        reader=tfds_builders.reader_of(dataset, builder, parser),
        kind=getattr(features[image], "_encoding_format", None),
        several_labels=isinstance(label, indicators.Keys),
        known_pixels=record_keys.pixels_of(features[image]),
    )
