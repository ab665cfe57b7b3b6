"""Views of images: which augmentations make them, in which order, from which seeds."""

import dataclasses
from typing import Any

import tensorflow as tf

from simclr_tf import errors
from simclr_tf.data import augment, jitter

# Evaluation keeps this share of the shorter side, for images above this size.
_EVALUATION_CROP = 0.875
_SMALL_IMAGE = 32
_COLOR_DROP_PROBABILITY = 0.2


@dataclasses.dataclass(frozen=True)
class Policy:
    """Which augmentations make a view, with the paper's settings (Chen et al. 2020, App. A).

    Attributes:
        image_size: side of a view in pixels, at least 1.
        crop: whether to crop at random; otherwise images are only resized, where they differ.
        crop_area: smallest and largest share of the image's area, in (0, 1]; never below 0.1.
        flip: whether to mirror half of the views.
        color_jitter: whether to distort the colours of 0.8 of the views.
        color_drop: whether to make 0.2 of the views grey.
        color_jitter_strength: at least 0; 0 removes jitter and grey, as in the reference code.
        blur: whether to blur half of the views.
    """

    image_size: int
    crop: bool = True
    crop_area: tuple[float, float] = (0.08, 1.0)
    flip: bool = True
    color_jitter: bool = True
    color_drop: bool = True
    color_jitter_strength: float = 1.0
    blur: bool = True

    def __post_init__(self) -> None:
        low, high = self.crop_area
        if self.image_size < 1:
            raise errors.UserError(f"image_size is {self.image_size}; give 1 pixel or more.")
        if not 0 < low <= high <= 1 or high < augment.MIN_CROP_AREA:
            raise errors.UserError(
                f"crop_area is {low} to {high}; give two shares of the image with 0 < smallest <= "
                f"largest <= 1 and the largest at least {augment.MIN_CROP_AREA}."
            )
        if not self.color_jitter_strength >= 0:
            raise errors.UserError(
                f"color_jitter_strength is {self.color_jitter_strength}; give 0 (none) or more."
            )


def supervised_policy(image_size: int, **settings: Any) -> Policy:
    """Return the policy for training on labels: crop and flip, no colour and no blur.

    Args:
        image_size: side of a view, in pixels.
        **settings: fields of `Policy` that differ, such as `crop=False`.
    """
    plain = {"color_jitter": False, "color_drop": False, "blur": False}
    return Policy(image_size, **{**plain, **settings})


def make_views(images: tf.Tensor, seed: tf.Tensor, policy: Policy, *, num_views: int) -> tf.Tensor:
    """Make random views of every image of a batch whose images have one size.

    Batched, and free to be compiled: under `tf.function(jit_compile=True)` it is more than half as
    fast again on a CPU, inside tf.data too. For images of different sizes use `crop_views` on each,
    batch the results, and give them to `distort_views`.

    Args:
        images: (b, h, w, 3) float32 in [0, 1].
        seed: (2,) int32; equal seeds make equal views, on every device.
        policy: what to do.
        num_views: v, at least 1.

    Returns:
        (b, v, s, s, 3) float32 in [0, 1], s being the policy's image size.
    """
    for_crop, for_rest = augment.split_seed(seed, 2)
    batch, height, width, _ = _shape(images)
    images = tf.repeat(_channels_first(images), num_views, axis=0)  # (b * v, 3, h, w)
    boxes = _boxes(for_crop, batch * num_views, height, width, policy)
    images = _clip(augment.crop_and_resize(images, boxes, policy.image_size))
    return _by_image(_distort(images, for_rest, policy), num_views)


def crop_views(image: tf.Tensor, seed: tf.Tensor, policy: Policy, *, num_views: int) -> tf.Tensor:
    """Make the random crops of one image: what must happen before images can be batched.

    For tf.data on the host: TensorFlow's bicubic kernel, which large images want, has no XLA form.

    Args:
        image: (h, w, 3) float32 in [0, 1], of any size, known or not.
        seed: (2,) int32, another for every image.
        policy: of which only the crop and the size are used.
        num_views: v, at least 1.

    Returns:
        (v, s, s, 3) float32 in [0, 1].
    """
    height, width, _ = _shape(image)
    boxes = _boxes(seed, num_views, height, width, policy)
    side = [policy.image_size, policy.image_size]
    crops = [
        tf.image.resize(tf.image.crop_to_bounding_box(image, *tf.unstack(box)), side, "bicubic")
        for box in tf.unstack(boxes, num_views)
    ]
    return _clip(tf.stack(crops))  # (v, s, s, 3)


