"""Turns photos upright: reads the EXIF orientation of JPEG and PNG files, in a graph.

An orientation is 1 to 8, as in the standard: from 5 on, rows and columns are exchanged first; then
the result may be mirrored left to right and top to bottom. Damaged EXIF data means 1, upright.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.data import conditional, headers

# Segments of a JPEG, or chunks of a PNG, that are searched for EXIF data. Files have a few.
_MAX_SEGMENTS = 64
# Entries of the directory that are searched for the orientation. Cameras write about ten.
_MAX_ENTRIES = 256
TAG = 0x0112  # of the orientation
_SHORT, _LONG = 3, 4  # types of values
_EXIF = list(b"Exif\0\0")


def _is_before_exif(marker: tf.Tensor) -> tf.Tensor:
    """Returns whether a segment is APP0 to APP15, a comment, or a byte that fills a gap."""
    return tf.logical_or(marker // 16 == 0xE, marker >= 0xFE)


def jpeg_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Returns (1,) int32, the orientation of a JPEG.

    EXIF data is in a segment APP1, before which there are at most other segments APP0 to APP15 and
    comments.
    """

    def segment(at: tf.Tensor) -> tf.Tensor:
        return headers.bytes_at(encoded, at, 10)  # 0xff, marker, length (2), content.

    def is_exif(start: tf.Tensor) -> tf.Tensor:
        return tf.logical_and(start[1] == 0xE1, tf.reduce_all(start[4:] == _EXIF))

    def is_other(start: tf.Tensor) -> tf.Tensor:
        known = tf.logical_and(start[0] == 0xFF, _is_before_exif(start[1]))
        return tf.logical_and(known, tf.logical_not(is_exif(start)))

    def following(at: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        at += tf.where(start[1] == 0xFF, 1, 2 + _number(start[2:4], big_endian=True))
        return at, segment(at)

    first = tf.constant(2)
    at, start = tf.while_loop(
        lambda at, start: is_other(start),
        following,
        (first, segment(first)),
        parallel_iterations=1,
        maximum_iterations=_MAX_SEGMENTS,
    )
    length = _number(start[2:4], big_endian=True) - 8
    return tf.cond(
        is_exif(start),
        lambda: _of_tiff(_substring(encoded, at + 10, length)),
        lambda: tf.constant([1]),
    )


def png_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Returns (1,) int32, the orientation of a PNG, from a chunk eXIf before its pixels."""

    def chunk(at: tf.Tensor) -> tf.Tensor:
        return headers.bytes_at(encoded, at, 8)  # length (4), type (4).

    def is_other(start: tf.Tensor) -> tf.Tensor:
        # A negative length is above 2 GiB. Of the bytes past the end, the type is 0.
        ends = [_is_chunk(start, kind) for kind in (b"eXIf", b"IDAT")]
        ends += [start[4] == 0, _number(start[:4], big_endian=True) < 0]
        return tf.logical_not(tf.reduce_any(ends))

    def following(at: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        room = tf.strings.length(encoded) - at
        at += tf.minimum(_number(start[:4], big_endian=True), room) + 12
        return at, chunk(at)

    first = tf.constant(33)  # The header, which is the first chunk, ends there.
    at, start = tf.while_loop(
        lambda at, start: is_other(start),
        following,
        (first, chunk(first)),
        parallel_iterations=1,
        maximum_iterations=_MAX_SEGMENTS,
    )
    length = _number(start[:4], big_endian=True)
    return tf.cond(
        _is_chunk(start, b"eXIf"),
        lambda: _of_tiff(_substring(encoded, at + 8, length)),
        lambda: tf.constant([1]),
    )


def _is_chunk(start: tf.Tensor, kind: bytes) -> tf.Tensor:
    return tf.reduce_all(start[4:] == list(kind))


def _of_tiff(content: tf.Tensor) -> tf.Tensor:
    """Returns (1,) the orientation in EXIF data, which has the structure of a TIFF file.

    Args:
        content: () string: a header with the byte order and the position of a directory, whose
            entries of 12 bytes are a tag, a type, a count and a value.
    """
    header = headers.bytes_at(content, 0, 8)
    big_endian = tf.reduce_all(header[:4] == list(b"MM\0*"))
    valid = tf.logical_or(big_endian, tf.reduce_all(header[:4] == list(b"II*\0")))
    position = _number(header[4:], big_endian)
    position = tf.where(position < 0, tf.strings.length(content), position)
    count = _number(headers.bytes_at(content, position, 2), big_endian)
    position = tf.minimum(position, tf.strings.length(content))  # Nor does 2 + position overflow.
    entries = headers.bytes_at(content, position + 2, 12 * _MAX_ENTRIES)
    entries = tf.reshape(entries, (_MAX_ENTRIES, 12))
    tag, kind = _number(entries[:, :2], big_endian), _number(entries[:, 2:4], big_endian)
    value = tf.where(
        kind == _SHORT,
        _number(entries[:, 8:10], big_endian),
        _number(entries[:, 8:12], big_endian),
    )
    found = tf.reduce_all(
        [
            tag == TAG,
            tf.logical_or(kind == _SHORT, kind == _LONG),
            _number(entries[:, 4:8], big_endian) == 1,
            tf.range(_MAX_ENTRIES) < count,
        ],
        axis=0,
    )
    orientation = value[tf.argmax(found)]
    usable = tf.reduce_all([valid, tf.reduce_any(found), orientation >= 1, orientation <= 8])
    return tf.where(usable, orientation, 1)[tf.newaxis]


def _number(bytes_: tf.Tensor, big_endian: tf.Tensor | bool) -> tf.Tensor:
    """Returns the numbers (...) int32 that bytes (..., n) are; from 2**31 on they are negative."""
    shifts = tf.range(0, 8 * bytes_.shape[-1], 8)
    ordered = tf.where(big_endian, tf.reverse(bytes_, [-1]), bytes_)
    return tf.reduce_sum(tf.bitwise.left_shift(ordered, shifts), axis=-1)


def _substring(encoded: tf.Tensor, position: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    position = tf.minimum(position, tf.strings.length(encoded))
    return tf.strings.substr(encoded, position, tf.maximum(length, 0))


def upright_size(size: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns (2,) height and width of the upright image, from those of the stored one."""
    return tf.where(orientation >= 5, size[::-1], size)


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns a stored image (h, w, 3), or a window of it, upright."""
    return tf.cond(
        orientation == 1,
        lambda: image,
        lambda: conditional.in_one_op(_turned, image, orientation),
    )


def _turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    exchanged = tf.transpose(image, tf.where(orientation >= 5, [1, 0, 2], [0, 1, 2]))
    mirrored_x, mirrored_y = _mirrored(orientation)
    return exchanged[:: tf.where(mirrored_y, -1, 1), :: tf.where(mirrored_x, -1, 1)]


def stored_box(box: tf.Tensor, stored_size: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns the box (4,) of the stored image that becomes a box of the upright image."""
    return tf.cond(
        orientation == 1,
        lambda: box,
        lambda: conditional.in_one_op(_turned_box, box, stored_size, orientation),
    )


def _turned_box(box: tf.Tensor, stored_size: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    height, width = tf.unstack(upright_size(stored_size, orientation))
    y, x, box_height, box_width = tf.unstack(box)
    mirrored_x, mirrored_y = _mirrored(orientation)
    y = tf.where(mirrored_y, height - y - box_height, y)
    x = tf.where(mirrored_x, width - x - box_width, x)
    exchanged = tf.stack([x, y, box_width, box_height])
    return tf.where(orientation >= 5, exchanged, tf.stack([y, x, box_height, box_width]))


def _mirrored(orientation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns whether an upright image is mirrored left to right, and top to bottom."""
    in_x, in_y = (2, 3, 6, 7), (3, 4, 7, 8)
    return tf.reduce_any(orientation == in_x), tf.reduce_any(orientation == in_y)
