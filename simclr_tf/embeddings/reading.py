"""Reads a folder of embeddings: tables into memory, features mapped from disk."""

from __future__ import annotations

import dataclasses
import io
import os

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import tensorflow as tf

from simclr_tf import errors, paths, text
from simclr_tf.embeddings import manifest as manifest_lib
from simclr_tf.embeddings import shards


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """The embeddings of n images.

    Attributes:
        folder: the folder.
        manifest: what they are of.
        names: (n,) object, names of the images.
        labels: (n,) object, names of their classes, None where there is none.
        splits: (n,) object, their splits.
        content: (n,) int64, equal for equal encoded images.
        parts: the features of each shard, (n_i, f) float32, in the order of the images; mapped from
            a local disk, so that they take no memory until they are read.
    """

    folder: str
    manifest: manifest_lib.Manifest
    names: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    content: np.ndarray
    parts: tuple[np.ndarray, ...]

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Returns the features (r, f) of some images, given their numbers (r,)."""
        ends = np.cumsum([len(part) for part in self.parts])
        result = np.empty((len(rows), self.parts[0].shape[1]), np.float32)
        of_part = np.searchsorted(ends, rows, side="right")
        for number in np.unique(of_part):
            here = np.flatnonzero(of_part == number)
            start = ends[number] - len(self.parts[number])
            result[here] = self.parts[number][rows[here] - start]
        return result


def open_folder(folder: str) -> Embeddings:
    """Opens a folder of embeddings.

    Raises:
        UserError: if it does not hold embeddings, or they are not finished or damaged.
    """
    manifest = manifest_lib.read(folder)
    if manifest is None:
        problem = "has no manifest.json" if tf.io.gfile.isdir(folder) else "does not exist"
        raise errors.UserError(
            f"--embeddings={folder} {problem}; name a folder that --mode=embed has written."
        )
    if not manifest.is_complete:
        raise errors.UserError(
            f"--embeddings={folder} is not finished: it has {len(manifest.shards):,} of "
            f"{manifest.num_shards:,} shards; run the same --mode=embed again to finish it."
        )
    if not manifest.examples:
        raise errors.UserError(f"--embeddings={folder} has no images; embed more.")
    tables, parts = [], []
    for number, shard in manifest.shards.items():
        if not shard.files:
            continue
        if not shards.is_intact(folder, shard):
            raise _damaged(folder, shard.files[0].name, "a file is missing or has another size")
        tables.append(_table(folder, shards.table_name(number, manifest.num_shards)))
        parts.append(_array(folder, shards.array_name(number, manifest.num_shards, "features")))
    columns = pa.concat_tables(tables).to_pydict()
    return Embeddings(
        folder=folder,
        manifest=manifest,
        names=np.array(columns["name"], object),
        labels=np.array(columns["label"], object),
        splits=np.array(columns["split"], object),
        content=np.array(columns["content"], np.int64),
        parts=tuple(parts),
    )


def _table(folder: str, name: str) -> pa.Table:
    """Returns the columns of a shard without its outputs."""
    path = os.path.join(folder, name)
    columns = ["name", "label", "split", "content"]
    try:
        if paths.scheme(path) is None:
            return parquet.read_table(path, columns=columns)
        with tf.io.gfile.GFile(path, "rb") as file:
            return parquet.read_table(io.BytesIO(file.read()), columns=columns)
    except (pa.ArrowException, OSError, ValueError, tf.errors.OpError) as error:
        raise _damaged(folder, name, text.reason(error)) from error


def _array(folder: str, name: str) -> np.ndarray:
    """Returns an array, mapped from disk if it is local."""
    path = os.path.join(folder, name)
    try:
        if paths.scheme(path) is None:
            return np.load(path, mmap_mode="r")
        with tf.io.gfile.GFile(path, "rb") as file:
            return np.load(io.BytesIO(file.read()))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise _damaged(folder, name, text.reason(error)) from error


def _damaged(folder: str, name: str, problem: str) -> errors.UserError:
    return errors.UserError(
        f"{folder}/{name} is damaged ({problem}); run the same --mode=embed again, which writes "
        "that shard again."
    )