def distort_views(views: tf.Tensor, seed: tf.Tensor, policy: Policy) -> tf.Tensor:
    """Do to cropped views what is left of the policy: flip, jitter, grey, blur.

    Every op has a seed of its own: switching one off does not change what the others draw.

    Args:
        views: (b, v, s, s, 3) float32 in [0, 1].
        seed: (2,) int32.
        policy: what to do.

    Returns:
        (b, v, s, s, 3) float32 in [0, 1].
    """
    batch, num_views, *rest = _shape(views)
    images = _channels_first(tf.reshape(views, [batch * num_views, *rest]))  # (b * v, 3, s, s)
    return _by_image(_distort(images, seed, policy), num_views)


def evaluation_image(image: tf.Tensor, size: int) -> tf.Tensor:
    """Cut out the centre of an image, or of each of a batch, and resizes it to a square.

    Above 32 px it keeps 0.875 of the shorter side. At or below, it crops only what is not square,
    and an image of the right size comes back unchanged; the reference code fails on any other.

    Args:
        image: (h, w, 3) or (b, h, w, 3) float32 in [0, 1]; sizes may be unknown.
        size: side of the result, in pixels.

    Returns:
        (size, size, 3) or (b, size, size, 3) float32 in [0, 1].
    """
    height, width = tf.unstack(tf.shape(image)[-3:-1])
    side = tf.minimum(height, width)
    if size > _SMALL_IMAGE:
        side = tf.cast(tf.round(_EVALUATION_CROP * tf.cast(side, tf.float32)), tf.int32)
    y, x = (height - side + 1) // 2, (width - side + 1) // 2
    image = image[..., y : y + side, x : x + side, :]
    return _clip(tf.image.resize(image, [size, size], "bicubic"))


def _distort(images: tf.Tensor, seed: tf.Tensor, policy: Policy) -> tf.Tensor:
    """Do what `distort_views` promises to (n, 3, s, s)."""
    for_flip, for_jitter, for_drop, for_blur = augment.split_seed(seed, 4)
    number, strength = _shape(images)[0], policy.color_jitter_strength
    if policy.flip:
        flags = augment.sample_flags(for_flip, number, probability=0.5)
        images = augment.flip(images, flags)
    if policy.color_jitter and strength > 0:
        params = jitter.sample_jitter(for_jitter, number, strength=strength)
        images = jitter.jitter(images, params)
    if policy.color_drop and strength > 0:
        flags = augment.sample_flags(for_drop, number, probability=_COLOR_DROP_PROBABILITY)
        images = jitter.color_drop(images, flags)
    kernel_size = augment.blur_kernel_size(policy.image_size)
    if policy.blur and kernel_size > 1:
        sigma, apply = augment.sample_blur(for_blur, number)
        images = augment.gaussian_blur(images, sigma, apply, kernel_size=kernel_size)
    return _clip(images)


def _channels_first(images: tf.Tensor) -> tf.Tensor:
    return tf.transpose(images, [0, 3, 1, 2])  # (n, 3, h, w)


def _by_image(images: tf.Tensor, num_views: int) -> tf.Tensor:
    """Turn (b * v, 3, s, s) into (b, v, s, s, 3)."""
    images = tf.transpose(images, [0, 2, 3, 1])  # (b * v, s, s, 3)
    number, *rest = _shape(images)
    return tf.reshape(images, [number // num_views, num_views, *rest])


def _boxes(
    seed: tf.Tensor, number: augment.Size, height: augment.Size, width: augment.Size, policy: Policy
) -> tf.Tensor:
    heights, widths = tf.fill([number], height), tf.fill([number], width)
    if policy.crop:
        return augment.sample_crops(seed, heights, widths, area=policy.crop_area)
    return augment.whole_boxes(heights, widths)  # (number, 4)


def _shape(x: tf.Tensor) -> list[augment.Size]:
    """Return the shape, as numbers where they are known: XLA and Keras want them."""
    dynamic = tf.shape(x)
    return [dynamic[i] if side is None else side for i, side in enumerate(x.shape)]


def _clip(images: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(images, 0.0, 1.0)
