"""Opens TFRecord files of tf.train.Example that other programs have written."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf import errors, pixel_format
from simclr_tf.data import folder, layout, record_arrays, record_files, record_scan, records

_Label = int | bytes
# How the formats that can be decoded begin: JPEG, PNG, GIF and BMP.
_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")


class Opened(NamedTuple):
    """Opened files.

    Attributes:
        reader: the reader of the examples.
        class_names: names of the classes; None without labels.
        labelled_splits: names of the splits in which some examples have labels.
        notes: sentences for the user.
        pixels: what the images hold, if the first record says it.
    """

    reader: records.Records
    class_names: tuple[str, ...] | None
    labelled_splits: frozenset[str]
    notes: tuple[str, ...]
    pixels: pixel_format.PixelFormat | None


def open_files(pattern: str, *, image_key: str, label_key: str) -> Opened:
    """Finds files and reads which labels they have.

    Args:
        pattern: pattern of paths; see `record_files.find`.
        image_key: key of the image in an example: an encoded file, a serialized tensor, or an
            array that `record_arrays` reads.
        label_key: key of the label, an integer or a name; empty if the images are unlabelled.

    Raises:
        errors.UserError: if there are no files, if one cannot be read, or if the keys are wrong.
    """
    splits, notes = record_files.find(pattern)
    found = [path for split in splits.values() for path in split]
    path, first = _first_record(found)
    arrays = _look_for_image(first, path, image_key)
    if arrays is None:
        notes += filter(None, [record_arrays.note(first, image_key, path)])
    scans = dict(zip(found, record_scan.scan(found, label_key)))
    names: dict[_Label, str] = {}
    if label_key:
        names = _classes(scans, label_key)
        if not names:
            count = sum(scan.num_records for scan in scans.values())
            raise errors.ArgumentError(
                "label_key",
                label_key,
                f"gives none of the {count:,} records a label; the first has the keys "
                f"{record_arrays.listed(first)}; use one of them, or an empty key if the images "
                "are unlabelled.",
            )
    if len(names) == 1:
        notes.append(f"All labels are {next(iter(names.values()))!r}, so they are ignored.")
        names, label_key = {}, ""
    infos = tfds.core.SplitDict(
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[scans[path].num_records for path in paths if scans[path].num_records],
            num_bytes=sum(scans[path].num_bytes for path in paths),
        )
        for split, paths in splits.items()
        if any(scans[path].num_records for path in paths)
    )
    parse = _parser(image_key, arrays, label_key, tuple(names))
    reader = records.Records(infos, _files_of(splits, scans), parse)
    labelled = frozenset(
        split
        for split, paths in splits.items()
        if names and _classes({path: scans[path] for path in paths}, label_key)
    )
    pixels = None if arrays is None else arrays.pixels
    return Opened(reader, tuple(names.values()) or None, labelled, tuple(notes), pixels)


def _first_record(found: Sequence[str]) -> tuple[str, tf.train.Example]:
    """Returns the first record of some files, and its file.

    Raises:
        errors.UserError: if there are no records.
    """
    for path in found:
        first = record_scan.first_record(path)
        if first is not None:
            return path, first
    raise errors.UserError(
        f"The {len(found):,} files, such as {found[0]}, hold no records; name other files."
    )


def _look_for_image(
    first: tf.train.Example, path: str, image_key: str
) -> record_arrays.Layout | None:
    """Returns where records have an image that is an array; None if it is one byte string.

    Args:
        first: the first record.
        path: its file, for messages.
        image_key: key of the image.

    Raises:
        errors.UserError: if it has no image.
    """
    features = first.features.feature
    images = [
        key
        for key, feature in sorted(features.items())
        if any(value.startswith(_IMAGE_STARTS) for value in feature.bytes_list.value)
    ]
    kind = features[image_key].WhichOneof("kind") if image_key in features else None
    count = 0 if kind is None else len(getattr(features[image_key], kind).value)
    if count > 1 or (count == 1 and (kind == "bytes_list" or not images)):
        return record_arrays.find(first, image_key, path)
    remedy = (
        f"{' and '.join(images)} begins like an encoded image, so use that"
        if images
        else "none of them begins like an encoded image, so name the key of an array, or use other "
        "files"
    )
    raise errors.ArgumentError(
        "image_key",
        image_key,
        f"is not the key of a byte string in the first record of {path}, which has the keys "
        f"{record_arrays.listed(first)}; {remedy}.",
    )


def _classes(scans: Mapping[str, record_scan.Scan], label_key: str) -> dict[_Label, str]:
    """Returns the labels in order, and the names of their classes.

    Negative numbers and empty names mean that a record is unlabelled.

    Raises:
        errors.UserError: if they are not integers or byte strings.
    """
    texts: dict[_Label, str] = {}
    for path, scan in scans.items():
        for serialized, (index, name) in scan.labels.items():
            label = _label(serialized, f"{path}[{index}]", label_key)
            if label is not None:
                texts.setdefault(label, _text(label, name))
    if len({type(label) for label in texts}) > 1:
        raise errors.ArgumentError(
            "label_key", label_key, "holds integers in some records and names in others; use one."
        )
    uses = collections.Counter(texts.values())
    return {
        label: texts[label] if uses[texts[label]] == 1 else f"{texts[label]} ({_text(label)})"
        for label in sorted(texts)
    }


def _label(serialized: bytes, record: str, label_key: str) -> _Label | None:
    """Returns the label of a serialized feature; None if it means that there is none."""
    feature = tf.train.Feature.FromString(serialized)
    kind = feature.WhichOneof("kind")
    values: Sequence[Any] = getattr(feature, kind).value if kind else []
    if not values:
        return None
    if kind == "float_list" or len(values) > 1:
        found = "fractions" if kind == "float_list" else f"{len(values)} values"
        raise errors.ArgumentError(
            "label_key",
            label_key,
            f"holds {found} in {record}; use the key of one integer or name per image.",
        )
    if values[0] == b"" or (kind == "int64_list" and values[0] < 0):
        return None
    return values[0]


def _text(label: _Label, serialized: bytes | None = None) -> str:
    """Returns the name of a class: that stored with it, or its label."""
    stored = tf.train.Feature.FromString(serialized or b"").bytes_list.value
    name = stored[0] if stored and stored[0] and isinstance(label, int) else label
    return layout.usual_form(
        name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    )


def _files_of(
    splits: Mapping[str, Sequence[str]], scans: Mapping[str, record_scan.Scan]
) -> records.FilesOf:
    names = record_files.short_names(list(scans))

    def list_files(slices: Sequence[folder.Slice]) -> list[records.File]:
        files = []
        for split, start, stop in slices:
            first = 0
            for path in splits[split]:
                count = scans[path].num_records
                skip, end = max(start - first, 0), min(stop - first, count)
                if skip < end:
                    files.append(records.File(path, names[path], skip, end - skip))
                first += count
        return files

    return list_files


def _parser(
    image_key: str,
    arrays: record_arrays.Layout | None,
    label_key: str,
    labels: Sequence[_Label],
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the function that parses a record; its label becomes an index into `labels`."""
    # An image that is missing is reported like one that cannot be decoded.
    features: dict[str, Any] = {image_key: tf.io.FixedLenFeature([], tf.string, "")}
    if arrays is not None:
        features = record_arrays.to_parse(arrays)
    if labels:
        known = tf.constant(labels, tf.string if isinstance(labels[0], bytes) else tf.int64)
        unlabelled = b"" if known.dtype == tf.string else -1
        features[label_key] = tf.io.FixedLenFeature([], known.dtype, unlabelled)

    def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
        example = tf.io.parse_single_example(record, features)
        label = tf.constant(-1, tf.int64)
        if labels:
            matches = tf.equal(known, example[label_key])
            index = tf.argmax(tf.cast(matches, tf.int32))
            label = tf.where(tf.reduce_any(matches), index, label)
        image = example[image_key]
        if arrays is not None:
            image = record_arrays.content(arrays, example)
        return {"image": image, "label": label}

    return parse
