"""SimCLR's crop, flip and blur as batched, stateless functions (Chen et al. 2020, App. A).

Every operation is two functions. `sample_*` draws one set of parameters per image from a stateless
seed; the other applies them to the batch. Equal seeds give equal parameters and equal pixels, on
the host and under XLA; shapes are static.

Letters for shapes, here and in the other modules of this package:
  b: images in the batch.   v: views of an image.   h, w: height and width.   s: side of a view.
Images are float32 in [0, 1], channels first, (b, 3, h, w): twice as fast on a CPU for these
operations. `views` takes and returns them channels last.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from simclr_tf.data import conditional, random

Size: TypeAlias = int | tf.Tensor

# At the paper's setting, at least 90% of the candidates drawn per image are valid.
_CROP_CANDIDATES = 16
# TensorFlow's bicubic kernel looks its weights up in a table with this many steps per pixel.
_CUBIC_STEPS = 1024.0


class BlurParams(NamedTuple):
    """What `sample_blur` draws: `sigma` (b,) float32 in pixels, `apply` (b,) bool."""

    sigma: tf.Tensor
    apply: tf.Tensor


def sample_flags(seed: tf.Tensor, batch: Size, *, probability: float) -> tf.Tensor:
    """Draws (b,) bool, each True with `probability`."""
    return random.uniform(seed, (batch,)) < probability


def sample_crops(
    seed: tf.Tensor,
    heights: tf.Tensor,
    widths: tf.Tensor,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> tf.Tensor:
    """Draws one crop box per image as `tf.image.sample_distorted_bounding_box` does.

    The distribution is that of this op on the whole image with min_object_covered=0, not the
    paper's uniform area: the height is uniform among those that the aspect ratio allows, so small
    areas are more frequent. The reference has min_object_covered=0.1, so it never crops below 0.1
    of the image, whatever the requested range. If no candidate fits (a panorama, for example), the
    whole image is used.

    Args:
        seed: (2,) int32.
        heights: (b,) int32, in pixels.
        widths: (b,) int32, in pixels.
        area: smallest and largest fraction of the image's area, in (0, 1].
        aspect: smallest and largest width / height.

    Returns:
        (b, 4) int32: y, x, height, width.
    """
    drawn = random.uniform(seed, (heights.shape[0] or tf.shape(heights)[0], _CROP_CANDIDATES, 4))
    for_aspect, for_height, for_y, for_x = tf.unstack(drawn, axis=-1)  # (b, k) each
    ratio = aspect[0] + for_aspect * (aspect[1] - aspect[0])
    image_height = tf.cast(heights, tf.float32)[:, tf.newaxis]  # (b, 1)
    image_width = tf.cast(widths, tf.float32)[:, tf.newaxis]  # (b, 1)
    whole = image_height * image_width
    height, width, valid = _crop_sides(
        for_height, ratio, image_height, image_width, area[0] * whole, area[1] * whole
    )
    y = _integer_below(for_y, tf.maximum(image_height - height, 1.0))  # the kernel never
    x = _integer_below(for_x, tf.maximum(image_width - width, 1.0))  # draws the last position
    candidates = tf.cast(tf.stack([y, x, height, width], axis=-1), tf.int32)  # (b, k, 4)

    valid_so_far = tf.cumsum(tf.cast(valid, tf.int32), axis=1)
    first = tf.cast(valid & (valid_so_far == 1), tf.int32)
    chosen = tf.reduce_sum(candidates * first[..., tf.newaxis], axis=1)  # (b, 4)
    nothing_fits = valid_so_far[:, -1:] == 0
    return tf.where(nothing_fits, whole_boxes(heights, widths), chosen)


def whole_boxes(heights: tf.Tensor, widths: tf.Tensor) -> tf.Tensor:
    """Returns (b, 4) int32, the crop boxes of whole images."""
    heights, widths = tf.cast(heights, tf.int32), tf.cast(widths, tf.int32)
    return tf.stack([tf.zeros_like(heights), tf.zeros_like(heights), heights, widths], axis=-1)


def _crop_sides(
    fraction: tf.Tensor,
    ratio: tf.Tensor,
    image_height: tf.Tensor,
    image_width: tf.Tensor,
    min_area: tf.Tensor,
    max_area: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns height and width of boxes, whole numbers in float32, and whether they are valid."""
    highest = tf.round(tf.sqrt(max_area / ratio))
    too_wide = tf.round(highest * ratio) > image_width
    highest = tf.where(too_wide, tf.floor((image_width + 0.5) / ratio), highest)
    highest -= tf.cast(tf.round(highest * ratio) > image_width, tf.float32)
    highest = tf.minimum(highest, image_height)
    lowest = tf.minimum(tf.round(tf.sqrt(min_area / ratio)), highest)
    height = lowest + _integer_below(fraction, highest - lowest + 1.0)
    # Rounding may leave the range of areas: try one more row, then one less.
    height += tf.cast(height * tf.round(height * ratio) < min_area, tf.float32)
    height -= tf.cast(height * tf.round(height * ratio) > max_area, tf.float32)
    width = tf.round(height * ratio)
    valid = (height * width >= min_area) & (height * width <= max_area)
    valid &= (height <= image_height) & (width <= image_width) & (height > 0) & (width > 0)
    return height, width, valid


