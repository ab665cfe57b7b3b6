"""Reads record files in an order set by a seed, above all those of tensorflow-datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import itertools
import os
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf import pixel_format
from simclr_tf.data import folder, indicators, membership, random, record_keys

_SHUFFLE_BYTES = 256 * 2**20
_SHUFFLE_EXAMPLES = 1024
_UNKNOWN_EXAMPLE_BYTES = (
    100 * 2**10
)  # for data sets that do not record it: about a photo of ImageNet
_FILES_AT_ONCE = 16
_READ_BYTES = 8 * 2**20  # few long reads, for disks across a network


class File(NamedTuple):
    """Some consecutive records of a file.

    Attributes:
        filename: path of the file.
        name: name of the file in messages.
        skip: number of records before them.
        take: number of records.
    """

    filename: str
    name: str
    skip: int
    take: int


# From slices of splits to the records that they consist of.
FilesOf = Callable[[Sequence[folder.Slice]], list[File]]


class Records:
    """Streams the encoded images of TFRecord files.

    Record files are shuffled, sixteen are read in turn, and their records pass through a shuffle
    buffer of 256 MiB. A data set that fits the buffer is shuffled fully.
    """

    def __init__(
        self,
        split_infos: Mapping[str, Any],
        files_of: FilesOf,
        parse: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    ) -> None:
        """Creates the reader.

        Args:
            split_infos: name of a split -> tfds.core.SplitInfo.
            files_of: function: slices of splits -> the records that they consist of.
            parse: function: a record -> {"image": () string, encoded, "label": () int64; (c,) of
                images with several labels}.
        """
        self.split_infos = split_infos
        self._files_of, self._parse = files_of, parse

    def examples(
        self,
        slices: Sequence[folder.Slice],
        *,
        order_seed: tf.Tensor | None = None,
        excluded: Sequence[str] = (),
    ) -> tf.data.Dataset:
        """Streams the examples of some slices once; see `sources.Source.examples`."""
        examples = self._examples(slices, order_seed)
        if excluded:
            is_excluded = membership.is_among(excluded)
            examples = examples.filter(lambda example: ~is_excluded(example["name"]))
        return examples

    def _examples(
        self, slices: Sequence[folder.Slice], order_seed: tf.Tensor | None
    ) -> tf.data.Dataset:
        if order_seed is None:
            return _map(self._stream(slices, None), self._finish)

        def shuffled(seed: tf.Tensor) -> tf.data.Dataset:
            return self._shuffled(self._stream(slices, seed), slices, seed)

        return _map(tf.data.Dataset.from_tensors(order_seed).flat_map(shuffled), self._finish)

    def _shuffled(
        self, dataset: tf.data.Dataset, slices: Sequence[folder.Slice], seed: tf.Tensor
    ) -> tf.data.Dataset:
        """Passes a data set through the shuffle buffer, inside a graph."""
        # tf.data mixes the global seed into a shuffle, and fails if it is 0. Within a graph,
        # `set_random_seed` sets the seed of that graph alone.
        tf.compat.v1.set_random_seed(1)
        folded = tf.random.stateless_uniform((), seed, 1, 2**31 - 1, tf.int64, alg=random.PHILOX)
        buffer = self.shuffle_buffer(slices)
        return dataset.shuffle(buffer, seed=folded, reshuffle_each_iteration=False)

    def positions(self, slices: Sequence[folder.Slice], order_seed: tf.Tensor) -> tf.data.Dataset:
        """Streams the positions of all examples in an order; see `readers.Reader.positions`."""

        def shuffled(seed: tf.Tensor) -> tf.data.Dataset:
            return self._shuffled(self._positions(slices, seed), slices, seed)

        return tf.data.Dataset.from_tensors(order_seed).flat_map(shuffled)

    def num_bytes(self, slices: Sequence[folder.Slice]) -> int:
        """Estimates the bytes of some slices from those of the whole splits."""
        return bytes_of(self.split_infos, slices)

    def random_access(
        self, slices: Sequence[folder.Slice], *, excluded: Sequence[str] = ()
    ) -> folder.RandomAccess | None:
        """Returns None: record files can only be read from their beginning."""
        del slices, excluded
        return None

    def example_name(self, slices: Sequence[folder.Slice], index: int) -> str:
        """Returns "FILE[RECORD]" of one example, counted in the stored order of `slices`."""
        return name_of(self._files_of(slices), index)

    def filenames(self) -> set[str]:
        """Returns the paths of all files."""
        whole = [(str(name), 0, info.num_examples) for name, info in self.split_infos.items()]
        return {file.filename for file in self._files_of(whole)}

    def example_names(self, slices: Sequence[folder.Slice]) -> Iterable[str]:
        """Returns "FILE[RECORD]" of all examples, in the stored order of `slices`."""
        return names_of(self._files_of(slices))

    def shuffle_buffer(self, slices: Sequence[folder.Slice]) -> int:
        """Returns how many encoded examples the shuffle buffer holds: 256 MiB, at least 1,024."""
        wanted = sum(stop - start for _, start, stop in slices)
        infos = [self.split_infos[name] for name in {name for name, _, _ in slices}]
        stored = sum(info.num_examples for info in infos)
        size = sum(_stored_bytes(info) for info in infos)
        return min(max(_SHUFFLE_BYTES * stored // size, _SHUFFLE_EXAMPLES), wanted)

    def _stream(self, slices: Sequence[folder.Slice], order_seed: tf.Tensor | None) -> Any:
        """Streams (name of the file, index in it, serialized record)."""
        files = self._files_of(slices)
        columns = (
            tf.constant([file.filename for file in files]),
            tf.constant([file.name for file in files]),
            tf.constant([file.skip for file in files], tf.int64),
            tf.constant([file.take for file in files], tf.int64),
        )
        return _in_turn(columns, _read_file, order_seed)

    def _positions(self, slices: Sequence[folder.Slice], order_seed: tf.Tensor) -> tf.data.Dataset:
        """Streams what `_stream` does, positions in the stored order in place of records."""
        counts = [file.take for file in self._files_of(slices)]
        ends = list(itertools.accumulate(counts))
        starts = [end - count for end, count in zip(ends, counts, strict=True)]
        columns = (tf.constant(starts, tf.int64), tf.constant(ends, tf.int64))
        return _in_turn(columns, tf.data.Dataset.range, order_seed)

    def _finish(self, file: tf.Tensor, index: tf.Tensor, record: Any) -> dict[str, tf.Tensor]:
        name = tf.strings.join([file, "[", tf.strings.as_string(index), "]"])
        return {**self._parse(record), "name": name}


class Parser:
    """Parses the image and the label of an example that tensorflow-datasets has stored."""

    def __init__(self, info: Any, *, image: str, label: str | indicators.Keys | None) -> None:
        """Creates the parser.

        Args:
            info: what tensorflow-datasets knows about the data set.
            image: key of the image in an example.
            label: key of the class label, or those of several labels; None if there is none.
        """
        self._image, self._label = image, label
        self._is_encoded = record_keys.is_encoded(info.features[image])
        self.decoding = tfds.decode.PartialDecoding(
            {image: True, **record_keys.read_of_labels(label)},
            decoders={image: tfds.decode.SkipDecoding()} if self._is_encoded else None,
        )
        self._features = self.decoding.extract_features(info.features)
        self._num_classes = 0
        if isinstance(label, indicators.Keys):
            self._num_classes = record_keys.label_feature(info, label).num_classes

    def parse(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns {"image": () string, encoded, "label": () or (c,) int64} of a record."""
        example = self._features.deserialize_example(record, decoders=self.decoding.decoders)
        return self.select(example)

    def select(self, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the same of a record that tensorflow-datasets has parsed."""
        if isinstance(self._label, indicators.Keys):
            clear = example[self._label.clear] if self._label.clear else None
            shown = example[self._label.labels]
            if self._label.of_object is not None:
                shown = shown[self._label.of_object]
            label = indicators.of_lists(shown, clear, self._num_classes)
        else:
            label = example[self._label] if self._label else tf.constant(-1, tf.int64)
        image = example[self._image]
        if not self._is_encoded:
            image = encoded_array(image)
        return {"image": image, "label": tf.cast(label, tf.int64)}


def encoded_array(array: tf.Tensor) -> tf.Tensor:
    """Returns an array (h, w, c) as the content () of a file that is decoded without loss."""
    dtype = pixel_format.natural_dtype("bool" if array.dtype == tf.bool else array.dtype.name)
    array = tf.cast(array, dtype)
    if array.dtype == tf.uint8 and array.shape[-1] == pixel_format.RGB.channels:
        return tf.io.encode_png(array, compression=0)  # As all 8-bit RGB is decoded.
    return tf.io.serialize_tensor(array)


def files_of(info: Any) -> FilesOf:
    """Returns the function that lists the files of slices of a prepared data set."""

    def list_files(slices: Sequence[folder.Slice]) -> list[File]:
        return [
            File(file.filename, os.path.basename(file.filename), file.skip, file.take)
            for name, start, stop in slices
            for file in info.splits[f"{name}[{start}:{stop}]"].file_instructions
        ]

    return list_files


def name_of(files: Sequence[File], index: int) -> str:
    """Returns "FILE[RECORD]" of a record, counted over some files."""
    for file in files:
        if index < file.take:
            return f"{file.name}[{file.skip + index}]"
        index -= file.take
    raise IndexError(index)


def names_of(files: Sequence[File]) -> Iterable[str]:
    """Yields "FILE[RECORD]" of all records of some files."""
    for file in files:
        yield from (f"{file.name}[{file.skip + index}]" for index in range(file.take))


def bytes_of(split_infos: Mapping[str, Any], slices: Sequence[folder.Slice]) -> int:
    """Estimates the bytes of some slices from those of the whole splits."""
    counts = [(split_infos[name], stop - start) for name, start, stop in slices]
    return sum(
        round(_stored_bytes(info) * count / max(info.num_examples, 1)) for info, count in counts
    )


def _stored_bytes(info: Any) -> int:
    """Returns the bytes of a split, or a guess if the data set does not record them."""
    return int(info.num_bytes) or _UNKNOWN_EXAMPLE_BYTES * info.num_examples


def _map(dataset: tf.data.Dataset, function: Any) -> tf.data.Dataset:
    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _in_turn(
    columns: tuple[tf.Tensor, ...],
    read: Callable[..., tf.data.Dataset],
    order_seed: tf.Tensor | None,
) -> tf.data.Dataset:
    """Reads files one after another or, in an order, several in turn.

    Args:
        columns: (f,) arguments of `read` for each of the files.
        read: function: arguments -> the data set of a file.
        order_seed: None for the stored order, or (2,) integers.
    """
    files_at_once = 1
    if order_seed is not None:
        count = columns[0].shape[0]
        files_at_once = min(_FILES_AT_ONCE, count)
        order = random.permutation(order_seed, count)
        columns = tuple(tf.gather(column, order) for column in columns)
    return tf.data.Dataset.from_tensor_slices(columns).interleave(
        read,
        cycle_length=files_at_once,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _read_file(
    file: tf.Tensor, name: tf.Tensor, skip: tf.Tensor, take: tf.Tensor
) -> tf.data.Dataset:
    """Streams (name of the file, index in it, record) of the selected records of a file."""
    records = tf.data.TFRecordDataset(file, buffer_size=_READ_BYTES)
    records = records.enumerate().skip(skip).take(take)
    return records.map(lambda index, record: (name, index, record))
