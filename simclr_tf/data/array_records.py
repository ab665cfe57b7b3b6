"""Reads the ArrayRecord files of a prepared tensorflow-datasets data set, in any order.

TensorFlow has no reader of this format, so a function of Python reads the records. The workers of a
tf.data service cannot call it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import importlib
import importlib.util
import os
import re
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import errors
from simclr_tf.data import folder, records

_PACKAGE = "array_record"
# What messages about records that cannot be read contain, also within those of TensorFlow.
_PROBLEM = "an ArrayRecord file cannot be read: "


class ArrayRecords:
    """The encoded images of a prepared data set, with random access; see `readers.Reader`."""

    def __init__(self, dataset: str, info: Any, parser: records.Parser) -> None:
        """Creates the reader; files are opened when they are first read.

        Args:
            dataset: name of the data set, for messages.
            info: what tensorflow-datasets knows about it.
            parser: the parser of its records.

        Raises:
            errors.UserError: if the package that reads the format is missing.
        """
        if importlib.util.find_spec(_PACKAGE) is None:
            raise errors.UserError(
                f"The data set {dataset!r} is stored in the format ArrayRecord, which the package "
                f"{_PACKAGE} reads, and that is not installed; install it, or prepare the data set "
                "as tfrecord in another data directory."
            )
        self.split_infos = info.splits
        self._files_of, self._parse = records.files_of(info), parser.parse
        # The records of all splits are numbered one after another.
        self._starts, self._count = dict[str, int](), 0
        for name, split in info.splits.items():
            self._starts[str(name)] = self._count
            self._count += split.num_examples
        files = [file for split in info.splits.values() for file in split.file_instructions]
        self._names = [os.path.basename(file.filename) for file in files]
        self._ends = np.cumsum([file.take for file in files])
        package = importlib.import_module(f"{_PACKAGE}.python.array_record_data_source")
        self._records = package.ArrayRecordDataSource(files)

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
        """Returns the examples of some slices; their labels are stored with the images."""
        keys = np.concatenate([np.arange(a, b) + self._starts[name] for name, a, b in slices])
        is_excluded = np.zeros(len(keys), bool)
        if excluded:  # A name is made of a key, which takes time for a million.
            is_excluded = folder.are_excluded([self._name(key) for key in keys], excluded)
        with tf.init_scope():  # Captured from outside; as constants they would enlarge the graph.
            all_keys = tf.constant(keys, tf.int64)

        def read(i: tf.Tensor) -> dict[str, tf.Tensor]:
            outputs = tf.numpy_function(self._read, [all_keys[i]], [tf.string, tf.string])
            record, name = (tf.ensure_shape(output, []) for output in outputs)
            return {**self._parse(record), "name": name}

        return folder.RandomAccess(lambda i: self._name(keys[i]), None, is_excluded, read)

    def positions(self, slices: Sequence[folder.Slice], order_seed: tf.Tensor) -> tf.data.Dataset:
        """Streams the positions of all examples in an order; see `readers.Reader.positions`."""
        return folder.positions(sum(stop - start for _, start, stop in slices), order_seed)

    def num_bytes(self, slices: Sequence[folder.Slice]) -> int:
        """Estimates the bytes of some slices from those of the whole splits."""
        return records.bytes_of(self.split_infos, slices)

    def example_name(self, slices: Sequence[folder.Slice], index: int) -> str:
        """Returns "FILE[RECORD]" of one example, counted in the stored order of `slices`."""
        return records.name_of(self._files_of(slices), index)

    def example_names(self, slices: Sequence[folder.Slice]) -> Iterable[str]:
        """Returns "FILE[RECORD]" of all examples, in the stored order of `slices`."""
        return records.names_of(self._files_of(slices))

    def _name(self, key: int) -> str:
        """Returns "FILE[RECORD]" of a record."""
        file = int(np.searchsorted(self._ends, key, side="right"))
        start = self._ends[file - 1] if file else 0
        return f"{self._names[file]}[{key - start}]"

    def _read(self, key: np.ndarray) -> tuple[bytes, bytes]:
        """Returns a record and its name."""
        try:
            return self._records[int(key)], self._name(int(key)).encode()
        except Exception as error:  # The package raises RuntimeError for whatever is wrong.
            raise tf.errors.DataLossError(None, None, f"{_PROBLEM}{error}") from error


def why_unread(error: tf.errors.OpError) -> str | None:
    """Returns why an ArrayRecord file could not be read; None for other errors."""
    line = re.search(f"{_PROBLEM}(.+)", str(error))
    return line[1].rstrip(".") if line else None
