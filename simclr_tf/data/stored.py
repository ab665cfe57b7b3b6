"""Decodes images as they are stored: with any number of channels and any depth.

PNG, JPEG, .npy and serialized tensors are decoded in a graph; .npz and TIFF by Python, see
`array_files`. Nothing is converted: an image of other channels or another type is an error.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from simclr_tf import pixel_format
from simclr_tf.data import array_files, branches, checks, decode, exif, headers, kinds, npy

# How images begin. A serialized tensor begins with its type and the tag of its shape.
_PNG, _JPEG, _NPY = b"\x89PN", b"\xff\xd8\xff", npy.START
_PICTURE, _NUMPY, _TENSOR, _OTHER = range(4)


@decode.named
def decode_stored(
    encoded: tf.Tensor, pixels: pixel_format.PixelFormat, *, with_python: bool = True
) -> tf.Tensor:
    """Decodes an image, in eager or graph mode.

    PNG and JPEG are turned upright by the orientation in their EXIF data.

    Args:
        encoded: () string, the content of an image file, or a serialized tensor.
        pixels: what it must hold.
        with_python: whether Python may decode what TensorFlow does not. It runs in this process,
            and so neither in a SavedModel nor on the workers of a tf.data service.

    Returns:
        (h, w, c) of the type of `pixels`; h and w are unknown while a graph is built.

    Raises:
        tf.errors.InvalidArgumentError: when the op runs, if it cannot be decoded, or is another.
    """
    encoded = tf.convert_to_tensor(encoded, tf.string)

    def other() -> tf.Tensor:
        if with_python:
            return _by_python(encoded, pixels)
        problem = "The image is not a file that TensorFlow decodes: PNG, JPEG or .npy."
        blank = tf.zeros([1, 1, pixels.channels], pixels.dtype)
        return checks.asserted(blank, tf.constant(False), [problem])

    functions = {
        _PICTURE: lambda: _picture(encoded, pixels),
        _NUMPY: lambda: npy.decode(encoded, pixels),
        _TENSOR: lambda: _tensor(encoded, pixels),
        _OTHER: other,
    }
    image = tf.switch_case(_kind(encoded, pixels), functions)
    image = tf.ensure_shape(image, [None, None, pixels.channels])
    if pixels.dtype == "float32":
        finite = tf.reduce_all(tf.math.is_finite(image))
        image = checks.asserted(image, finite, ["The image has values that are not numbers."])
    return image


@decode.named
def decode_batch(
    encoded: tf.Tensor,
    shape: tuple[int, int],
    pixels: pixel_format.PixelFormat,
    *,
    with_python: bool = True,
) -> tf.Tensor:
    """Decodes images of one size, one after another.

    Args:
        encoded: (b,) string.
        shape: height and width of every image.
        pixels: what they must hold.
        with_python: as for `decode_stored`.

    Returns:
        (b, h, w, c) of the type of `pixels`.
    """
    spec = tf.TensorSpec([*shape, pixels.channels], pixels.dtype)

    def one(content: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(decode_stored(content, pixels, with_python=with_python), spec.shape)

    return tf.map_fn(one, encoded, fn_output_signature=spec, parallel_iterations=1)


def problem(encoded: bytes, pixels: pixel_format.PixelFormat) -> str:
    """Returns why an image that `decode_stored` refuses cannot be used, as the rest of a sentence.

    Args:
        encoded: the content of the file.
        pixels: what it must hold.
    """
    try:
        if encoded.startswith((_PNG, _JPEG)):
            found = found_in(encoded)
            if (found.channels, found.dtype) != (pixels.channels, pixels.dtype):
                return f"has {found.described()}, and the others {pixels.described()}"
            return "is corrupt or truncated"
        array = array_files.read(encoded, pixels.channels)
        if array.dtype != pixels.dtype:
            return f"has values of {array.dtype}, and the others {pixels.dtype}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return "has values that are not numbers (NaN or infinite); replace them"
    except kinds.RefusedError as error:
        return str(error)
    return "is corrupt or truncated"


def found_in(encoded: bytes, channels: int | None = None) -> array_files.Found:
    """Returns what a file holds, of PNG and JPEG from the header alone.

    Kinds that only hold pictures count as RGB.

    Args:
        encoded: the content of the file.
        channels: as for `array_files.found_in`.

    Raises:
        kinds.RefusedError: if it cannot be used.
    """
    if encoded.startswith(_PNG):
        depth, colour = encoded[24:26]
        channels = {0: 1, 3: 3, 4: 2, 6: 4}.get(colour, 3)
        return array_files.Found(channels, "uint16" if depth == 16 else "uint8", depth != 16)
    if encoded.startswith(_JPEG):
        shape = tf.io.extract_jpeg_shape(encoded)
        return array_files.Found(int(shape[2]), "uint8", is_picture=True)
    if not array_files.is_array(encoded):
        return array_files.Found(3, "uint8", is_picture=True)
    return array_files.found_in(encoded, channels)


def _kind(encoded: tf.Tensor, pixels: pixel_format.PixelFormat) -> tf.Tensor:
    """Returns () int32, how an image is decoded."""
    tensor = bytes([8, tf.as_dtype(pixels.dtype).as_datatype_enum, 18])
    starts = ((_PICTURE, _PNG), (_PICTURE, _JPEG), (_NUMPY, _NPY), (_TENSOR, tensor))
    head = tf.io.decode_raw(encoded, tf.uint8, fixed_length=8)
    matches = [tf.reduce_all(head[: len(start)] == list(start)) for _, start in starts]
    return tf.gather([*(kind for kind, _ in starts), _OTHER], tf.argmax([*matches, True]))


def _picture(encoded: tf.Tensor, pixels: pixel_format.PixelFormat) -> tf.Tensor:
    """Decodes PNG or JPEG."""
    if pixels.dtype not in ("uint8", "uint16"):
        blank = tf.zeros([1, 1, pixels.channels], pixels.dtype)
        other = f"The image is a picture, and the others hold {pixels.dtype}."
        return checks.asserted(blank, tf.constant(False), [other])
    dtype = tf.as_dtype(pixels.dtype)
    header = decode.read_header(encoded, with_pillow=False)
    is_png = tf.equal(header.branch, branches.PNG) | tf.equal(header.branch, branches.PLAIN_PNG)
    depth = tf.where(is_png, headers.bytes_at(encoded, 24, 1)[0], 8)
    depth = tf.where(depth < 8, 8, depth)
    wrong = f"The image does not have {8 * dtype.size} bits per channel, but"
    size = checks.asserted(header.size, depth == 8 * dtype.size, [wrong, depth])
    with tf.control_dependencies([size]):
        encoded = tf.identity(encoded)

    def jpeg() -> tf.Tensor:
        image = tf.io.decode_jpeg(encoded, channels=0, dct_method="INTEGER_ACCURATE")
        return tf.cast(image, dtype)

    image = tf.cond(is_png, lambda: tf.io.decode_png(encoded, channels=0, dtype=dtype), jpeg)
    found = tf.shape(image)[2]
    problem = f"The image does not have {pixels.channels} channels, but"
    image = checks.asserted(image, found == pixels.channels, [problem, found])
    return exif.turn_upright(image, header.orientation)


def _tensor(encoded: tf.Tensor, pixels: pixel_format.PixelFormat) -> tf.Tensor:
    array = tf.io.parse_tensor(encoded, pixels.dtype)
    return npy.channels_last(array, pixels.channels)


def _by_python(encoded: tf.Tensor, pixels: pixel_format.PixelFormat) -> tf.Tensor:
    """Decodes by `array_files`, and raises the reason if the image cannot be used."""
    blank = np.zeros((1, 1, pixels.channels), pixels.dtype)

    def call(content: bytes) -> tuple[np.ndarray, np.ndarray]:
        reason = ""
        try:
            image = array_files.read(content, pixels.channels)
            if image.dtype != blank.dtype:
                reason = f"has values of {image.dtype}, and the others {pixels.dtype}"
        except kinds.RefusedError as error:
            reason = str(error)
        image = blank if reason else np.ascontiguousarray(image)
        return image, np.array(reason.encode(), object)

    if tf.executing_eagerly():  # Then numpy_function would drop zeros at the end of the content.
        image, reason = map(tf.constant, call(encoded.numpy()))
    else:
        outputs = (tf.as_dtype(pixels.dtype), tf.string)
        image, reason = tf.numpy_function(call, [encoded], outputs, stateful=False)
    return checks.asserted(image, reason == "", ["The image", reason])
