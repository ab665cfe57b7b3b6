"""Decodes .npy files in a graph, so that a SavedModel and other machines can."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf import pixel_format
from simclr_tf.data import checks, headers

START = b"\x93NUMPY"
# How headers write types that `tf.io.decode_raw` reads, without the byte order.
_TYPES = {
    "b1": tf.uint8,
    "u1": tf.uint8,
    "i1": tf.int8,
    "u2": tf.uint16,
    "i2": tf.int16,
    "i4": tf.int32,
    "i8": tf.int64,
    "f2": tf.float16,
    "f4": tf.float32,
    "f8": tf.float64,
}


def decode(encoded: tf.Tensor, pixels: pixel_format.PixelFormat) -> tf.Tensor:
    """Decodes an image.

    Args:
        encoded: () string, the content of a .npy file: (h, w), (h, w, c) or (c, h, w).
        pixels: what it must hold.

    Returns:
        (h, w, c) of the type of `pixels`.

    Raises:
        tf.errors.InvalidArgumentError: when the op runs, if it holds something else.
    """
    start, header = _header(encoded)
    descr = _entry(header, "descr", r"'([^']*)'")
    shape = _shape(header)
    swapped = tf.strings.regex_full_match(header, r"(?s).*'fortran_order': *True.*")
    values = _values(tf.strings.substr(encoded, start, -1), descr, pixels)
    complete = tf.size(values) == tf.reduce_prod(shape)
    values = checks.asserted(values, complete, ["The .npy file is truncated."])
    array = tf.cond(
        swapped,
        lambda: tf.transpose(tf.reshape(values, shape[::-1]), tf.range(tf.size(shape))[::-1]),
        lambda: tf.reshape(values, shape),
    )
    return channels_last(array, pixels.channels)


def channels_last(array: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns (h, w, c) of an array (h, w), (h, w, c) or (c, h, w), c being `channels`."""
    shape = tf.shape(array)
    rank = tf.size(shape)
    fits = (rank == 3) & ((shape[-1] == channels) | (shape[0] == channels))
    if channels == 1:
        fits |= rank == 2
    problem = f"The image does not have {channels} channels; its shape is"
    array = checks.asserted(array, fits & tf.reduce_all(shape > 0), [problem, shape])
    if channels == 1:
        array = tf.reshape(
            array, tf.cond(rank == 2, lambda: tf.concat([shape, [1]], 0), lambda: shape)
        )
    shape = tf.ensure_shape(tf.shape(array), [3])
    array = tf.reshape(array, shape)
    return tf.cond(shape[2] == channels, lambda: array, lambda: tf.transpose(array, [1, 2, 0]))


def _header(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns where the values begin, and the text that describes them."""
    head = headers.bytes_at(encoded, 0, 12)
    is_first = head[6] < 2  # Version 1 has two bytes for the length of the text, others four.
    length = head[8] + 256 * head[9]
    length += tf.where(is_first, 0, 65536 * head[10])
    begin = tf.where(is_first, 10, 12)
    length = tf.minimum(length, tf.maximum(tf.strings.length(encoded) - begin, 0))
    return begin + length, tf.strings.substr(encoded, begin, length)


def _entry(header: tf.Tensor, name: str, pattern: str) -> tf.Tensor:
    """Returns the part of the text that describes the values for which group 1 of a pattern is."""
    return tf.strings.regex_replace(header, rf"(?s).*'{name}': *{pattern}.*", r"\1")


def _shape(header: tf.Tensor) -> tf.Tensor:
    text = _entry(header, "shape", r"\(([0-9, ]*)\)")
    numbers = tf.strings.split(tf.strings.regex_replace(text, "[^0-9]+", " "))
    is_number = tf.strings.regex_full_match(numbers, "[0-9]{1,9}")
    numbers = checks.asserted(
        numbers, tf.reduce_all(is_number), ["The header of the .npy file is corrupt."]
    )
    return tf.strings.to_number(numbers, tf.int32)


def _values(raw: tf.Tensor, descr: tf.Tensor, pixels: pixel_format.PixelFormat) -> tf.Tensor:
    """Decodes the values of a file, whose type must be kept in that of the pixels."""
    dtype = tf.as_dtype(pixels.dtype)
    known: list[str] = []
    functions = {}
    for name, stored in _TYPES.items():
        if pixel_format.natural_dtype("bool" if name == "b1" else stored.name) != pixels.dtype:
            continue
        for order in "<>|" if stored.size == 1 else "<>":
            functions[len(known)] = _decoder(raw, stored, dtype, little_endian=order != ">")
            known.append(f"{order}{name}")
    matches = tf.equal(known, descr)
    problem = f"The .npy file holds another type than {pixels.dtype}:"
    matches = checks.asserted(matches, tf.reduce_any(matches), [problem, descr])
    return tf.switch_case(tf.cast(tf.argmax(matches), tf.int32), functions)


def _decoder(raw: tf.Tensor, stored: tf.DType, dtype: tf.DType, *, little_endian: bool):  # type: ignore[no-untyped-def]
    def decoded() -> tf.Tensor:
        whole = tf.strings.length(raw) // stored.size * stored.size
        values = tf.io.decode_raw(
            tf.strings.substr(raw, 0, whole), stored, little_endian=little_endian
        )
        return tf.cast(values, dtype)

    return decoded
