"""Checks and prepares what the signatures of a SavedModel take, in the graph.

Whatever is refused is refused before memory is taken for it, in a sentence that says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from simclr_tf.data import crops, decode

# Values that are beyond [0, 1] by no more, a step of 8 bits, are clipped: rounding is no mistake.
TOLERANCE = 1 / 255
# The longer side of an image may be as many times the shorter one. Of a longer strip, the square
# that is kept shows next to nothing.
MAX_ASPECT = 100
# Images of a request that are decoded at a time, each of which may take 600 MB.
_AT_A_TIME = 4


def prepare_images(images: tf.Tensor, size: int) -> tf.Tensor:
    """Crops and resizes images as in evaluation.

    Args:
        images: (b, h, w, 3), float32 in [0, 1] or uint8.
        size: side of the results, s.

    Returns:
        (max(b, 1), s, s, 3) float32 in [0, 1].

    Raises:
        tf.errors.InvalidArgumentError: when the op runs, if values or sides are out of range.
    """
    images = _at_least_one(images)
    images = _with_usable_sides(images, tf.shape(images)[1:3])
    if images.dtype == tf.float32:
        images = _in_range(images)
    return tf.ensure_shape(crops.evaluation_image(images, size), [None, size, size, 3])


def check_prepared(images: tf.Tensor, size: int) -> tf.Tensor:
    """Returns images that a caller has prepared, (b, s, s, 3) float32, at least one.

    Raises:
        tf.errors.InvalidArgumentError: when the op runs, if values or sides are wrong.
    """
    images = tf.clip_by_value(_in_range(_at_least_one(images)), 0.0, 1.0)
    return tf.ensure_shape(images, [None, size, size, 3])


def prepare_bytes(
    image_bytes: tf.Tensor, size: int, *, strict: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes images, and crops and resizes them as in evaluation.

    Args:
        image_bytes: (b,) string, the contents of image files.
        size: side of the results, s.
        strict: whether to raise the error of an image that cannot be used; otherwise it is black.

    Returns:
        (max(b, 1), s, s, 3) float32 in [0, 1], and (b,) bool, which images could be used.

    Raises:
        tf.errors.InvalidArgumentError: when the op runs, for the first image that is refused.
    """
    count = tf.size(image_bytes, tf.int64)

    def prepare(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return index, _prepare_one(image_bytes[index], size)

    # Only a data set can go on after an error.
    prepare = tf.autograph.experimental.do_not_convert(prepare)
    prepared = tf.data.Dataset.range(count).map(prepare, num_parallel_calls=_AT_A_TIME)
    if not strict:
        prepared = prepared.ignore_errors()
    # One more row, so that there is always one.
    last = tf.data.Dataset.from_tensors((count, tf.zeros([size, size, 3])))
    rows = prepared.concatenate(last).batch(count + 1).with_options(_options())
    indices, images = rows.get_single_element()
    indices = indices[:, tf.newaxis]
    valid = tf.scatter_nd(indices, tf.ones_like(indices[:, 0], tf.bool), [count + 1])
    if not strict:
        images = tf.scatter_nd(indices, images, tf.stack([count + 1, size, size, 3]))
    images = images[: tf.maximum(count, 1)]
    return tf.ensure_shape(images, [None, size, size, 3]), valid[:count]


def _options() -> tf.data.Options:
    """Returns options for a data set that exists for one request: nothing is tuned."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _prepare_one(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """Returns (s, s, 3) float32 of the content of a file, whose header is checked first."""
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
    images = tf.reshape(images, [count, *sides, 3])
    return tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])


def _with_usable_sides(result: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
    """Returns a tensor, and raises an error if the sides (2,) int32 of an image are unusable."""
    short, long = tf.reduce_min(sides), tf.reduce_max(sides)
    empty = "The image has no pixels (height, width):"
    result = _asserted(result, short > 0, [empty, sides])
    strip = (
        f"The longer side of the image is more than {MAX_ASPECT} times the shorter one; crop it "
        "(height, width):"
    )
    result = _asserted(result, long <= MAX_ASPECT * short, [strip, sides])
    pixels = tf.reduce_prod(tf.cast(sides, tf.int64))
    large = f"The image has more than {decode.MAX_PIXELS:,} pixels; make it smaller:"
    return _asserted(result, pixels <= decode.MAX_PIXELS, [large, sides])


def _in_range(images: tf.Tensor) -> tf.Tensor:
    """Returns images, and raises an error if values are beyond [0, 1], or not numbers."""
    fine = (images >= -TOLERANCE) & (images <= 1 + TOLERANCE)  # NaN is neither.
    refusal = (
        "The values of images must be between 0 and 1: divide values from 0 to 255 by 255, or send "
        "uint8 to the signature serving_uint8; clip what an interpolation exceeds. Least and "
        "greatest value:"
    )
    extremes = [tf.reduce_min(images), tf.reduce_max(images)]
    return _asserted(images, tf.reduce_all(fine), [refusal, *extremes])


def _asserted(result: tf.Tensor, condition: tf.Tensor, message: Sequence[Any]) -> tf.Tensor:
    """Returns a tensor if a condition holds, and raises an error otherwise."""
    checked = tf.raw_ops.Assert(condition=condition, data=list(message), summarize=3)
    with tf.control_dependencies([] if checked is None else [checked]):
        return tf.identity(result)
