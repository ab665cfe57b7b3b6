"""Crops of single images, resized: random for training, the centre for evaluation."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf import pixel_format
from simclr_tf.data import augment, decode, exif, operation_names, policies, scaling, stored

# Evaluation keeps this fraction of the shorter side of images that are not small.
_EVALUATION_CROP = 0.875


def crop_boxes(
    seed: tf.Tensor,
    number: augment.Size,
    height: augment.Size,
    width: augment.Size,
    policy: policies.Policy,
) -> tf.Tensor:
    """Draws crop boxes for images of one size.

    Returns:
        (number, 4) int32: y, x, height, width; the whole image if the policy does not crop.
    """
    heights, widths = tf.fill([number], height), tf.fill([number], width)
    if operation_names.CROP in policy.ops:
        return augment.sample_crops(seed, heights, widths, area=policy.crop_area)
    return augment.whole_boxes(heights, widths)


def crop_encoded(
    encoded: tf.Tensor,
    seed: tf.Tensor,
    policy: policies.Policy,
    *,
    num_views: int,
    with_pillow: bool = True,
) -> tf.Tensor:
    """Decodes random crops of one image, so that images of different sizes can be batched.

    For tf.data on the host; resizes by TensorFlow's bicubic kernel.

    Args:
        encoded: () string, the content of an image file.
        seed: (2,) int32, different for every image.
        policy: policy whose crop, size and pixels are used; the rest is ignored.
        num_views: v, at least 1.
        with_pillow: as for `decode.decode_image`.

    Returns:
        (v, s, s, c) float32, as from `crop_views`; of other pixels than 8-bit RGB from 0 to 1.
    """
    if not policy.pixels.is_rgb:
        pixels = unit_image(encoded, policy.pixels, with_python=with_pillow)
        height, width, _ = tf.unstack(tf.shape(pixels))
        boxes = crop_boxes(seed, num_views, height, width, policy)
        return crop_views(pixels, boxes, policy.image_size)
    header = decode.read_header(encoded, with_pillow=with_pillow)
    height, width = tf.unstack(exif.upright_size(header.size, header.orientation))
    boxes = crop_boxes(seed, num_views, height, width, policy)
    window = _bounding_box(boxes)
    # (h, w, 3) uint8
    pixels = decode.decode_window(encoded, window, header, with_pillow=with_pillow)
    boxes -= tf.concat([window[:2], [0, 0]], axis=0)
    return crop_views(pixels, boxes, policy.image_size)


def crop_views(image: tf.Tensor, boxes: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes crops of one image.

    Args:
        image: (h, w, c) uint8, or float32 in [0, 1], of any size.
        boxes: (v, 4) int32: y, x, height, width; v must be static.
        size: side of the results, s.

    Returns:
        (v, s, s, c) float32 on the scale of the image, or slightly beyond where bicubic weights
        overshoot; `views.distort_views` scales and clips them.
    """
    resized = []
    for box in tf.unstack(boxes):
        y, x, height, width = tf.unstack(box)
        crop = image[y : y + height, x : x + width]
        resized.append(tf.image.resize(crop, [size, size], "bicubic"))
    return tf.stack(resized)


def unit_image(
    encoded: tf.Tensor, pixels: pixel_format.PixelFormat, *, with_python: bool = True
) -> tf.Tensor:
    """Decodes an image of other pixels than 8-bit RGB, and scales its values.

    Args:
        encoded: () string, the content of an image file.
        pixels: what it must hold.
        with_python: as for `stored.decode_stored`.

    Returns:
        (h, w, c) float32 in [0, 1].
    """
    return scaling.to_unit(stored.decode_stored(encoded, pixels, with_python=with_python), pixels)


def _bounding_box(boxes: tf.Tensor) -> tf.Tensor:
    """Returns the smallest box, (4,) int32, that contains all of (v, 4)."""
    low = tf.reduce_min(boxes[:, :2], axis=0)
    high = tf.reduce_max(boxes[:, :2] + boxes[:, 2:], axis=0)
    return tf.concat([low, high - low], axis=0)


def evaluation_image(image: tf.Tensor, size: int) -> tf.Tensor:
    """Crops the centre of an image, or of each of a batch, and resizes it to a square.

    Above 32 px it keeps 0.875 of the shorter side. At or below, it only crops to a square, and an
    image of the right size does not change; the reference fails on any other size.

    Args:
        image: (h, w, 3) or (b, h, w, 3), uint8 or float32 in [0, 1]; h and w may be dynamic.
        size: side of the result, in pixels.

    Returns:
        (size, size, 3) or (b, size, size, 3) float32 in [0, 1].
    """
    height, width = tf.unstack(tf.shape(image)[-3:-1])
    y, x, side = _evaluation_square(height, width, size)
    image = image[..., y : y + side, x : x + side, :]
    return _resize(image, size)


def evaluation_crop(size: int) -> float:
    """Returns the fraction of the shorter side that evaluation keeps, for a size of results."""
    return _EVALUATION_CROP if size > operation_names.SMALL_IMAGE else 1.0


def evaluation_encoded(
    encoded: tf.Tensor, header: decode.Header, size: int, *, with_pillow: bool = True
) -> tf.Tensor:
    """Decodes what `evaluation_image` keeps of an image; of a JPEG, little more than that.

    Args:
        encoded: () string, the content of an image file.
        header: its header, which has been checked.
        size: side of the result, in pixels.
        with_pillow: as for `decode.decode_image`.

    Returns:
        (size, size, 3) float32 in [0, 1], equal to `evaluation_image` of the decoded image.
    """
    height, width = tf.unstack(exif.upright_size(header.size, header.orientation))
    y, x, side = _evaluation_square(height, width, size)
    box = tf.stack([y, x, side, side])
    return _resize(decode.decode_window(encoded, box, header, with_pillow=with_pillow), size)


def _evaluation_square(
    height: tf.Tensor, width: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns y, x and side of the square that evaluation keeps of an image."""
    side = tf.minimum(height, width)
    share = evaluation_crop(size)
    if share < 1:
        side = tf.cast(tf.round(share * tf.cast(side, tf.float32)), tf.int32)
    return (height - side + 1) // 2, (width - side + 1) // 2, side


def _resize(images: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes (..., h, w, 3), uint8 or float32 in [0, 1], to a square of float32 in [0, 1]."""
    resized = tf.image.resize(images, [size, size], "bicubic")  # float32, on the input's scale
    if images.dtype == tf.uint8:
        resized /= 255.0
    return tf.clip_by_value(resized, 0.0, 1.0)
