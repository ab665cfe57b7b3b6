"""SimCLR's colour distortion, batched and stateless (Chen et al. 2020, App. A).

Four operations in a random order per image, each clipped to [0, 1]. Branching per image would take
a graph of `tf.cond`s. Instead, note that brightness and contrast are affine in the pixel (A), while
saturation and hue act on different coordinates of HSV (H), so that adjacent ones merge into one
pass. Any order of the four is then a subsequence of the five passes H A H A H, and the passes that
an image does not use are identities.
"""

import functools
from typing import NamedTuple

import tensorflow as tf

from simclr_tf.data import augment, conditional, random

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
# As in tf.image.rgb_to_grayscale, which the reference uses.
_GREY = (0.2989, 0.5870, 0.1140)
_Planes = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # red, green, blue, each (b, h * w)


class JitterParams(NamedTuple):
    """What `sample_jitter` draws, one row per image.

    Attributes:
        apply: (b,) bool; images with False do not change.
        order: (b, 4) int32, a permutation of BRIGHTNESS, CONTRAST, SATURATION, HUE: first to last.
        brightness: (b,) factor of the pixels, or the value added to them.
        contrast: (b,) factor of the distance from the channel's mean.
        saturation: (b,) factor of the saturation.
        hue: (b,) shift of the hue, in turns.
    """

    apply: tf.Tensor
    order: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor


def sample_jitter(
    seed: tf.Tensor,
    batch: augment.Size,
    *,
    strength: float,
    probability: float = 0.8,
    additive_brightness: bool = False,
    random_order: bool = True,
) -> JitterParams:
    """Draws the colour jitter of each image.

    Factors are from [max(1 - 0.8s, 0), 1 + 0.8s), hue shifts from [-0.2s, 0.2s), at most half a
    turn either way. (Beyond s = 1.25 the reference fails on a negative contrast.)

    Args:
        seed: (2,) int32.
        batch: number of images.
        strength: s, at least 0; 1 for ImageNet, 0.5 for CIFAR-10 in the paper.
        probability: probability that an image is jittered at all.
        additive_brightness: whether brightness is added, from [-0.8s, 0.8s), as in the paper and
            in SimCLR's first code; otherwise it is a factor, as in the code of SimCLRv2.
        random_order: whether each image has its own order of the four operations; otherwise it is
            brightness, contrast, saturation, hue, as in the paper's pseudo-code.
    """
    seeds = random.split_seed(seed, 3)
    low, high = max(1.0 - 0.8 * strength, 0.0), 1.0 + 0.8 * strength
    turn = min(0.2 * strength, 0.5)
    drawn = random.uniform(seeds[2], (batch, 4))
    factors = low + (high - low) * drawn
    order = tf.argsort(random.uniform(seeds[1], (batch, 4)), axis=-1)
    if not random_order:
        order = tf.zeros_like(order) + tf.range(4)
    brightness = factors[:, BRIGHTNESS]
    if additive_brightness:
        brightness = 0.8 * strength * (2.0 * drawn[:, BRIGHTNESS] - 1.0)
    return JitterParams(
        apply=augment.sample_flags(seeds[0], batch, probability=probability),
        order=order,
        brightness=brightness,
        contrast=factors[:, CONTRAST],
        saturation=factors[:, SATURATION],
        hue=turn * (2.0 * drawn[:, HUE] - 1.0),
    )


def jitter(
    images: tf.Tensor, params: JitterParams, *, additive_brightness: bool = False
) -> tf.Tensor:
    """Distorts the colours of each image by its own parameters, in its own order.

    Equal to `tf.image.adjust_contrast`, `adjust_saturation`, `adjust_hue` and the product (or sum)
    with the brightness, one after another with a clip to [0, 1] after each.

    Args:
        images: (b, 3, h, w) in [0, 1].
        params: parameters, one row per image.
        additive_brightness: as for `sample_jitter`.

    Returns:
        (b, 3, h, w) in [0, 1], to rounding.
    """
    return conditional.apply_if_any(
        params.apply, lambda: _five_passes(images, params, additive_brightness), images
    )


