"""A person's own folder of images, as a builder of tensorflow-datasets.

What the folder may hold, and what becomes of it:

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
from typing import Any, NamedTuple, NoReturn

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf import errors
from simclr_tf.data import decode

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
HELD_OUT = "validation"
HELD_OUT_SHARE = 0.1
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


class ByNumber(NamedTuple):
    """Examples that can be read in any order."""

    labels: np.ndarray  # (n,) int64, -1 where an example has none or is not to be used
    read: Callable[[tf.Tensor], dict[str, tf.Tensor]]  # number () -> the example


class ImageFolder(
    tfds.core.DatasetBuilder,
    skip_registration=True,  # type: ignore[call-arg]  # mypy does not see tensorflow-datasets
):
    """Builder of a folder of images, which are read where they lie.

    Within a split the stored order is by a hash of the path: slices such as `train[:10%]` are a
    fair sample of the classes, and adding a file moves no other.

    Attributes:
        notes: sentences to tell the user: what was held out, which files are no images.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, root: str, *, seed: int) -> None:
        """Lists the folder.

        Args:
            root: the folder; a path that TensorFlow can read, gs:// included.
            seed: draws the held-out split, where one has to be made.

        Raises:
            errors.UserError: if it is missing, holds no images, or holds them in another layout.
        """
        root = os.path.expanduser(root)
        layout = _layout(root, *_scan(root), seed=seed)
        self._class_names = sorted(set(layout.labels.values()))
        super().__init__(data_dir=root)
        self._data_dir = root  # nothing is prepared: the images stay here
        self.notes = layout.notes
        number = {name: i for i, name in enumerate(self._class_names)}
        self._paths, self._labels = {}, {}
        for split, paths in layout.splits.items():
            paths = sorted(paths, key=_hash)
            labels = [number[layout.labels[p]] if p in layout.labels else -1 for p in paths]
            self._paths[split] = np.array(paths, object)
            self._labels[split] = np.array(labels, np.int64)
        self.split_infos = tfds.core.SplitDict(
            tfds.core.SplitInfo(name=split, shard_lengths=[len(paths)], num_bytes=0)
            for split, paths in self._paths.items()
        )
        self.info.set_splits(self.split_infos)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(), "name": tfds.features.Text()}
        if self._class_names:
            features["label"] = tfds.features.ClassLabel(names=self._class_names)
        return tfds.core.DatasetInfo(
            builder=self,
            description="A folder of images.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label") if self._class_names else None,
        )

    def _download_and_prepare(self, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("An image folder is read where it lies; nothing is prepared.")

    def examples(
        self, slices: Sequence[Slice], *, order_seed: tf.Tensor | None = None
    ) -> tf.data.Dataset:
        """Streams the encoded images of some slices once; `sources.Source.examples` has the terms.

        Paths are shuffled, not pixels, so the shuffle is a full one and costs no memory.
        """
        labels, read = self.by_number(slices)
        order = tf.range(len(labels))
        if order_seed is not None:
            keys = tf.random.stateless_uniform(
                labels.shape, order_seed, None, None, tf.int64, alg="philox"
            )
            order = tf.argsort(keys, stable=True)
        dataset = tf.data.Dataset.from_tensor_slices(order)
        return dataset.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def by_number(self, slices: Sequence[Slice], *, left_out: Sequence[str] = ()) -> ByNumber:
        """Returns the examples of some slices by number; those left out have label -1."""
        paths = np.concatenate([self._paths[s][a:b] for s, a, b in slices])
        labels = np.concatenate([self._labels[s][a:b] for s, a, b in slices])
        labels = np.where(np.isin(paths, list(left_out)), -1, labels)
        with tf.init_scope():  # captured from outside; as constants they would swell the graph
            all_paths, all_labels = tf.constant(paths), tf.constant(labels)

        def read(i: tf.Tensor) -> dict[str, tf.Tensor]:
            path = tf.strings.join([self._data_dir, all_paths[i]], separator="/")
            return {"image": tf.io.read_file(path), "label": all_labels[i], "name": all_paths[i]}

        return ByNumber(labels, read)

    def num_bytes(self, slices: Sequence[Slice]) -> int:
        """Adds up the sizes of the files of some slices, which takes a while on a network."""
        paths = [path for split, a, b in slices for path in self._paths[split][a:b]]
        return sum(tf.io.gfile.stat(f"{self._data_dir}/{path}").length for path in paths)

    def example_name(self, slices: Sequence[Slice], index: int) -> str:
        """Returns the path of one example, counted in the stored order of `slices`."""
        return np.concatenate([self._paths[split][a:b] for split, a, b in slices])[index]

    def _as_dataset(
        self,
        split: Any,
        decoders: Any = None,
        read_config: tfds.ReadConfig | None = None,
        shuffle_files: bool = False,
    ) -> tf.data.Dataset:
        """Serves `as_dataset` of tensorflow-datasets; images come decoded."""
        slices = [
            (s.splitname, s.from_ or 0, len(self._paths[s.splitname]) if s.to is None else s.to)
            for s in tfds.core.ReadInstruction.from_spec(split).to_absolute(self.split_infos)
        ]
        seed = getattr(read_config, "shuffle_seed", None) or 0
        dataset = self.examples(
            slices, order_seed=tf.constant([seed, 0]) if shuffle_files else None
        )
        decoders = {"image": _decode_rgb(), **(decoders or {})}

        def decoded(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            kept = {key: example[key] for key in self.info.features}
            return self.info.features.decode_example(kept, decoders=decoders)

        return dataset.map(decoded, num_parallel_calls=tf.data.AUTOTUNE)


@tfds.decode.make_decoder()
def _decode_rgb(encoded: tf.Tensor, feature: Any) -> tf.Tensor:
    del feature  # tensorflow-datasets' own way of decoding fails on GIF and palettes of BMP
    return decode.decode_image(encoded)


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _scan(root: str) -> tuple[list[str], list[str]]:
    """Returns the paths of all images and of all other files below `root`, hidden ones ignored."""
    if not tf.io.gfile.isdir(root):
        kind = "is a file" if tf.io.gfile.exists(root) else "does not exist"
        raise errors.UserError(
            f"The image folder {root!r} {kind}; set --data_dir to a folder that holds {LAYOUTS}."
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
                f"({_reason(error)}); mend its permissions or move it away."
            ) from error
        for name in sorted(name.rstrip("/") for name in names):
            path = posixpath.join(folder, name)
            if name.startswith("."):
                continue
            if name.lower().endswith(EXTENSIONS):  # spares a look at the disk per image
                images.append(path)
            elif tf.io.gfile.isdir(posixpath.join(root, path)):
                folders.append(path)
            else:
                others.append(path)
    return images, others


def _reason(error: Exception) -> str:
    return str(getattr(error, "message", None) or error).strip().splitlines()[0]


def _layout(root: str, images: list[str], others: list[str], *, seed: int) -> Layout:
    """Sorts the images into splits and classes by the folders they lie in."""
    by_depth = collections.defaultdict(list)
    for path in images:
        by_depth[path.count("/")].append(path)
    if not images:
        holds = f"it holds {_some(others)}" if others else "it is empty"
        raise errors.UserError(
            f"The folder {root!r} holds no images (JPEG, PNG, BMP or GIF), {holds}; "
            f"set --data_dir to a folder that holds {LAYOUTS}."
        )
    if max(by_depth) > 2 or (0 in by_depth and len(by_depth) > 1):
        _refuse(root, "nests images at several depths or too deep", by_depth)
    if 0 in by_depth:
        splits, labels, notes = {"train": images}, dict[str, str](), list[str]()
    elif 2 in by_depth:
        splits, labels, notes = _splits_of_classes(root, by_depth)
    else:
        splits, labels, notes = _classes_or_splits(root, images, seed)
    if len(set(labels.values())) == 1:
        notes.append(f"All labels are {next(iter(labels.values()))!r}, so they are left out.")
        labels = {}
    if others:
        notes.append(f"Skipped what is no JPEG, PNG, BMP or GIF: {_some(others)}.")
    return Layout(splits, labels, tuple(notes))


def _some(files: list[str]) -> str:
    """Returns for example "12 files (a.txt, b.txt, c.txt, ...)"."""
    files = sorted(files)
    names = ", ".join(files[:3]) + (", ..." if len(files) > 3 else "")
    return f"{len(files)} file{'s' if len(files) > 1 else ''} ({names})"


def _refuse(root: str, what: str, by_depth: dict[int, list[str]]) -> NoReturn:
    found = "; ".join(f"{len(paths)} like {min(paths)}" for _, paths in sorted(by_depth.items()))
    raise errors.UserError(
        f"The folder {root!r} {what} ({found}); rearrange it, or set --data_dir to a folder, "
        f"so that it holds {LAYOUTS}."
    )


def _splits_of_classes(
    root: str, by_depth: dict[int, list[str]]
) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Reads split/class/*.jpg, beside which unlabelled splits, split/*.jpg, may lie."""
    labels = {path: path.split("/")[1] for path in by_depth[2]}
    splits = _by_top_folder(by_depth[2])
    unlabelled = _by_top_folder(by_depth.get(1, []))
    for split, paths in unlabelled.items():
        if split in splits or split.lower() not in SPLIT_NAMES:
            _refuse(root, f"mixes images and folders ({split}/ holds images itself)", by_depth)
        splits[split] = paths
    notes = [f"The split {s!r} has no class folders, so no labels." for s in unlabelled]
    classes = set(labels.values())
    for split in sorted(set(splits) - set(unlabelled)):
        missing = sorted(classes - {labels[path] for path in splits[split]})
        if missing:
            notes.append(
                f"The split {split!r} has no images of {len(missing)} of {len(classes)} classes: "
                f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}."
            )
    return splits, labels, notes


def _classes_or_splits(
    root: str, images: list[str], seed: int
) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Reads folder/*.jpg: unlabelled splits if all folders are named so, else classes."""
    folders = _by_top_folder(images)
    named_as_splits = sorted(name for name in folders if name.lower() in SPLIT_NAMES)
    if len(named_as_splits) == len(folders):
        return folders, {}, []
    if len(named_as_splits) > 1:  # a single one may well be a class, such as trains
        others = sorted(set(folders) - set(named_as_splits))
        raise errors.UserError(
            f"The folder {root!r} holds both splits ({', '.join(named_as_splits)}) and what may be "
            f"classes ({', '.join(others[:3])}); rearrange it so that it holds {LAYOUTS}."
        )
    labels = {path: path.split("/")[0] for path in images}
    if len(folders) == 1:
        return {"train": images}, labels, []
    splits: dict[str, list[str]] = {"train": [], HELD_OUT: []}
    for paths in folders.values():
        paths = sorted(paths, key=lambda path: _hash(f"{seed}/{path}"))
        count = max(round(HELD_OUT_SHARE * len(paths)), 1) if len(paths) > 1 else 0
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
