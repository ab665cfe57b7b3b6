"""Opens data sets of tensorflow-datasets: finds their builder, and the reader of their files."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf import errors, text
from simclr_tf.data import (
    array_records,
    label_origin,
    other_records,
    preparation,
    readers,
    records,
)


def reader_of(dataset: str, builder: Any, parser: records.Parser) -> readers.Reader:
    """Returns the reader of the file format of a data set."""
    info = builder.info
    if info.file_format == tfds.core.FileFormat.TFRECORD:
        return records.Records(info.splits, records.files_of(info), parser.parse)
    if info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        return array_records.ArrayRecords(dataset, info, parser)
    return other_records.OtherRecords(builder, parser)


def find(dataset: str, data_dir: str | None) -> Any:
    """Returns the builder, from tensorflow-datasets' code or from the prepared files alone."""
    try:
        return tfds.builder(dataset, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise _not_found(dataset, data_dir) from error
    except Exception as error:  # A wrong name, version or configuration may raise anything.
        reason = preparation.reason(error)
        if reason.startswith("Parsing builder name"):
            raise _not_found(dataset, data_dir) from error
        raise errors.ArgumentError(
            "dataset",
            dataset,
            f"cannot be opened ({reason}); check its name, version and configuration, and the "
            "data directory.",
        ) from error


def _not_found(dataset: str, data_dir: str | None) -> errors.ArgumentError:
    """Returns the error for a name that is neither known nor prepared."""
    # Community data sets are not among them, because listing them takes network access.
    known = {label_origin.IMAGE_FOLDER, *tfds.list_builders(with_community_datasets=False)}
    problem = "is unknown to tensorflow-datasets"
    if data_dir:
        try:
            prepared = tf.io.gfile.listdir(data_dir)
            known |= {name.rstrip("/") for name in prepared if "." not in name}
            problem += f" and not prepared in {data_dir!r}"
        except (tf.errors.OpError, OSError):
            problem += f", and {data_dir!r} is not a readable folder"
    return errors.ArgumentError(
        "dataset",
        dataset,
        f"{problem}{text.suggestion(dataset, known)}; check the name and the "
        f"data directory, or use {label_origin.IMAGE_FOLDER} for a folder of your own images.",
    )
