"""Images of TFRecord files that are arrays: lists of numbers, or raw bytes, beside their shape.

A record says the shape in whole numbers under keys beside that of the image. For `image/raw` these
are `image/raw/shape`, `image/raw_shape`, `image/shape` or `shape`, or, with the same beginnings,
`height` and `width`, and `channels` or `depth`. Raw bytes of more than one byte per value also have
the name of their type there, `dtype`. A serialized tensor needs neither, see `stored`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from simclr_tf import errors, pixel_format, text
from simclr_tf.data import array_files, kinds

_FLOATS, _INTEGERS, _BYTES = "float_list", "int64_list", "bytes_list"
# What `tf.io.decode_raw` reads.
_RAW_TYPES = (
    *("uint8", "uint16", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
_AXES = 3  # height, width and channels
_MOST_KEYS = 12


class Layout(NamedTuple):
    """Where records have an image that is an array.

    Attributes:
        key: key of the values.
        kind: kind of their feature: a list of floats, of integers or of bytes.
        dtype: type of the values, as NumPy writes it, such as "uint16" or ">u2".
        dtype_key: key of this type; None if records do not have it.
        shape_keys: key of the shape, or those of the height, the width and, if it is said, the
            channels.
        pixels: what the images hold, if the first record says which axis is that of the channels.
    """

    key: str
    kind: str
    dtype: str
    dtype_key: str | None
    shape_keys: tuple[str, ...]
    pixels: pixel_format.PixelFormat | None


def find(record: tf.train.Example, key: str, path: str) -> Layout | None:
    """Returns where records have their image; None if it is an encoded file or a serialized tensor.

    Args:
        record: the first record.
        key: key of the image, under which the record has values.
        path: the file of the record, for messages.

    Raises:
        ArgumentError: if it is an array, and the record does not say its shape or its type.
    """
    features = record.features.feature
    kind = features[key].WhichOneof("kind")
    shape_keys = _shape_keys(features, key)
    shape = [value for one in shape_keys for value in features[one].int64_list.value]
    dtype_key = None
    if kind == _BYTES:
        dtype_key = _beside(features, key, "dtype", _BYTES)
        stored = None if dtype_key is None else _text(features[dtype_key])
        dtype = _type_of_bytes(features[key].bytes_list.value[0], stored, key, shape, path)
    else:
        dtype = "float32" if kind == _FLOATS else "int64"
        _check_filled(record, key, len(getattr(features[key], kind).value), shape, path)
    if dtype is None:
        return None
    pixels = None
    if len(shape_keys) == _AXES:
        natural = pixel_format.natural_dtype(np.dtype(dtype).name)
        assert natural is not None
        pixels = pixel_format.of_dtype(shape[-1], natural)
    return Layout(key, kind, dtype, dtype_key, shape_keys, pixels)


def note(record: tf.train.Example, key: str, path: str) -> str | None:
    """Returns a note if the image of a record may be raw bytes that do not say their shape.

    Raw bytes look like a damaged file, so they are not an error here.

    Args:
        record: the first record, for whose image `find` returned None.
        key: key of the image.
        path: the file of the record.
    """
    first = record.features.feature[key].bytes_list.value[0]
    if not first or kinds.kind_of(first) is not None or array_files.kind_of(first) is not None:
        return None
    return (
        f"The image of the first record of {path} ({key}) is neither an image file nor an array. "
        "If it is the raw bytes of one, store its shape and the name of its type beside it "
        "(image/shape and image/dtype), or store each image by tf.io.serialize_tensor."
    )


def listed(record: tf.train.Example) -> str:
    """Returns the keys of a record, for messages."""
    return text.shortened(sorted(record.features.feature), most=_MOST_KEYS) or "(none)"


def _check_filled(
    record: tf.train.Example, key: str, count: int, shape: Sequence[int], path: str
) -> None:
    """Refuses a list of numbers that does not fill the shape beside it."""
    area = math.prod(shape)
    if shape and area > 0 and (count == area or (len(shape) < _AXES and count % area == 0)):
        return
    said = f"the shape {tuple(shape)}, which they do not fill" if shape else "no shape"
    raise errors.ArgumentError(
        "image_key",
        key,
        f"holds {text.count(count, 'number')} in the first record of {path} and {said}. Store the "
        "shape beside them (image/shape, or image/height, image/width and image/channels), or "
        "store each image by tf.io.serialize_tensor. The record has the keys "
        f"{listed(record)}.",
    )


def _type_of_bytes(
    content: bytes, stored: str | None, key: str, shape: Sequence[int], path: str
) -> str | None:
    """Returns the type of the values of raw bytes; None if the bytes are a file or a tensor."""
    if not shape or kinds.kind_of(content) is not None:
        return None
    if stored is not None:
        return _checked_type(stored, key, path)
    area = math.prod(shape)
    if len(shape) < _AXES or area <= 0 or len(content) % area or array_files.kind_of(content):
        return None  # Also an image file that is damaged.
    if len(content) == area:
        return "uint8"
    raise errors.ArgumentError(
        "image_key",
        key,
        f"holds {len(content):,} raw bytes in the first record of {path}, which are "
        f"{len(content) // area} for each value of the shape {tuple(shape)}, and not their type. "
        "Store its name beside them (image/dtype, such as uint16), or store each image by "
        "tf.io.serialize_tensor.",
    )


def _text(feature: tf.train.Feature) -> str:
    return feature.bytes_list.value[0].decode(errors="replace")


def _checked_type(stored: str, key: str, path: str) -> str:
    try:
        known = np.dtype(stored).name in _RAW_TYPES
    except (TypeError, ValueError):
        known = False
    if not known:
        raise errors.ArgumentError(
            "image_key",
            key,
            f"holds values of the type {stored!r} in the first record of {path}, which cannot be "
            f"read; store one of {', '.join(_RAW_TYPES)}.",
        )
    return stored


def _shape_keys(features: Mapping[str, Any], image_key: str) -> tuple[str, ...]:
    """Returns the keys of the shape of an image, see `Layout`; none if it is not said."""
    keys = {
        name: _beside(features, image_key, name, _INTEGERS)
        for name in ("shape", "height", "width", "channels", "depth")
    }
    if keys["shape"] is not None:
        return (keys["shape"],)
    if keys["height"] is None or keys["width"] is None:
        return ()
    channels = keys["channels"] or keys["depth"]
    return (keys["height"], keys["width"], *([] if channels is None else [channels]))


def _beside(features: Mapping[str, Any], image_key: str, name: str, kind: str) -> str | None:
    """Returns the key of what a record says about its image; None without it."""
    parent = image_key.rpartition("/")[0]
    beginnings = (f"{image_key}/", f"{image_key}_", *([f"{parent}/"] if parent else []), "")
    for key in (f"{beginning}{name}" for beginning in beginnings):
        if key in features and getattr(features[key], kind).value:
            return key
    return None


def to_parse(layout: Layout) -> dict[str, Any]:
    """Returns what `tf.io.parse_single_example` must parse of a record for `content`."""

    def numbers(dtype: tf.DType) -> tf.io.FixedLenSequenceFeature:
        return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)

    one_text = tf.io.FixedLenFeature([], tf.string, "")
    values = {_FLOATS: numbers(tf.float32), _INTEGERS: numbers(tf.int64), _BYTES: one_text}
    features = {key: numbers(tf.int64) for key in layout.shape_keys}
    if layout.dtype_key is not None:
        features[layout.dtype_key] = one_text
    return {**features, layout.key: values[layout.kind]}


def content(layout: Layout, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns the array of a record as the content of a file.

    Args:
        layout: where it is.
        example: the parsed record.

    Returns:
        () string: PNG of 8-bit RGB, else a serialized tensor; empty if the record has no image;
        `array_files.REFUSED` and the reason if the values do not fill the shape.
    """
    values, each = example[layout.key], 1
    size = tf.size(values, tf.int64)
    if layout.kind == _BYTES:
        each = np.dtype(layout.dtype).itemsize
        size = tf.cast(tf.strings.length(values), tf.int64)
    shape = tf.concat([example[key] for key in layout.shape_keys], 0)
    if len(layout.shape_keys) == _AXES - 1:  # There are as many channels as the values fill.
        shape = tf.concat([shape, [size // tf.maximum(tf.reduce_prod(shape) * each, 1)]], 0)
    rank = tf.size(shape)
    fits = (rank >= _AXES - 1) & (rank <= _AXES) & tf.reduce_all(shape > 0)
    fits &= tf.reduce_prod(shape) * each == size
    unit = "bytes" if layout.kind == _BYTES else "numbers"
    holds = tf.strings.format(f"holds {{}} {unit}, which do not fill its shape {{}}", [size, shape])
    if layout.dtype_key is not None:
        is_other = example[layout.dtype_key] != layout.dtype
        other = ["has values of ", example[layout.dtype_key], f", and the first {layout.dtype}"]
        holds = tf.where(is_other, tf.strings.join(other), holds)
        fits &= ~is_other
    refused = tf.strings.join([array_files.REFUSED, holds])
    made = tf.cond(fits, lambda: _encoded(layout, values, shape), lambda: refused)
    return tf.where(size > 0, made, "")


def _encoded(layout: Layout, values: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Returns an array as the content of a file that is decoded without loss."""
    if layout.kind == _BYTES:
        dtype = np.dtype(layout.dtype)
        is_little = dtype.byteorder != ">"
        values = tf.io.decode_raw(values, dtype.name, little_endian=is_little)
    natural = pixel_format.natural_dtype(values.dtype.name)
    array = tf.reshape(tf.cast(values, natural), shape)
    if natural != pixel_format.RGB.dtype:
        return tf.io.serialize_tensor(array)

    def picture() -> tf.Tensor:  # As all 8-bit RGB is decoded.
        return tf.io.encode_png(tf.reshape(array, shape[:3]), compression=0)

    is_rgb = tf.equal(shape[-1], pixel_format.RGB.channels) & (tf.size(shape) == _AXES)
    return tf.cond(is_rgb, picture, lambda: tf.io.serialize_tensor(array))
