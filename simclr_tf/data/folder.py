"""The user's own folder of images, read in place.

What the folder may hold, and what it becomes:

  split/class/*.jpg   the splits as they are, labelled
  class/*.jpg         labelled; a tenth of each class is held out as the split `validation`
  split/*.jpg         the splits as they are, unlabelled (train, test, validation, unlabeled, ...)
  *.jpg               one unlabelled split, `train`
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
import hashlib
import os
import posixpath
from typing import NamedTuple, NoReturn

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf import errors, text
from simclr_tf.data import random

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
HELD_OUT = "validation"
HELD_OUT_FRACTION = 0.1
_TRAIN_NAMES = ("train", "training", "unlabeled", "unlabelled", "unsupervised", "extra")
_EVAL_NAMES = ("test", "testing", "val", "valid", "validation", "eval", "evaluation", "dev")
SPLIT_NAMES = frozenset((*_TRAIN_NAMES, *_EVAL_NAMES))
LAYOUTS = "split/class/*.jpg, class/*.jpg, split/*.jpg or just images"
Slice = tuple[str, int, int]  # split, first example, one past the last


class Layout(NamedTuple):
    """Which image is in which split and class; paths are relative to the folder, with slashes."""

    splits: dict[str, list[str]]
    labels: dict[str, str]  # path -> class; unlabelled images are missing
    notes: tuple[str, ...]


class RandomAccess(NamedTuple):
    """Examples that can be read in any order.

    Attributes:
        labels: (n,) int64, -1 where an example is unlabelled or excluded.
        read: function: index () -> the example.
    """

    labels: np.ndarray
    read: Callable[[tf.Tensor], dict[str, tf.Tensor]]


class ImageFolder:
    """A folder of images.

    Within a split the stored order is by a hash of the path, so slices such as `train[:10%]` are
    a fair sample of the classes, and adding a file does not move any other.

    Attributes:
        class_names: names of the classes; None if the images are unlabelled.
        split_infos: name of a split -> tfds.core.SplitInfo.
        notes: sentences for the user: what was held out, which files are not images.
    """

    def __init__(self, data_dir: str, *, seed: int) -> None:
        """Lists the folder.

        Args:
            data_dir: the folder; a path that TensorFlow can read, gs:// included.
            seed: seed of the held-out split, where one has to be made.

        Raises:
            errors.UserError: if it is missing, holds no images, or has another layout.
        """
        self._root = os.path.expanduser(data_dir)
        layout = _layout(self._root, *_scan(self._root), seed=seed)
        names = sorted(set(layout.labels.values()))
        self.class_names = tuple(names) or None
        self.notes = layout.notes
        label_of = {name: label for label, name in enumerate(names)}
        self._paths, self._labels = {}, {}
        for split, paths in layout.splits.items():
            paths = sorted(paths, key=_hash)
            labels = [label_of[layout.labels[p]] if p in layout.labels else -1 for p in paths]
            self._paths[split] = np.array(paths, object)
            self._labels[split] = np.array(labels, np.int64)
        self.split_infos = tfds.core.SplitDict(
            tfds.core.SplitInfo(name=split, shard_lengths=[len(paths)], num_bytes=0)
            for split, paths in self._paths.items()
        )

    def examples(
        self, slices: Sequence[Slice], *, order_seed: tf.Tensor | None = None
    ) -> tf.data.Dataset:
        """Streams the encoded images of some slices once; see `sources.Source.examples`.

        Paths are shuffled, not pixels, so the shuffle is a full one and costs no memory.
        """
        labels, read = self.random_access(slices)
        order = tf.range(len(labels))
        if order_seed is not None:
            order = random.permutation(order_seed, len(labels))
        dataset = tf.data.Dataset.from_tensor_slices(order)
        return dataset.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def random_access(
        self, slices: Sequence[Slice], *, excluded: Sequence[str] = ()
    ) -> RandomAccess:
        """Returns the examples of some slices; those excluded have label -1."""
        paths = self._paths_of(slices)
        labels = np.concatenate([self._labels[s][a:b] for s, a, b in slices])
        labels = np.where(np.isin(paths, list(excluded)), -1, labels)
        with tf.init_scope():  # Captured from outside; as constants they would enlarge the graph.
            all_paths, all_labels = tf.constant(paths), tf.constant(labels)

        def read(i: tf.Tensor) -> dict[str, tf.Tensor]:
            path = tf.strings.join([self._root, all_paths[i]], separator="/")
            return {"image": tf.io.read_file(path), "label": all_labels[i], "name": all_paths[i]}

        return RandomAccess(labels, read)

    def num_bytes(self, slices: Sequence[Slice]) -> int:
        """Adds up the sizes of the files of some slices, which takes a while on a network."""
        return sum(
            tf.io.gfile.stat(f"{self._root}/{path}").length for path in self._paths_of(slices)
        )

    def example_name(self, slices: Sequence[Slice], index: int) -> str:
        """Returns the path of one example, counted in the stored order of `slices`."""
        return str(self._paths_of(slices)[index])

    def _paths_of(self, slices: Sequence[Slice]) -> np.ndarray:
        return np.concatenate([self._paths[split][a:b] for split, a, b in slices])


def _hash(path: str) -> bytes:
    return hashlib.blake2b(path.encode(), digest_size=16).digest()


def _scan(root: str) -> tuple[list[str], list[str]]:
    """Returns the paths of all images and of all other files below `root`, hidden ones ignored."""
    if not tf.io.gfile.isdir(root):
        problem = "is a file" if tf.io.gfile.exists(root) else "does not exist"
        raise errors.ArgumentError(
            "data_dir", root, f"{problem}; name a folder that holds {LAYOUTS}."
        )
    images, others = [], []
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            names = tf.io.gfile.listdir(posixpath.join(root, folder))
        except (tf.errors.OpError, OSError, UnicodeError) as error:
            raise errors.UserError(
                f"The folder {posixpath.join(root, folder)!r} cannot be read "
                f"({text.reason(error)}); fix its permissions or move it elsewhere."
            ) from error
        for name in sorted(name.rstrip("/") for name in names):
            path = posixpath.join(folder, name)
            if name.startswith("."):
                continue
            if name.lower().endswith(EXTENSIONS):  # Saves one access to the disk per image.
                images.append(path)
            elif tf.io.gfile.isdir(posixpath.join(root, path)):
                folders.append(path)
            else:
                others.append(path)
    return images, others


def _layout(root: str, images: list[str], others: list[str], *, seed: int) -> Layout:
    """Sorts the images into splits and classes by the folders that hold them."""
    by_depth = collections.defaultdict(list)
    for path in images:
        by_depth[path.count("/")].append(path)
    if not images:
        holds = f"it holds {_count(others)}" if others else "it is empty"
        raise errors.UserError(
            f"The folder {root!r} holds no images (JPEG, PNG, BMP or GIF), {holds}; "
            f"choose a folder that holds {LAYOUTS}."
        )
    if max(by_depth) > 2 or (0 in by_depth and len(by_depth) > 1):
        _refuse(root, "nests images too deep or at several depths", by_depth)
    if 0 in by_depth:
        splits, labels, notes = {"train": images}, dict[str, str](), list[str]()
    elif 2 in by_depth:
        splits, labels, notes = _splits_of_classes(root, by_depth)
    else:
        splits, labels, notes = _classes_or_splits(root, images, seed)
    if len(set(labels.values())) == 1:
        notes.append(f"All labels are {next(iter(labels.values()))!r}, so they are ignored.")
        labels = {}
    if others:
        notes.append(f"Skipped what is not a JPEG, PNG, BMP or GIF: {_count(others)}.")
    return Layout(splits, labels, tuple(notes))


def _count(files: list[str]) -> str:
    """Counts files and names some, as in "12 files (a.txt, b.txt, c.txt and 9 more)"."""
    plural = "s" if len(files) > 1 else ""
    return f"{len(files):,} file{plural} ({text.shortened(sorted(files))})"


def _refuse(root: str, problem: str, by_depth: dict[int, list[str]]) -> NoReturn:
    found = "; ".join(f"{len(paths):,} like {min(paths)}" for _, paths in sorted(by_depth.items()))
    raise errors.UserError(
        f"The folder {root!r} {problem} ({found}); rearrange it, or choose another folder, so "
        f"that it holds {LAYOUTS}."
    )


def _splits_of_classes(
    root: str, by_depth: dict[int, list[str]]
) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Reads split/class/*.jpg, which may have unlabelled splits, split/*.jpg, beside them."""
    labels = {path: path.split("/")[1] for path in by_depth[2]}
    splits = _by_top_folder(by_depth[2])
    unlabelled = _by_top_folder(by_depth.get(1, []))
    for split, paths in unlabelled.items():
        if split in splits or split.lower() not in SPLIT_NAMES:
            _refuse(root, f"mixes images and folders ({split}/ holds images itself)", by_depth)
        splits[split] = paths
    notes = [f"The split {s!r} has no class folders, so it is unlabelled." for s in unlabelled]
    classes = set(labels.values())
    for split in sorted(set(splits) - set(unlabelled)):
        missing = sorted(classes - {labels[path] for path in splits[split]})
        if missing:
            notes.append(
                f"The split {split!r} has no images of {len(missing):,} of {len(classes):,} "
                f"classes: {text.shortened(missing)}."
            )
    return splits, labels, notes


