"""Writes shards of embeddings: one Parquet file, and one .npy file for each output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import hashlib
import io
import os

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import tensorflow as tf

from simclr_tf import storage
from simclr_tf.embeddings import manifest as manifest_lib


def stem(number: int, count: int) -> str:
    """Returns the beginning of the names of the files of a shard."""
    return f"part-{number:05d}-of-{count:05d}"


def table_name(number: int, count: int) -> str:
    """Returns the name of the Parquet file of a shard."""
    return f"{stem(number, count)}.parquet"


def array_name(number: int, count: int, output: str) -> str:
    """Returns the name of the .npy file of an output."""
    return f"{stem(number, count)}.{output}.npy"


def write(
    folder: str,
    number: int,
    count: int,
    *,
    names: Sequence[str],
    labels: Sequence[str | None],
    lists: Mapping[str, Sequence[Sequence[str]]],
    split: str,
    content: np.ndarray,
    outputs: Mapping[str, np.ndarray],
) -> tuple[manifest_lib.File, ...]:
    """Writes the files of a shard, each atomically.

    Args:
        folder: the folder of embeddings.
        number: number of the shard.
        count: number of all shards.
        names: (n,) names of the images.
        labels: (n,) names of their classes, None where there is none.
        lists: name of a column -> (n,) lists of names of classes, of images that may have several;
            empty of images that have one.
        split: their split.
        content: (n,) int64, equal for equal encoded images.
        outputs: name of an output -> (n, w) float32.

    Returns:
        The files.

    Raises:
        UserError: if a file cannot be written.
    """
    columns = {
        "name": pa.array(names, pa.string()),
        "label": pa.array(labels, pa.string()),
        **{name: pa.array(of_images, pa.list_(pa.string())) for name, of_images in lists.items()},
        "split": pa.array([split] * len(names), pa.string()),
        "content": pa.array(content, pa.int64()),
    }
    for output, values in outputs.items():
        flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
        columns[output] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer)
    files = [_write(folder, table_name(number, count), buffer.getvalue())]
    for output, values in outputs.items():
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(values, np.float32))
        files.append(_write(folder, array_name(number, count, output), buffer.getvalue()))
    return tuple(files)


def _write(folder: str, name: str, data: bytes) -> manifest_lib.File:
    storage.replace(os.path.join(folder, name), data)
    return manifest_lib.File(name, len(data), hashlib.sha256(data).hexdigest())


def is_intact(folder: str, shard: manifest_lib.Shard) -> bool:
    """Returns whether the files of a finished shard have their sizes."""
    try:
        return all(
            tf.io.gfile.stat(os.path.join(folder, file.name)).length == file.size
            for file in shard.files
        )
    except tf.errors.OpError:
        return False
