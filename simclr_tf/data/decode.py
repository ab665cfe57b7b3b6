"""Turns the bytes of an image file, of whatever kind, into RGB pixels."""

from __future__ import annotations

import tensorflow as tf


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG, BMP or GIF image to RGB, in eager or graph mode.

    Grey, palette and CMYK images become RGB, 16-bit samples keep their upper byte, an alpha channel
    is dropped (not blended), and of an animation the first frame counts. The kind is read from the
    bytes, not from a file name.

    Args:
        encoded: () string, the content of an image file.

    Returns:
        (h, w, 3) uint8 pixels; h and w are unknown while a graph is built.

    Raises:
        tf.errors.InvalidArgumentError: when the op runs, if the bytes are no such image or are
            damaged.
    """
    encoded = tf.convert_to_tensor(encoded, tf.string)
    start = tf.strings.substr(encoded, 0, 2)
    image = tf.case(
        [
            (tf.equal(start, b"\xff\xd8"), lambda: _decode_jpeg(encoded)),
            (tf.equal(start, b"BM"), lambda: _decode_bmp(encoded)),
        ],
        default=lambda: _decode_others(encoded),
        exclusive=True,
    )
    image.set_shape((None, None, 3))
    return image  # (h, w, 3)


def _decode_others(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)  # (h, w, 3)


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG as Pillow and OpenCV do; TensorFlow's default is up to 5/255 off, no faster."""
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")  # (h, w, 3)


def _decode_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes BMP, whose kernel neither converts channels nor looks colours up in a palette."""
    pixels = tf.io.decode_bmp(encoded)  # (h, w, 1 or 3 or 4)
    return tf.cond(
        tf.equal(tf.shape(pixels)[2], 1),
        lambda: tf.gather(_bmp_palette(encoded), tf.cast(pixels[:, :, 0], tf.int32)),
        lambda: pixels[:, :, :3],
    )  # (h, w, 3)


def _bmp_palette(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the (256, 3) RGB colours of an 8-bit BMP, black where it lists fewer."""
    # File header: 14 bytes. Then the information header, which begins with its own size; the
    # palette follows it, four bytes (blue, green, red, 0) a colour, up to where the pixels start.
    start = 14 + _int32_at(encoded, 14)
    end = tf.minimum(_int32_at(encoded, 10), start + 4 * 256)
    colours = tf.io.decode_raw(tf.strings.substr(encoded, start, end - start), tf.uint8)
    colours = colours[: tf.size(colours) // 4 * 4]
    colours = tf.reshape(colours, (-1, 4))[:, 2::-1]  # (colours, 3)
    return tf.pad(colours, [[0, 256 - tf.shape(colours)[0]], [0, 0]])  # (256, 3)


def _int32_at(encoded: tf.Tensor, position: int) -> tf.Tensor:
    return tf.io.decode_raw(tf.strings.substr(encoded, position, 4), tf.int32)[0]
