"""Reads the sizes of images, and the palettes of BMP, from the headers of files, in a graph.

Missing bytes are read as zeros, so that a file that is cut short has a size of 0.
"""

from __future__ import annotations

import tensorflow as tf

# Blocks before the first frame of a GIF. Files have a few; each piece of a comment is one.
_MAX_GIF_BLOCKS = 1000


def png_size(encoded: tf.Tensor) -> tf.Tensor:
    """Returns (2,) int32, height and width of a PNG."""
    header = tf.io.decode_raw(encoded, tf.int32, fixed_length=24, little_endian=False)
    # The header chunk, IHDR, comes first.
    return tf.where(header[3] == int.from_bytes(b"IHDR", "big"), header[5:3:-1], 0)


def bmp_size(encoded: tf.Tensor) -> tf.Tensor:
    """Returns (2,) int32, height and width of a BMP that TensorFlow decodes."""
    header = tf.io.decode_raw(encoded, tf.uint8, fixed_length=26)
    width, height = tf.unstack(tf.bitcast(tf.reshape(header[18:26], (2, 4)), tf.int32))
    return tf.stack([tf.abs(height), width])  # A negative height: rows from the top.


def bmp_palette(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the (256, 3) RGB colours of an 8-bit BMP, black where it lists fewer."""
    # File header: 14 bytes. Then the information header, which begins with its own size; the
    # palette follows it, four bytes (blue, green, red, 0) a colour, up to where the pixels start.
    header = tf.io.decode_raw(encoded, tf.uint8, fixed_length=18)
    pixels, size_of_header = tf.unstack(tf.bitcast(tf.reshape(header[10:], (2, 4)), tf.int32))
    start = 14 + size_of_header
    end = tf.minimum(pixels, start + 4 * 256)
    colours = tf.io.decode_raw(tf.strings.substr(encoded, start, end - start), tf.uint8)
    colours = colours[: tf.size(colours) // 4 * 4]
    colours = tf.reshape(colours, (-1, 4))[:, 2::-1]  # (colours, 3)
    return tf.pad(colours, [[0, 256 - tf.shape(colours)[0]], [0, 0]])  # (256, 3)


def gif_size(encoded: tf.Tensor) -> tf.Tensor:
    """Returns (2,) int32, height and width of the first frame of a GIF, which is what is decoded.

    The header has the size of the screen, of which a frame may cover a part.
    """
    flags = bytes_at(encoded, 10, 1)[0]
    colours = tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)

    def is_before_frame(at: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
        return tf.logical_or(inside, bytes_at(encoded, at, 1)[0] == ord("!"))

    def next_block(at: tf.Tensor, inside: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # An extension: "!" and its label, then blocks that begin with their length, until 0.
        length = bytes_at(encoded, at, 1)[0]
        step = tf.where(inside, 1 + length, 2)
        return at + step, tf.logical_or(tf.logical_not(inside), length > 0)

    at, _ = tf.while_loop(
        is_before_frame,
        next_block,
        (13 + colours, tf.constant(False)),
        parallel_iterations=1,
        maximum_iterations=_MAX_GIF_BLOCKS,
    )
    frame = bytes_at(encoded, at, 9)  # ",", left, top, width, height.
    size = tf.stack([frame[7] + 256 * frame[8], frame[5] + 256 * frame[6]])
    return tf.where(frame[0] == ord(","), size, 0)


def bytes_at(encoded: tf.Tensor, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """Returns (count,) int32, the bytes from a position of a string on; 0 past its end."""
    position = tf.minimum(position, tf.strings.length(encoded))
    some = tf.strings.substr(encoded, position, count)
    return tf.cast(tf.io.decode_raw(some, tf.uint8, fixed_length=count), tf.int32)