def _integer_below(fraction: tf.Tensor, bound: tf.Tensor) -> tf.Tensor:
    """Converts draws from [0, 1) to whole numbers from 0 to bound - 1, in float32."""
    return tf.minimum(tf.floor(fraction * bound), bound - 1.0)


def crop_and_resize(images: tf.Tensor, crops: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes each image's crop to a square by bicubic interpolation, as `tf.image.resize` does.

    Each view takes two small matrix products, which are fast in batches, on accelerators and under
    XLA. TensorFlow's own bicubic kernel takes one box for the whole batch and has no XLA version.

    Args:
        images: (b, 3, h, w).
        crops: (b, 4) int32: y, x, height, width.
        size: side of the result, in pixels.

    Returns:
        (b, 3, size, size), not clipped: bicubic weights overshoot at edges.
    """
    y, x, height, width = tf.unstack(crops, axis=-1)
    rows = _bicubic_weights(y, height, images.shape[2] or tf.shape(images)[2], size)
    columns = _bicubic_weights(x, width, images.shape[3] or tf.shape(images)[3], size)
    return _resample(images, rows, columns)


@tf.function(jit_compile=True, autograph=False)
def _bicubic_weights(start: tf.Tensor, length: tf.Tensor, side: Size, size: int) -> tf.Tensor:
    """Returns (b, size, side): the weight of each pixel in each pixel of the resized crop.

    As in TensorFlow's kernel: Keys' cubic with a = -0.5, half-pixel centres, fractions rounded to
    the steps of the table. Pixels outside the crop have weight 0; the other weights sum to 1.
    """
    length = tf.cast(length, tf.float32)[:, tf.newaxis]  # (b, 1)
    centre = (tf.range(size, dtype=tf.float32) + 0.5) * (length / size) - 0.5  # (b, size)
    whole = tf.floor(centre)
    centre = whole + tf.round((centre - whole) * _CUBIC_STEPS) / _CUBIC_STEPS
    pixel = tf.range(side, dtype=tf.int32) - start[:, tf.newaxis]  # (b, side), 0 at the crop's edge
    pixel = tf.cast(pixel, tf.float32)
    # Moves pixels outside the crop beyond the cubic's support: cheaper than a (b, size, side) mask.
    pixel = tf.where((pixel >= 0) & (pixel < length), pixel, -4.0)
    distance = tf.abs(pixel[:, tf.newaxis, :] - centre[:, :, tf.newaxis])  # (b, size, side)
    # Keys' two cubic pieces, factored so that each is 0 beyond its support.
    outer, inner = tf.nn.relu(2.0 - distance), tf.nn.relu(1.0 - distance)
    weights = 0.5 * (1.0 - distance) * outer * outer + (2.0 * distance - 1.0) * inner * inner
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def _resample(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Multiplies (b, 3, h, w) by weights (b, p, h) and (b, q, w) along its axes: (b, 3, p, q)."""
    images = tf.matmul(images, columns[:, tf.newaxis], transpose_b=True)  # (b, 3, h, q)
    return tf.matmul(rows[:, tf.newaxis], images)  # (b, 3, p, q)


def flip(images: tf.Tensor, flags: tf.Tensor) -> tf.Tensor:
    """Mirrors left and right the images (b, 3, h, w) whose flag (b,) is True."""
    return conditional.where(flags, lambda: tf.reverse(images, [3]), images)


def flip_vertical(images: tf.Tensor, flags: tf.Tensor) -> tf.Tensor:
    """Mirrors top and bottom of the images (b, c, h, w) whose flag (b,) is True."""
    return conditional.where(flags, lambda: tf.reverse(images, [2]), images)


def blur_kernel_size(size: int) -> int:
    """Returns the width of the blur for images of side `size`: an odd tenth of it (224: 23)."""
    return 2 * ((size // 10) // 2) + 1


def sample_blur(
    seed: tf.Tensor,
    batch: Size,
    *,
    probability: float = 0.5,
    sigma: tuple[float, float] = (0.1, 2.0),
) -> BlurParams:
    """Draws for each image whether it is blurred and how much.

    The reference draws one sigma per batch; here, as in the paper, each image has its own.
    """
    for_apply, for_sigma = random.split_seed(seed, 2)
    return BlurParams(
        sigma=random.uniform(for_sigma, (batch,), *sigma),
        apply=sample_flags(for_apply, batch, probability=probability),
    )


def gaussian_blur(
    images: tf.Tensor, sigmas: tf.Tensor, apply: tf.Tensor, *, kernel_size: int
) -> tf.Tensor:
    """Blurs each image by its own Gaussian, truncated to `kernel_size` and normalised to sum 1.

    The border is mirrored. (The reference pads with zeros, which darkens it.)

    Args:
        images: (b, 3, h, w), with h and w static and more than half of `kernel_size`.
        sigmas: (b,) in pixels.
        apply: (b,) bool; the other images do not change.
        kernel_size: odd width of the kernel in pixels; see `blur_kernel_size`.

    Returns:
        (b, 3, h, w).
    """
    return conditional.apply_if_any(
        apply, lambda: _blurred(images, sigmas, apply, kernel_size), images
    )


def _blurred(images: tf.Tensor, sigmas: tf.Tensor, apply: tf.Tensor, kernel_size: int) -> tf.Tensor:
    radius = kernel_size // 2
    offsets = np.arange(radius + 1, dtype=np.float32)
    taps = tf.exp(-0.5 * tf.square(offsets / sigmas[:, tf.newaxis]))  # (b, radius + 1)
    taps = tf.where(apply[:, tf.newaxis], taps, np.float32(offsets == 0))
    taps /= 2.0 * tf.reduce_sum(taps, axis=-1, keepdims=True) - taps[:, :1]
    for axis in (3, 2):
        images = _convolve(_pad_by_reflection(images, radius, axis), taps, axis=axis)
    return images


def _pad_by_reflection(images: tf.Tensor, width: int, axis: int) -> tf.Tensor:
    """Pads images by reflection along an axis, without repeating the border pixel."""
    if width == 0:
        return images
    side = images.shape[axis]
    near, far = [slice(None)] * 4, [slice(None)] * 4
    near[axis], far[axis] = slice(1, width + 1), slice(side - width - 1, side - 1)
    before, after = tf.reverse(images[near], [axis]), tf.reverse(images[far], [axis])
    if images.shape[0] != 1:
        return tf.concat([before, images, after], axis=axis)
    # XLA, which compiles the loop over single images, would repeat a concat for every neighbour.
    bordered = tf.zeros([n + 2 * width * (i == axis) for i, n in enumerate(images.shape)])
    others = 0b1111 ^ (1 << axis)  # Axes that are updated over their whole length.
    for start, piece in ((0, before), (width, images), (width + side, after)):
        window = {"begin": [start] * 4, "end": [start + piece.shape[axis]] * 4, "strides": [1] * 4}
        bordered = tf.raw_ops.TensorStridedSliceUpdate(
            input=bordered, value=piece, begin_mask=others, end_mask=others, **window
        )
    return bordered


# Compiled, this is one pass over the pixels; as separate ops it is one for each neighbour.
@tf.function(jit_compile=True, autograph=False)
def _convolve(padded: tf.Tensor, taps: tf.Tensor, *, axis: int) -> tf.Tensor:
    """Convolves padded images along an axis: tap 0 weighs a pixel, tap k its k-th neighbours.

    Args:
        padded: (b, 3, h, w), with borders of radius pixels.
        taps: (b, radius + 1).
        axis: 2 or 3.

    Returns:
        The images without the borders along that axis.
    """
    radius = taps.shape[1] - 1
    side = padded.shape[axis] - 2 * radius

    def shifted(by: int) -> tf.Tensor:
        window = [slice(None)] * 4
        window[axis] = slice(radius + by, radius + by + side)
        return padded[window]

    weights = tf.unstack(taps[:, :, tf.newaxis, tf.newaxis, tf.newaxis], axis=1)
    blurred = weights[0] * shifted(0)
    for k in range(1, radius + 1):
        blurred += weights[k] * (shifted(-k) + shifted(k))
    return tf.clip_by_value(
        blurred, 0.0, 1.0
    )  # Rounding may exceed 1, though the weights sum to 1.
