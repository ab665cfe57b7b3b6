"""Decodes the bytes of an image file, of any supported kind, to RGB pixels."""

from __future__ import annotations

from collections.abc import Callable
import functools
import math
import re
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from simclr_tf.data import array_files, branches, checks, conditional, exif, headers, kinds

# Larger images, of more than 300 MB of pixels each, are refused before they are decoded.
MAX_PIXELS = 100_000_000
# Pixels around a window of a JPEG that influence the colours within it.
_JPEG_MARGIN = 16
# The most images that `decode_batch` decodes in one iteration of its loop.
_UNROLLED = 16
# Name scope of the ops of this module, by which `is_decode_error` recognises them.
_SCOPE = "decode_encoded"


def is_decode_error(error: tf.errors.OpError) -> bool:
    """Returns whether an error in a graph comes from decoding an image."""
    return bool(re.search(rf"{{{{node [^}}]*\b{_SCOPE}", str(error)))


def named(decode: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Puts the ops of a function into the name scope of what decodes images."""

    @functools.wraps(decode)
    def within(*args: Any, **settings: Any) -> tf.Tensor:
        with tf.name_scope(_SCOPE):
            return decode(*args, **settings)

    return within


@named
def decode_batch(
    encoded: tf.Tensor, shape: tuple[int, int], kind: str | None, *, with_pillow: bool = True
) -> tf.Tensor:
    """Decodes images of one size, one after another.

    For small images, thousands of which are decoded per second: saves tf.data's cost per element.

    Args:
        encoded: (b,) string.
        shape: height and width of every image.
        kind: "png" if all are PNG, which is faster, else None. These are not turned upright.
        with_pillow: as for `decode_image`.

    Returns:
        (b, h, w, 3) uint8.

    Raises:
        tf.errors.InvalidArgumentError: as for `decode_image`, or if an image has another size.
    """

    def one(content: tf.Tensor) -> tf.Tensor:
        if kind == "png":
            image = tf.io.decode_png(content, 3)
        else:
            image = decode_image(content, with_pillow=with_pillow)
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


class Header(NamedTuple):
    """What the header of an image file says.

    Attributes:
        branch: () int32, the branch for its kind.
        size: (2,) int32, height and width of the stored image.
        orientation: () int32, see `exif`.
    """

    branch: tf.Tensor
    size: tf.Tensor
    orientation: tf.Tensor


@named
def read_header(encoded: tf.Tensor, *, with_pillow: bool = True) -> Header:
    """Reads the header of an image file, and checks the size.

    Args:
        encoded: () string, the content of an image file.
        with_pillow: as for `decode_image`.

    Raises:
        tf.errors.InvalidArgumentError: when the op runs, if the bytes are not an image of a kind
            that is decoded, or the image has more than MAX_PIXELS.
    """
    encoded = tf.convert_to_tensor(encoded, tf.string)
    branch, upright, call = branches.branch_of(encoded), tf.constant([1]), conditional.in_one_op

    def other() -> tf.Tensor:
        if with_pillow:
            size = _by_pillow(array_files.size_of_picture, encoded, tf.int32)
        else:
            size = _refuse(encoded, tf.zeros([2], tf.int32))
        return tf.concat([size, upright], axis=0)

    def jpeg() -> tf.Tensor:
        orientation = call(exif.jpeg_orientation, encoded)
        return tf.concat([_jpeg_size(encoded), orientation], axis=0)

    def png() -> tf.Tensor:
        orientation = call(exif.png_orientation, encoded)
        return tf.concat([headers.png_size(encoded), orientation], axis=0)

    functions = {
        branches.PLAIN_JPEG: lambda: tf.concat([_jpeg_size(encoded), upright], axis=0),
        branches.JPEG: jpeg,
        branches.PLAIN_PNG: lambda: tf.concat([headers.png_size(encoded), upright], axis=0),
        branches.PNG: png,
        branches.GIF: lambda: tf.concat([call(headers.gif_size, encoded), upright], axis=0),
        branches.BMP: lambda: tf.concat([headers.bmp_size(encoded), upright], axis=0),
        branches.OTHER: other,
    }
    found = tf.ensure_shape(tf.switch_case(branch, functions), [3])
    return Header(branch, _checked_size(found[:2]), found[2])


def _checked_size(size: tf.Tensor) -> tf.Tensor:
    """Raises an error if an image has no pixels, or more than allowed."""
    corrupt = "The header of the image is corrupt or truncated."
    size = checks.asserted(size, tf.reduce_all(size > 0), [corrupt])
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    too_many = f"The image has more than {MAX_PIXELS:,} pixels (height, width):"
    return checks.asserted(size, pixels <= MAX_PIXELS, [too_many, size])


@named
def image_size(encoded: tf.Tensor, *, with_pillow: bool = True) -> tf.Tensor:
    """Returns (2,) int32, height and width of the upright image; see `read_header`."""
    header = read_header(encoded, with_pillow=with_pillow)
    return exif.upright_size(header.size, header.orientation)


@named
def decode_image(encoded: tf.Tensor, *, with_pillow: bool = True) -> tf.Tensor:
    """Decodes an image to RGB, in eager or graph mode.

    The kind is read from the bytes, not from a file name. TensorFlow decodes JPEG, PNG, GIF and the
    usual kinds of BMP; Pillow decodes WebP, TIFF, AVIF, JPEG 2000 and the other kinds of BMP.

    Grey, palette and CMYK images become RGB, 16-bit samples keep their upper byte, an alpha channel
    is dropped (not blended), and the first frame of an animation is used. Images are turned upright
    by the orientation in their EXIF data.

    Args:
        encoded: () string, the content of an image file.
        with_pillow: whether Pillow may decode what TensorFlow does not. It runs in this Python
            process, and so neither in a SavedModel nor on the workers of a tf.data service.

    Returns:
        (h, w, 3) uint8 pixels; h and w are unknown while a graph is built.

    Raises:
        tf.errors.InvalidArgumentError: when the op runs, if the bytes are not such an image, are
            corrupt, or hold more than MAX_PIXELS.
    """
    encoded = tf.convert_to_tensor(encoded, tf.string)
    header = read_header(encoded, with_pillow=with_pillow)
    with tf.control_dependencies([header.size]):
        encoded = tf.identity(encoded)
    image = _decode_stored(encoded, header.branch, with_pillow)
    image = exif.turn_upright(image, header.orientation)
    image.set_shape((None, None, 3))
    return image  # (h, w, 3)


def _decode_stored(encoded: tf.Tensor, branch: tf.Tensor, with_pillow: bool) -> tf.Tensor:
    """Decodes an image whose header has been checked, without turning it."""

    def png_or_gif() -> tf.Tensor:
        return tf.io.decode_image(encoded, channels=3, expand_animations=False)

    def other() -> tf.Tensor:
        if with_pillow:
            return _by_pillow(array_files.decode_picture, encoded, tf.uint8)
        return tf.zeros([1, 1, 3], tf.uint8)  # `read_header` has refused it.

    functions = dict.fromkeys((branches.PLAIN_PNG, branches.PNG, branches.GIF), png_or_gif)
    functions |= dict.fromkeys((branches.PLAIN_JPEG, branches.JPEG), lambda: _decode_jpeg(encoded))
    functions |= {branches.BMP: lambda: _decode_bmp(encoded), branches.OTHER: other}
    return tf.switch_case(branch, functions)


@named
def decode_window(
    encoded: tf.Tensor, box: tf.Tensor, header: Header | None = None, *, with_pillow: bool = True
) -> tf.Tensor:
    """Decodes a window of an image; of a JPEG, little more than the window.

    JPEG's cheaper decoding at a half, a quarter or an eighth of the size is not used: it averages
    pixels, while the resizing of the papers samples them. Results would differ by far more than
    1/255.

    Args:
        encoded: () string, the content of an image file.
        box: (4,) int32: y, x, height, width, inside the upright image.
        header: its header, if it has been read already.
        with_pillow: as for `decode_image`.

    Returns:
        (height, width, 3) uint8, the pixels that `decode_image` has there.

    Raises:
        tf.errors.InvalidArgumentError: if the bytes are not such an image or corrupt.
    """
    encoded = tf.convert_to_tensor(encoded, tf.string)
    header = header or read_header(encoded, with_pillow=with_pillow)
    box = exif.stored_box(box, header.size, header.orientation)

    def part() -> tf.Tensor:
        y, x, height, width = tf.unstack(box)
        image = _decode_stored(encoded, header.branch, with_pillow)
        return image[y : y + height, x : x + width]

    image = tf.cond(
        header.branch <= branches.JPEG,
        lambda: _decode_jpeg_window(encoded, box, header.size),
        part,
    )
    image = exif.turn_upright(image, header.orientation)
    image.set_shape((None, None, 3))
    return image  # (height, width, 3)


def _decode_jpeg_window(encoded: tf.Tensor, box: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Decodes a window of a JPEG with a margin, as colours are smoothed across its edge."""
    low = tf.maximum(box[:2] - _JPEG_MARGIN, 0)
    high = tf.minimum(box[:2] + box[2:] + _JPEG_MARGIN, size)
    image = tf.io.decode_and_crop_jpeg(
        encoded, tf.concat([low, high - low], 0), channels=3, dct_method="INTEGER_ACCURATE"
    )
    return tf.slice(image, [*tf.unstack(box[:2] - low), 0], [*tf.unstack(box[2:]), 3])


def needs_pillow(encoded: tf.Tensor) -> tf.Tensor:
    """Returns () bool, whether TensorFlow does not decode files that begin like this one."""
    return branches.branch_of(encoded) == branches.OTHER


def _by_pillow(
    function: Callable[[bytes, int], tuple[np.ndarray, str]], encoded: tf.Tensor, dtype: tf.DType
) -> tf.Tensor:
    """Calls a function of `pillow`, and raises the reason if the image cannot be used."""

    def call(content: bytes) -> tuple[np.ndarray, np.ndarray]:
        result, reason = function(content, MAX_PIXELS)
        return result, np.array(reason.encode(), object)

    if tf.executing_eagerly():  # Then numpy_function would drop zeros at the end of the content.
        result, reason = map(tf.constant, call(encoded.numpy()))
    else:
        result, reason = tf.numpy_function(call, [encoded], (dtype, tf.string), stateful=False)
    return checks.asserted(result, reason == "", ["The image", reason])


def _refuse(encoded: tf.Tensor, result: tf.Tensor) -> tf.Tensor:
    """Raises the sentence that refuses what TensorFlow does not decode."""
    sentence = conditional.in_one_op(kinds.refusal_in_graph, encoded)
    return checks.asserted(result, sentence == "", [sentence])


def _jpeg_size(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.extract_jpeg_shape(encoded)[:2]


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG as Pillow and OpenCV do; TensorFlow's default is up to 5/255 off, no faster."""
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")  # (h, w, 3)


def _decode_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes BMP, whose kernel neither converts channels nor looks colours up in a palette."""
    pixels = tf.io.decode_bmp(encoded)  # (h, w, 1 or 3 or 4)

    def coloured() -> tf.Tensor:
        palette = conditional.in_one_op(headers.bmp_palette, encoded)
        return tf.gather(palette, tf.cast(pixels[:, :, 0], tf.int32))

    # (h, w, 3)
    return tf.cond(tf.equal(tf.shape(pixels)[2], 1), coloured, lambda: pixels[:, :, :3])
