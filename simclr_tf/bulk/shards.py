"""Finished shards: a Parquet file each, and a CSV file of the images that could not be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import io
import json
import os
from typing import Any
import uuid

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import tensorflow as tf

from simclr_tf import errors, paths, storage

FORMAT = 1
# Key of the metadata in a Parquet file.
_KEY = b"simclr_tf.bulk"
PARTIAL = ".partial"
# What must not differ between a finished shard and the one to compute, with its name in messages.
_IDENTITY = {
    "format": "the version of the format",
    "model": "the fingerprint of the SavedModel",
    "inputs": "the images",
    "outputs": "the outputs",
    "batch_size": "--batch_size",
}


@dataclasses.dataclass(frozen=True)
class Result:
    """What was computed for a shard.

    Attributes:
        number: its number.
        ids: (n,) names of the images that could be used.
        outputs: name of an output -> (n, w) float32.
        unreadable: (name, reason) of each image that could not be used.
        identity: what the result depends on; see `identity`.
    """

    number: int
    ids: Sequence[str]
    outputs: Mapping[str, np.ndarray]
    unreadable: Sequence[tuple[str, str]]
    identity: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Finished:
    """What the metadata of a finished shard say.

    Attributes:
        identity: what the result depends on.
        rows: number of the images that could be used.
        unreadable: number of the others.
    """

    identity: Mapping[str, Any]
    rows: int
    unreadable: int


def identity(model: str, inputs: str, outputs: Mapping[str, int], batch_size: int) -> dict:
    """Returns what the result of a shard depends on.

    Args:
        model: fingerprint of the SavedModel.
        inputs: hash of the images of the shard.
        outputs: name of an output -> its width.
        batch_size: images in a batch.
    """
    return {
        "format": FORMAT,
        "model": model,
        "inputs": inputs,
        "outputs": dict(outputs),
        "batch_size": batch_size,
    }


def table_name(number: int, count: int) -> str:
    """Returns the name of the Parquet file of a shard."""
    return f"part-{number:05d}-of-{count:05d}.parquet"


def unreadable_name(number: int, count: int) -> str:
    """Returns the name of the CSV file of a shard."""
    return f"unreadable-{number:05d}-of-{count:05d}.csv"


def write(folder: str, count: int, result: Result) -> None:
    """Writes a shard. The Parquet file is written last: where it is, the shard is finished.

    Args:
        folder: the folder of the output.
        count: number of all shards.
        result: what was computed.

    Raises:
        UserError: if a file cannot be written.
    """
    listed = os.path.join(folder, unreadable_name(result.number, count))
    if result.unreadable:
        buffer = io.StringIO()
        rows = csv.writer(buffer, lineterminator="\n")
        rows.writerow(("id", "reason"))
        rows.writerows(result.unreadable)
        _replace(listed, buffer.getvalue().encode())
    elif tf.io.gfile.exists(listed):  # Of an earlier attempt.
        tf.io.gfile.remove(listed)
    columns = {"id": pa.array(result.ids, pa.string())}
    for name, values in result.outputs.items():
        flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    metadata = {**result.identity, "unreadable": len(result.unreadable)}
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(metadata)})
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    _replace(os.path.join(folder, table_name(result.number, count)), stream.getvalue())


def _replace(path: str, content: bytes) -> None:
    # A runner may compute a shard twice at the same time, so each attempt has a name of its own.
    storage.replace(path, content, partial=f".{uuid.uuid4().hex}{PARTIAL}")


def read(folder: str, number: int, count: int) -> Finished | None:
    """Reads the metadata of a shard; returns None if it is damaged or not of this program.

    Raises:
        UserError: if it cannot be read.
    """
    path = os.path.join(folder, table_name(number, count))
    source = path if paths.scheme(path) is None else io.BytesIO(storage.read_bytes(path))
    try:
        found = parquet.read_metadata(source)
        stored = json.loads((found.metadata or {})[_KEY])
        return Finished(
            {name: stored[name] for name in _IDENTITY}, found.num_rows, stored["unreadable"]
        )
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return None


def check_same(wanted: Mapping[str, Any], stored: Mapping[str, Any], path: str) -> None:
    """Refuses results that depend on something else.

    Args:
        wanted: what the results to compute depend on.
        stored: what those depend on that are there.
        path: the file that has them.

    Raises:
        UserError: naming what differs.
    """
    differing = [what for name, what in _IDENTITY.items() if wanted[name] != stored.get(name)]
    if differing:
        raise errors.UserError(
            f"{path} is of another extraction: different are {', '.join(differing)}; name another "
            "--output, or delete that folder."
        )
