"""Data sets in formats that only tensorflow-datasets reads, such as Riegeli."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf.data import folder, records


class OtherRecords(records.Records):
    """Streams the images of files in a format that tensorflow-datasets must read."""

    def __init__(self, builder: tfds.core.DatasetBuilder, parser: records.Parser) -> None:
        """Creates the reader."""
        super().__init__(builder.info.splits, records.files_of(builder.info), parser.select)
        self._builder, self._decoding = builder, parser.decoding

    def _stream(self, slices: Sequence[folder.Slice], order_seed: tf.Tensor | None) -> Any:
        """Streams (name of the file, index in it, parsed example)."""
        del order_seed  # Files are read in the stored order.
        config = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
        split = "+".join(f"{name}[{start}:{stop}]" for name, start, stop in slices)
        with tf.init_scope():
            dataset = self._builder.as_dataset(
                split=split, decoders=self._decoding, read_config=config
            )
        files = self._files_of(slices)
        names = tf.constant([file.name for file in files])
        ends = tf.cumsum(tf.constant([file.take for file in files], tf.int64))
        # What is added to a position in the stream to get that in the file.
        offsets = tf.constant([file.skip + file.take for file in files], tf.int64) - ends

        def located(position: tf.Tensor, example: Any) -> tuple[tf.Tensor, tf.Tensor, Any]:
            number = tf.searchsorted(ends, position[tf.newaxis], side="right")[0]
            return names[number], position + offsets[number], example

        return dataset.enumerate().map(located)

    def _positions(self, slices: Sequence[folder.Slice], order_seed: tf.Tensor) -> tf.data.Dataset:
        del order_seed
        return tf.data.Dataset.range(sum(stop - start for _, start, stop in slices))
