"""The user's own folder of images, read in place; `layout` lists what it may hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import itertools
import os
import re
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf import errors
from simclr_tf.data import channel_files as channel_files_lib
from simclr_tf.data import (
    groups,
    holdout,
    label_file,
    label_origin,
    layout,
    listed_layout,
    random,
    scan,
)

Slice = tuple[str, int, int]  # split, first example, one past the last
# Name scope of the op that reads a file, and how messages of TensorFlow mention it.
_SCOPE = "read_image_file"
_READ_NODE = rf"{{{{node [^}}]*\b{_SCOPE}"


class RandomAccess(NamedTuple):
    """Examples that can be read in any order.

    Attributes:
        name: function: index -> the name of the example.
        labels: (n,) int64, -1 where an example is unlabelled or excluded, or (n, c) if it may have
            several labels; None if they are known only from reading the examples.
        excluded: (n,) bool, which examples are not to be read.
        read: function: index () -> the example.
    """

    name: Callable[[int], str]
    labels: np.ndarray | None
    excluded: np.ndarray
    read: Callable[[tf.Tensor], dict[str, tf.Tensor]]


class ImageFolder:
    """A folder of images.

    Within a split the stored order is by a hash of the path, so slices such as `train[:10%]` are
    a fair sample of the classes, and adding a file does not move any other.

    Attributes:
        class_names: names of the classes; None if the images are unlabelled.
        several_labels: whether an image may have several labels, see `indicators`.
        split_infos: name of a split -> tfds.core.SplitInfo.
        notes: sentences for the user: what was held out, which files are not images, which folders
            have none.
        groups: path -> its group; None if images are independent.
        channels: names of the channels that are files of their own; None if images are files.
    """

    def __init__(
        self,
        data_dir: str,
        *,
        seed: int,
        labels: str = label_origin.FOLDERS,
        group: str | None = None,
        channel_files: str | None = None,
        channel_names: Sequence[str] | None = None,
    ) -> None:
        """Lists the folder.

        Args:
            data_dir: the folder; a path that TensorFlow can read, gs:// included.
            labels: where the labels come from: "folders", "none" or the path of a file.
            seed: seed of the held-out split, where one has to be made.
            group: what the group of an image is: name of a column of the file of labels, or a
                regular expression, see `groups.of_names`. None if images are independent.
            channel_files: pattern of the files of the channels of an image, see
                `channel_files.Grouped`; None if images are files.
            channel_names: the channels to use of these, in their order; None for all.

        Raises:
            errors.UserError: if it is missing, holds no images, or has another layout, or if the
                file of labels does not fit it, or an image has no group.
        """
        self._root = data_dir
        _check_root(self._root)
        grouped = None

        def listed(*, once: bool = False) -> scan.Listing:
            nonlocal grouped
            listing = scan.scan(self._root, once=once)
            if channel_files is None:
                return listing
            grouped = channel_files_lib.Grouped(self._root, listing, channel_files, channel_names)
            return grouped.listing

        found, self.groups = _layout(self._root, labels, seed, group, listed)
        self._files = None if grouped is None else grouped.files
        self.channels = None if grouped is None else grouped.channels
        names = sorted(set(found.labels.values()))
        self.several_labels = found.several is not None
        self.class_names = (
            tuple(names) if found.several is None else found.several.class_names
        ) or None
        planes = None
        if grouped is None:
            planes = channel_files_lib.note(itertools.chain.from_iterable(found.splits.values()))
        self.notes = (*found.notes, *filter(None, [planes]))
        label_of = {name: label for label, name in enumerate(names)}
        self._paths, self._labels = {}, {}
        for split, paths in found.splits.items():
            paths = sorted(paths, key=holdout.path_hash)
            numbers: list[int] | list[tuple[int, ...]]
            if found.several is None:
                numbers = [label_of[found.labels[p]] if p in found.labels else -1 for p in paths]
            else:
                numbers = [found.several.values[path] for path in paths]
            self._paths[split] = np.array(paths, object)
            self._labels[split] = np.array(numbers, np.int64)
        self.split_infos = tfds.core.SplitDict(
            tfds.core.SplitInfo(name=split, shard_lengths=[len(paths)], num_bytes=0)
            for split, paths in self._paths.items()
        )

    def examples(
        self,
        slices: Sequence[Slice],
        *,
        order_seed: tf.Tensor | None = None,
        excluded: Sequence[str] = (),
    ) -> tf.data.Dataset:
        """Streams the encoded images of some slices once; see `sources.Source.examples`.

        Paths are shuffled, not pixels, so the shuffle is a full one and costs no memory. Excluded
        images are not opened, because it may be impossible.
        """
        return stream(self.random_access(slices, excluded=excluded), order_seed)

    def random_access(
        self, slices: Sequence[Slice], *, excluded: Sequence[str] = ()
    ) -> RandomAccess:
        """Returns the examples of some slices; those excluded have label -1."""
        paths = self._paths_of(slices)
        is_excluded = are_excluded(paths, excluded)
        labels = np.concatenate([self._labels[s][a:b] for s, a, b in slices])
        labels[is_excluded] = -1
        with tf.init_scope():  # Captured from outside; as constants they would enlarge the graph.
            all_paths, all_labels = tf.constant(paths), tf.constant(labels)
            all_files = None if self._files is None else tf.constant(self._files_of(paths))

        def read(i: tf.Tensor) -> dict[str, tf.Tensor]:
            named = all_paths[i] if all_files is None else all_files[i]
            path = tf.strings.join([self._root, named], separator="/")
            with tf.name_scope(_SCOPE):
                if all_files is None:
                    content = tf.io.read_file(path)
                else:
                    content = channel_files_lib.read(path, all_files.shape[1])
            return {"image": content, "label": all_labels[i], "name": all_paths[i]}

        return RandomAccess(lambda i: str(paths[i]), labels, is_excluded, read)

    def positions(self, slices: Sequence[Slice], order_seed: tf.Tensor) -> tf.data.Dataset:
        """Streams the positions of all examples in an order; see `readers.Reader.positions`."""
        return positions(sum(stop - start for _, start, stop in slices), order_seed)

    def num_bytes(self, slices: Sequence[Slice]) -> int:
        """Adds up the sizes of the files of some slices, which takes a while on a network."""
        paths = self._paths_of(slices)
        if self._files is not None:
            paths = np.ravel(self._files_of(paths))
        return sum(_size(f"{self._root}/{path}") for path in paths)

    def example_name(self, slices: Sequence[Slice], index: int) -> str:
        """Returns the path of one example, counted in the stored order of `slices`."""
        return str(self._paths_of(slices)[index])

    def example_names(self, slices: Sequence[Slice]) -> Iterable[str]:
        """Returns the paths of all examples, in the stored order of `slices`."""
        return map(str, self._paths_of(slices))

    def _files_of(self, images: np.ndarray) -> list[tuple[str, ...]]:
        """Returns the files of the channels of each image."""
        assert self._files is not None
        return [self._files[image] for image in images]

    def _paths_of(self, slices: Sequence[Slice]) -> np.ndarray:
        return np.concatenate([self._paths[split][a:b] for split, a, b in slices])


def are_excluded(names: Sequence[str], excluded: Sequence[str]) -> np.ndarray:
    """Returns (n,) bool, which of n names are excluded."""
    left_out = frozenset(excluded)  # There may be a million, so names are not compared with each.
    return np.fromiter((name in left_out for name in names), bool, len(names))


def stream(access: RandomAccess, order_seed: tf.Tensor | None) -> tf.data.Dataset:
    """Streams examples once, without those excluded, in an order set by a seed.

    Args:
        access: the examples.
        order_seed: None for the stored order, or (2,) integers.
    """
    order = tf.range(len(access.excluded))
    if order_seed is not None:
        order = random.permutation(order_seed, len(access.excluded))
    if access.excluded.any():
        with tf.init_scope():
            kept = tf.constant(~access.excluded)
        order = tf.boolean_mask(order, tf.gather(kept, order))
    dataset = tf.data.Dataset.from_tensor_slices(order)
    return dataset.map(access.read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def positions(count: int, order_seed: tf.Tensor) -> tf.data.Dataset:
    """Streams the positions () int64 of examples in the order in which `stream` has them.

    Args:
        count: number of examples, those excluded among them.
        order_seed: (2,) integers.
    """
    order = random.permutation(order_seed, count)
    return tf.data.Dataset.from_tensor_slices(tf.cast(order, tf.int64))


def is_read_error(error: tf.errors.OpError) -> bool:
    """Returns whether an error in a graph comes from reading an image file of a folder."""
    return bool(re.search(_READ_NODE, str(error)))


def unread_file(error: tf.errors.OpError) -> tuple[str, str] | None:
    """Returns the path and the reason of such an error; None if its message has no such line."""
    line = re.search(
        rf"^(?:{{{{.*}}}} ?)?(.+); (.+)\n\s*\[\[{_READ_NODE}", str(error), re.MULTILINE
    )
    return (line[1], line[2]) if line else None


def _size(path: str) -> int:
    """Returns the bytes of a file, 0 if it cannot be found; reading it then reports the reason."""
    try:
        return tf.io.gfile.stat(path).length
    except tf.errors.OpError:
        return 0


def _layout(
    root: str,
    labels: str,
    seed: int,
    group: str | None,
    listed: Callable[..., scan.Listing],
) -> tuple[layout.Layout, Mapping[str, str] | None]:
    """Sorts the images of a folder, and finds their groups, see `ImageFolder`."""
    if label_origin.is_file(labels):
        found = label_file.read(labels, group)
        listing = listed(once=True)
        return listed_layout.of_listing(root, listing, labels, found, seed=seed, group=group)
    if labels == label_origin.NONE:
        listing = listed(once=True)
        return layout.unlabelled(root, listing), groups.of_names(listing.images, group)
    listing = listed()
    of_image = groups.of_names(listing.images, group)
    return layout.of_listing(root, listing, seed=seed, groups=of_image), of_image


def _check_root(root: str) -> None:
    if not tf.io.gfile.isdir(root):
        problem = "is a file" if tf.io.gfile.exists(root) else "does not exist"
        raise errors.ArgumentError(
            "data_dir", root, f"{problem}; name a folder that holds {layout.LAYOUTS}."
        )


def located(dataset: str, data_dir: str | None, labels: str) -> tuple[str, str]:
    """Returns where the labels of a folder of images come from, and the folder.

    Args:
        dataset: "image_folder" or "csv:FILE".
        data_dir: the folder; None for that of FILE.
        labels: of "image_folder", see `ImageFolder`.

    Raises:
        errors.ArgumentError: if the folder is not named.
    """
    if dataset != label_origin.IMAGE_FOLDER:
        labels = label_origin.resolve(dataset, labels)[1]
        data_dir = data_dir or os.path.dirname(labels) or "."
    if not data_dir:
        raise errors.ArgumentError(
            "data_dir", None, f"is missing; name a folder that holds {layout.LAYOUTS}."
        )
    return labels, data_dir
