"""Checks and prepares what the signatures of a SavedModel take, in the graph.

Whatever is refused is refused before memory is taken for it, in a sentence that says what to do.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf import pixel_format
from simclr_tf.data import checks, crops, decode, scaling

# Values that are beyond [0, 1] by no more, a step of 8 bits, are clipped: rounding is no mistake.
TOLERANCE = 1 / 255
# The longer side of an image may be as many times the shorter one. Of a longer strip, the square
# that is kept shows next to nothing.
MAX_ASPECT = 100
# Images of a request that are decoded at a time, each of which may take 600 MB.
_AT_A_TIME = 4


def prepare_images(
    images: tf.Tensor, size: int, pixels: pixel_format.PixelFormat = pixel_format.RGB
) -> tf.Tensor:
    """Scales, crops and resizes images as in evaluation.

    Args:
        images: (b, h, w, c): of 8-bit RGB, float32 in [0, 1] or uint8; of others the values that
            they are stored with, float32 or of their type.
        size: side of the results, s.
        pixels: the pixels of the images.

    Returns:
        (max(b, 1), s, s, c) float32 in [0, 1].

    Raises:
        tf.errors.InvalidArgumentError: when the op runs, if values or sides are out of range.
    """
    images = _at_least_one(images)
    images = _with_usable_sides(images, tf.shape(images)[1:3])
    if not pixels.is_rgb:
        images = scaling.to_unit(_finite(images), pixels)
    elif images.dtype == tf.float32:
        images = _in_range(images)
    shape = [None, size, size, pixels.channels]
    return tf.ensure_shape(crops.evaluation_image(images, size), shape)


def check_prepared(images: tf.Tensor, size: int) -> tf.Tensor:
    """Returns images that a caller has prepared, (b, s, s, c) float32, at least one.

    Raises:
        tf.errors.InvalidArgumentError: when the op runs, if values or sides are wrong.
    """
    images = tf.clip_by_value(_in_range(_at_least_one(images)), 0.0, 1.0)
    return tf.ensure_shape(images, [None, size, size, images.shape[3]])


def prepare_bytes(
    image_bytes: tf.Tensor,
    size: int,
    pixels: pixel_format.PixelFormat = pixel_format.RGB,
    *,
    strict: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes images, and crops and resizes them as in evaluation.

    Args:
        image_bytes: (b,) string, the contents of image files.
        size: side of the results, s.
        pixels: the pixels of the images.
        strict: whether to raise the error of an image that cannot be used; otherwise it is black.

    Returns:
        (max(b, 1), s, s, c) float32 in [0, 1], and (b,) bool, which images could be used.

    Raises:
        tf.errors.InvalidArgumentError: when the op runs, for the first image that is refused.
    """
    count = tf.size(image_bytes, tf.int64)

    def prepare(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return index, _prepare_one(image_bytes[index], size, pixels)

    # Only a data set can go on after an error.
    prepare = tf.autograph.experimental.do_not_convert(prepare)
    prepared = tf.data.Dataset.range(count).map(prepare, num_parallel_calls=_AT_A_TIME)
    if not strict:
        prepared = prepared.ignore_errors()
    # One more row, so that there is always one.
    shape = [size, size, pixels.channels]
    last = tf.data.Dataset.from_tensors((count, tf.zeros(shape)))
    rows = prepared.concatenate(last).batch(count + 1).with_options(_options())
    indices, images = rows.get_single_element()
    indices = indices[:, tf.newaxis]
    valid = tf.scatter_nd(indices, tf.ones_like(indices[:, 0], tf.bool), [count + 1])
    if not strict:
        images = tf.scatter_nd(indices, images, tf.stack([count + 1, *shape]))
    images = images[: tf.maximum(count, 1)]
    return tf.ensure_shape(images, [None, *shape]), valid[:count]


def _options() -> tf.data.Options:
    """Returns options for a data set that exists for one request: nothing is tuned."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _prepare_one(encoded: tf.Tensor, size: int, pixels: pixel_format.PixelFormat) -> tf.Tensor:
    """Returns (s, s, c) float32 of the content of a file, whose header is checked first."""
    if not pixels.is_rgb:
        image = crops.unit_image(encoded, pixels, with_python=False)
        image = _with_usable_sides(image, tf.shape(image)[:2])
        return tf.ensure_shape(crops.evaluation_image(image, size), [size, size, pixels.channels])
    # Pillow is not in a SavedModel, which refuses what TensorFlow alone does not decode.
    header = decode.read_header(encoded, with_pillow=False)
    sides = _with_usable_sides(header.size, header.size)
    with tf.control_dependencies([sides]):
        encoded = tf.identity(encoded)
    header = header._replace(size=sides)
    return crops.evaluation_encoded(encoded, header, size, with_pillow=False)


def _at_least_one(images: tf.Tensor) -> tf.Tensor:
    """Appends a black image to an empty batch, which convolutions do not take."""
    count, height, width, _ = tf.unstack(tf.shape(images))
    missing = tf.cast(count == 0, tf.int32)
    # An empty batch may have sides of 0, too. No branches: these do not compile for TPUs.
    sides = tf.maximum(height, missing), tf.maximum(width, missing)
    images = tf.reshape(images, [count, *sides, images.shape[3]])
    return tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])


def _with_usable_sides(result: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
    """Returns a tensor, and raises an error if the sides (2,) int32 of an image are unusable."""
    short, long = tf.reduce_min(sides), tf.reduce_max(sides)
    empty = "The image has no pixels (height, width):"
    result = checks.asserted(result, short > 0, [empty, sides])
    strip = (
        f"The longer side of the image is more than {MAX_ASPECT} times the shorter one; crop it "
        "(height, width):"
    )
    result = checks.asserted(result, long <= MAX_ASPECT * short, [strip, sides])
    pixels = tf.reduce_prod(tf.cast(sides, tf.int64))
    large = f"The image has more than {decode.MAX_PIXELS:,} pixels; make it smaller:"
    return checks.asserted(result, pixels <= decode.MAX_PIXELS, [large, sides])


def _finite(images: tf.Tensor) -> tf.Tensor:
    """Returns images, and raises an error if values are not numbers."""
    if not images.dtype.is_floating:
        return images
    refusal = "The values of images must be numbers, neither NaN nor infinite."
    return checks.asserted(images, tf.reduce_all(tf.math.is_finite(images)), [refusal])


def _in_range(images: tf.Tensor) -> tf.Tensor:
    """Returns images, and raises an error if values are beyond [0, 1], or not numbers."""
    fine = (images >= -TOLERANCE) & (images <= 1 + TOLERANCE)  # NaN is neither.
    refusal = (
        "The values of images must be between 0 and 1: divide values from 0 to 255 by 255, or send "
        "uint8 to the signature serving_uint8; clip what an interpolation exceeds. Least and "
        "greatest value:"
    )
    extremes = [tf.reduce_min(images), tf.reduce_max(images)]
    return checks.asserted(images, tf.reduce_all(fine), [refusal, *extremes])
