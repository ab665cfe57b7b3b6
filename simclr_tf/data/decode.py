"""Decodes the bytes of an image file, of any supported kind, to RGB pixels."""

from __future__ import annotations

from collections.abc import Callable
import functools
import math
import re
from typing import Any

import tensorflow as tf

# Larger images, of more than 300 MB of pixels each, are refused before they are decoded.
MAX_PIXELS = 100_000_000
# Pixels around a window of a JPEG that influence the colours within it.
_JPEG_MARGIN = 16
# The most images that `decode_batch` decodes in one iteration of its loop.
_UNROLLED = 16
# Name scope of the ops of this module, by which `is_decode_error` recognises them.
_SCOPE = "decode_encoded"
# First two bytes of a file of each kind.
_JPEG, _BMP, _PNG, _GIF = b"\xff\xd8", b"BM", b"\x89P", b"GI"


def is_decode_error(error: tf.errors.OpError) -> bool:
    """Returns whether an error in a graph comes from decoding an image."""
    return bool(re.search(rf"{{{{node [^}}]*\b{_SCOPE}", str(error)))


def _named(decode: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Puts the ops of a function into the name scope of this module."""

    @functools.wraps(decode)
    def named(*args: Any) -> tf.Tensor:
        with tf.name_scope(_SCOPE):
            return decode(*args)

    return named


@_named
def decode_batch(encoded: tf.Tensor, shape: tuple[int, int], kind: str | None) -> tf.Tensor:
    """Decodes images of one size, one after another.

    For small images, thousands of which are decoded per second: saves tf.data's cost per element.

    Args:
        encoded: (b,) string.
        shape: height and width of every image.
        kind: "png" if all are PNG, which is faster, else None.

    Returns:
        (b, h, w, 3) uint8.

    Raises:
        tf.errors.InvalidArgumentError: as for `decode_image`, or if an image has another size.
    """

    def one(content: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_png(content, 3) if kind == "png" else decode_image(content)
        return tf.ensure_shape(image, [*shape, 3])

    def together(contents: tf.Tensor) -> tf.Tensor:
        return tf.stack([one(content) for content in tf.unstack(contents)])

    # An iteration costs a third of decoding a PNG, so one iteration decodes several.
    number = math.gcd(encoded.shape[0] or 1, _UNROLLED) if kind == "png" else 1
    images = tf.map_fn(
        together,
        tf.reshape(encoded, [-1, number]),
        fn_output_signature=tf.TensorSpec([number, *shape, 3], tf.uint8),
        parallel_iterations=1,
    )
    return tf.reshape(images, [-1, *shape, 3])


@_named
def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG, BMP or GIF image to RGB, in eager or graph mode.

    Grey, palette and CMYK images become RGB, 16-bit samples keep their upper byte, an alpha channel
    is dropped (not blended), and the first frame of an animation is used. The kind is read from
    the bytes, not from a file name.

    Args:
        encoded: () string, the content of an image file.

    Returns:
        (h, w, 3) uint8 pixels; h and w are unknown while a graph is built.

    Raises:
        tf.errors.InvalidArgumentError: when the op runs, if the bytes are not such an image, are
            corrupt, or hold more than MAX_PIXELS.
    """
    encoded = tf.convert_to_tensor(encoded, tf.string)
    with tf.control_dependencies([image_size(encoded)]):
        encoded = tf.identity(encoded)
    image = tf.case(
        [
            (_starts_with(_JPEG, encoded), lambda: _decode_jpeg(encoded)),
            (_starts_with(_BMP, encoded), lambda: _decode_bmp(encoded)),
        ],
        default=lambda: _decode_others(encoded),
        exclusive=True,
    )
    image.set_shape((None, None, 3))
    return image  # (h, w, 3)


@_named
def decode_window(encoded: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """Decodes a window of an image; of a JPEG, little more than the window.

    JPEG's cheaper decoding at a half, a quarter or an eighth of the size is not used: it averages
    pixels, while the resizing of the papers samples them. Results would differ by far more than
    1/255.

    Args:
        encoded: () string, the content of an image file.
        box: (4,) int32: y, x, height, width, inside the image.

    Returns:
        (height, width, 3) uint8, the pixels that `decode_image` has there.

    Raises:
        tf.errors.InvalidArgumentError: if the bytes are not such an image or corrupt. Of a JPEG
            only the size of the window is checked: call `image_size` first to check the whole.
    """
    y, x, height, width = tf.unstack(box)
    image = tf.cond(
        _starts_with(_JPEG, encoded),
        lambda: _decode_jpeg_window(encoded, box),
        lambda: decode_image(encoded)[y : y + height, x : x + width],
    )
    image.set_shape((None, None, 3))
    return image  # (height, width, 3)


def _decode_jpeg_window(encoded: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """Decodes a window of a JPEG with a margin, as colours are smoothed across its edge."""
    low = tf.maximum(box[:2] - _JPEG_MARGIN, 0)
    size = tf.io.extract_jpeg_shape(encoded)[:2]
    high = tf.minimum(box[:2] + box[2:] + _JPEG_MARGIN, size)
    image = tf.io.decode_and_crop_jpeg(
        encoded, tf.concat([low, high - low], 0), channels=3, dct_method="INTEGER_ACCURATE"
    )
    return tf.slice(image, [*tf.unstack(box[:2] - low), 0], [*tf.unstack(box[2:]), 3])


@_named
def image_size(encoded: tf.Tensor) -> tf.Tensor:
    """Returns (2,) int32, height and width, from the header of an image file.

    Raises:
        tf.errors.InvalidArgumentError: if the bytes are not a JPEG, PNG, BMP or GIF, or the image
            has more than MAX_PIXELS.
    """
    encoded = tf.convert_to_tensor(encoded, tf.string)
    size = tf.case(
        [
            (_starts_with(_JPEG, encoded), lambda: tf.io.extract_jpeg_shape(encoded)[:2]),
            (_starts_with(_PNG, encoded), lambda: _png_size(encoded)),
            (_starts_with(_BMP, encoded), lambda: _bmp_size(encoded)),
            (_starts_with(_GIF, encoded), lambda: _gif_size(encoded)),
        ],
        default=lambda: tf.zeros([2], tf.int32),
        exclusive=True,
    )
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    known = tf.debugging.Assert(tf.reduce_all(size > 0), ["not a JPEG, PNG, BMP or GIF"])
    small = tf.debugging.Assert(
        pixels <= MAX_PIXELS, [f"more than {MAX_PIXELS:,} pixels (height, width):", size]
    )
    with tf.control_dependencies([op for op in (known, small) if op is not None]):
        return tf.ensure_shape(tf.identity(size), [2])


def _starts_with(signature: bytes, encoded: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, 2), signature)


def _png_size(encoded: tf.Tensor) -> tf.Tensor:
    head = tf.strings.substr(encoded, 16, 8)  # The header chunk comes first: width, height.
    return tf.io.decode_raw(head, tf.int32, little_endian=False)[::-1]


def _bmp_size(encoded: tf.Tensor) -> tf.Tensor:
    width, height = _int32_at(encoded, 18), _int32_at(encoded, 22)
    return tf.stack([tf.abs(height), width])  # A negative height: rows from the top.


def _gif_size(encoded: tf.Tensor) -> tf.Tensor:
    head = tf.io.decode_raw(tf.strings.substr(encoded, 6, 4), tf.uint16)
    return tf.cast(head, tf.int32)[::-1]


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
