"""Data sets in one .npz or .npy file: all images of a split in one array.

What the arrays of a .npz file are called says what they are:

  train_images, train_labels, val_images, ...    splits, with labels
  x_train, y_train, x_test, ...                  the same
  images, labels; or x, y                        one split, `train`

A .npy file is one split without labels. It is mapped, and a .npz file is read into memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import io
import re
import zipfile

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf import errors, pixel_format, text
from simclr_tf.data import folder

PREFIX = "array:"
_NAMES = (
    r"(?:(?P<split>\w+)_)?(?P<what>images|labels)",
    r"(?P<what>[xy])(?:_(?P<split>\w+))?",
)
_LABELS = ("labels", "y")


class Arrays:
    """The images of a file, see `readers.Reader`.

    Attributes:
        class_names: names of the classes; None without labels.
        labelled_splits: the splits with labels.
        pixels: what the images hold.
        image_shape: their height and width.
        split_infos: name of a split -> tfds.core.SplitInfo.
    """

    def __init__(self, path: str) -> None:
        """Opens a file.

        Args:
            path: a local file.

        Raises:
            ArgumentError: if it has no images, or they differ.
        """
        images, labels = _sorted(path, _load(path))
        self._images = {split: _checked(path, split, array) for split, array in images.items()}
        kinds = {(one.shape[1:], one.dtype.name) for one in self._images.values()}
        if len(kinds) > 1:
            found = text.shortened(sorted(f"{shape} of {dtype}" for shape, dtype in kinds))
            raise _refusal(path, f"has splits of different images ({found})")
        ((shape, dtype),) = kinds
        self.pixels = pixel_format.of_dtype(shape[2], dtype)
        self.image_shape = (shape[0], shape[1])
        flat = {split: _flat(path, split, labels[split], self._images[split]) for split in labels}
        values = sorted({value for one in flat.values() for value in one.tolist()})
        self.class_names = tuple(map(str, values)) or None
        self.labelled_splits = frozenset(flat)
        number = {value: index for index, value in enumerate(values)}
        self._labels = {
            split: np.array([number[value] for value in flat[split].tolist()], np.int64)
            if split in flat
            else np.full(len(array), -1, np.int64)
            for split, array in self._images.items()
        }
        self.split_infos = tfds.core.SplitDict(
            tfds.core.SplitInfo(name=split, shard_lengths=[len(array)], num_bytes=array.nbytes)
            for split, array in self._images.items()
        )

    def examples(
        self,
        slices: Sequence[folder.Slice],
        *,
        order_seed: tf.Tensor | None = None,
        excluded: Sequence[str] = (),
    ) -> tf.data.Dataset:
        """Streams the examples of some slices once; see `sources.Source.examples`."""
        return folder.stream(self.random_access(slices, excluded=excluded), order_seed)

    def random_access(
        self, slices: Sequence[folder.Slice], *, excluded: Sequence[str] = ()
    ) -> folder.RandomAccess:
        """Returns the examples of some slices; those excluded have label -1."""
        names = list(self.example_names(slices))
        rows = [(split, row) for split, start, stop in slices for row in range(start, stop)]
        is_excluded = folder.are_excluded(names, excluded)
        labels = np.concatenate([self._labels[split][a:b] for split, a, b in slices])
        labels = np.where(is_excluded, -1, labels)
        with tf.init_scope():  # Captured from outside; as constants they would enlarge the graph.
            all_names, all_labels = tf.constant(names), tf.constant(labels)

        def content(index: np.ndarray) -> np.ndarray:
            split, row = rows[int(index)]
            return np.array(_encoded(self._images[split][row]), object)

        def read(i: tf.Tensor) -> dict[str, tf.Tensor]:
            if tf.executing_eagerly():  # Then numpy_function would drop zeros at its end.
                image = tf.constant(content(i.numpy()).item())
            else:
                image = tf.ensure_shape(tf.numpy_function(content, [i], tf.string), [])
            return {"image": image, "label": all_labels[i], "name": all_names[i]}

        return folder.RandomAccess(lambda i: names[i], labels, is_excluded, read)

    def positions(self, slices: Sequence[folder.Slice], order_seed: tf.Tensor) -> tf.data.Dataset:
        """Streams the positions of all examples in an order; see `readers.Reader.positions`."""
        return folder.positions(sum(stop - start for _, start, stop in slices), order_seed)

    def num_bytes(self, slices: Sequence[folder.Slice]) -> int:
        """Returns the bytes of the images of some slices."""
        return sum(self._images[split][a:b].nbytes for split, a, b in slices)

    def example_name(self, slices: Sequence[folder.Slice], index: int) -> str:
        """Returns "SPLIT[ROW]" of one example, counted in the stored order of `slices`."""
        return list(self.example_names(slices))[index]

    def example_names(self, slices: Sequence[folder.Slice]) -> Iterable[str]:
        """Yields "SPLIT[ROW]" of all examples, in the stored order of `slices`."""
        for split, start, stop in slices:
            yield from (f"{split}[{row}]" for row in range(start, stop))


def _load(path: str) -> Mapping[str, np.ndarray]:
    """Returns the arrays of a file by their names."""
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"images": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise _refusal(path, "does not exist") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _refusal(path, f"cannot be read as .npz or .npy ({text.reason(error)})") from error


def _sorted(
    path: str, arrays: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the images and the labels of each split."""
    images: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        match = next(filter(None, (re.fullmatch(one, name) for one in _NAMES)), None)
        if match is not None:
            of_split = labels if match["what"] in _LABELS else images
            of_split[match["split"] or "train"] = array
    if not images:
        has = text.shortened(list(arrays)) or "nothing"
        raise _refusal(path, f"has no images but {has}; call them train_images and train_labels")
    return images, {split: array for split, array in labels.items() if split in images}


def _checked(path: str, split: str, array: np.ndarray) -> np.ndarray:
    """Returns images (n, h, w, c) of one of the types that are kept."""
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim != 4 or 0 in array.shape:
        raise _refusal(
            path,
            f"has {split} images of the shape {array.shape}; they must be images, height, width "
            "and channels, or the channels before the height",
        )
    if array.shape[1] < array.shape[3]:
        array = np.moveaxis(array, 1, -1)
    dtype = pixel_format.natural_dtype(array.dtype.name)
    if dtype is None:
        raise _refusal(path, f"has {split} images of the type {array.dtype}")
    return array if array.dtype == dtype else array.astype(dtype)


def _flat(path: str, split: str, labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Returns labels (n,)."""
    if labels.shape not in ((len(images),), (len(images), 1)) or labels.dtype.kind not in "iuU":
        raise _refusal(
            path,
            f"has {split} labels of the shape {labels.shape} and the type {labels.dtype} for "
            f"{len(images):,} images; they must be one whole number or name per image",
        )
    return labels.reshape(-1)


def _encoded(image: np.ndarray) -> bytes:
    """Returns the content of a file of an image: PNG of 8-bit RGB, else .npy."""
    if image.dtype == np.uint8 and image.shape[2] == pixel_format.RGB.channels:
        return tf.io.encode_png(np.ascontiguousarray(image), compression=0).numpy()
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(image))
    return content.getvalue()


def _refusal(path: str, problem: str) -> errors.ArgumentError:
    return errors.ArgumentError("dataset", f"{PREFIX}{path}", f"{problem}.")