def _five_passes(images: tf.Tensor, params: JitterParams, additive_brightness: bool) -> tf.Tensor:
    """Implements `jitter` by the passes H A H A H."""
    position = tf.argsort(params.order, axis=-1)  # (b, 4), of each operation in the order
    brightness_first = position[:, BRIGHTNESS] < position[:, CONTRAST]
    # Index of the H pass that does it: the number of affine operations before it.
    saturation_pass = _affine_ops_before(position, SATURATION)
    hue_pass = _affine_ops_before(position, HUE)
    shape = tf.shape(images)
    planes = tf.unstack(tf.reshape(images, [shape[0], 3, -1]), num=3, axis=1)  # 3 x (b, h * w)
    for i in range(3):
        saturates = params.apply & (saturation_pass == i)
        turns = params.apply & (hue_pass == i)
        change = functools.partial(
            _hue_and_saturation,
            tuple(planes),
            turn=tf.where(turns, params.hue, 0.0)[:, tf.newaxis],
            saturation=tf.where(saturates, params.saturation, 1.0)[:, tf.newaxis],
        )
        planes = conditional.apply_if_any(saturates | turns, change, tuple(planes))
        if i < 2:
            is_brightness = brightness_first if i == 0 else ~brightness_first
            planes = _affine(planes, params, is_brightness, additive_brightness)
    return tf.reshape(tf.stack(planes, axis=1), shape)  # (b, 3, h, w)


def _affine_ops_before(position: tf.Tensor, op: int) -> tf.Tensor:
    """Returns (b,) int32: how many of brightness and contrast come before `op`."""
    before = position[:, BRIGHTNESS : CONTRAST + 1] < position[:, op : op + 1]
    return tf.reduce_sum(tf.cast(before, tf.int32), axis=-1)


def _affine(
    planes: _Planes, params: JitterParams, is_brightness: tf.Tensor, additive_brightness: bool
) -> _Planes:
    """Changes the brightness where `is_brightness` (b,) is True, else the contrast, and clips."""
    factor = 1.0 if additive_brightness else params.brightness
    factor = tf.where(is_brightness, factor, params.contrast)
    factor = tf.where(params.apply, factor, 1.0)[:, tf.newaxis]  # (b, 1)
    offset = params.brightness if additive_brightness else 0.0
    offset = tf.where(is_brightness & params.apply, offset, 0.0)[:, tf.newaxis]
    # Contrast scales the distance to the channel's mean.
    keep = tf.where(is_brightness[:, tf.newaxis], 0.0, 1.0 - factor)
    means = conditional.apply_if_any(
        ~is_brightness,
        lambda: tuple(tf.reduce_mean(plane, axis=1, keepdims=True) for plane in planes),
        tuple(tf.zeros_like(plane[:, :1]) for plane in planes),
    )
    return tuple(
        tf.clip_by_value(plane * factor + (keep * mean + offset), 0.0, 1.0)
        for plane, mean in zip(planes, means)
    )


def _hue_and_saturation(planes: _Planes, *, turn: tf.Tensor, saturation: tf.Tensor) -> _Planes:
    """Shifts the hue and scales the saturation, keeping the HSV value.

    With value V and chroma C, a channel is V - C + C * bump(hue), where the bump is a trapezium
    around that channel's own hue. So converting back to RGB takes neither cases nor the saturation.
    """
    red, green, blue = planes
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    # Hue in sixths of a turn; grey pixels have chroma 0 and any hue.
    red_leads, green_leads = red >= value, green >= value
    lead = tf.where(red_leads, green - blue, tf.where(green_leads, blue - red, red - green))
    home = tf.where(red_leads, 0.0, tf.where(green_leads, 1.0 / 3.0, 2.0 / 3.0))
    hue = tf.math.divide_no_nan(lead, 6.0 * chroma) + (home + turn)
    hue = 6.0 * (hue - tf.floor(hue))  # in [0, 6)
    chroma = tf.minimum(chroma * saturation, value)
    base = value - chroma
    bumps = (tf.abs(hue - 3.0) - 1.0, 2.0 - tf.abs(hue - 2.0), 2.0 - tf.abs(hue - 4.0))
    return tuple(base + chroma * tf.clip_by_value(bump, 0.0, 1.0) for bump in bumps)


def color_drop(images: tf.Tensor, flags: tf.Tensor) -> tf.Tensor:
    """Converts the images (b, 3, h, w) whose flag (b,) is True to grey, in three equal channels."""
    return conditional.where(flags, lambda: tf.tile(grey(images), [1, 3, 1, 1]), images)


def grey(images: tf.Tensor) -> tf.Tensor:
    """Returns the luminance (b, 1, h, w) of (b, 3, h, w), as `tf.image.rgb_to_grayscale`."""
    planes = zip(tf.unstack(images, num=3, axis=1), _GREY)
    return sum(plane * weight for plane, weight in planes)[:, tf.newaxis]