def _classes_or_splits(
    root: str, images: list[str], seed: int
) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Reads folder/*.jpg: unlabelled splits if all folders are named like splits, else classes."""
    folders = _by_top_folder(images)
    named_as_splits = sorted(name for name in folders if name.lower() in SPLIT_NAMES)
    if len(named_as_splits) == len(folders):
        return folders, {}, []
    if len(named_as_splits) > 1:  # A single one may well be a class, such as trains.
        others = sorted(set(folders) - set(named_as_splits))
        raise errors.UserError(
            f"The folder {root!r} holds both splits ({', '.join(named_as_splits)}) and what may be "
            f"classes ({text.shortened(others)}); rearrange it so that it holds {LAYOUTS}."
        )
    labels = {path: path.split("/")[0] for path in images}
    if len(folders) == 1:
        return {"train": images}, labels, []
    splits: dict[str, list[str]] = {"train": [], HELD_OUT: []}
    for paths in folders.values():
        paths = sorted(paths, key=lambda path: _hash(f"{seed}/{path}"))
        count = max(round(HELD_OUT_FRACTION * len(paths)), 1) if len(paths) > 1 else 0
        splits[HELD_OUT] += paths[:count]
        splits["train"] += paths[count:]
    note = (
        f"Held out {len(splits[HELD_OUT])} of {len(images)} images, a tenth of each class drawn "
        f"with seed {seed}, as the split {HELD_OUT!r}."
    )
    return {split: paths for split, paths in splits.items() if paths}, labels, [note]


def _by_top_folder(paths: list[str]) -> dict[str, list[str]]:
    folders = collections.defaultdict(list)
    for path in paths:
        folders[path.split("/")[0]].append(path)
    return dict(sorted(folders.items()))
