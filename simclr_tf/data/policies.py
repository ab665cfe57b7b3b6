"""Policies, which are operations with their settings, and the operations themselves."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from simclr_tf import errors, pixel_format
from simclr_tf.data import (
    augment,
    autoaugment,
    channel_tones,
    conditional,
    geometry,
    jitter,
    operation_names,
    random,
    tones,
)

_COLOR_DROP_PROBABILITY = 0.2
# SimCLR's figure 4 shows these operations without their settings, which are our choice.
_CUTOUT_FRACTION = 0.5
_NOISE = (0.0, 0.2)
# The paper (app. B.2) gives no probability for its broader policy; SupCon's code warps half.
_BROADER_PROBABILITY = 0.2
_WARP_PROBABILITY = 0.5


@dataclasses.dataclass(frozen=True)
class Policy:
    """Which operations make a view, with the paper's settings (Chen et al. 2020, App. A).

    Attributes:
        image_size: side of a view in pixels, at least 1.
        ops: names of operations, first to last; a view is cropped first if "crop" is among them,
            otherwise only resized, where it differs.
        crop_area: smallest and largest fraction of the image's area, in (0, 1].
        color_jitter_strength: strength of the jitter, at least 0; 0 disables jitter and grey, as in
            the reference.
        additive_brightness: see `jitter.sample_jitter`.
        random_jitter_order: see `jitter.sample_jitter`.
        randaugment_layers: number of operations that RandAugment applies.
        randaugment_level: strength of these operations, from 0 to 10.
        branches: "both", or "one" to only crop every view of an image but the first, as in the
            paper's study of single operations (sec. 3.1).
        pixels: the pixels of the images; by default 8-bit RGB.
    """

    image_size: int
    ops: tuple[str, ...] = operation_names.POLICIES["simclr"]
    crop_area: tuple[float, float] = (0.08, 1.0)
    color_jitter_strength: float = 1.0
    additive_brightness: bool = False
    random_jitter_order: bool = True
    randaugment_layers: int = 2
    randaugment_level: float = 10.0
    branches: str = "both"
    pixels: pixel_format.PixelFormat = pixel_format.RGB

    def __post_init__(self) -> None:
        low, high = self.crop_area
        if self.image_size < 1:
            raise errors.ArgumentError("image_size", self.image_size, "must be at least 1 pixel.")
        if not 0 < low <= high <= 1:
            raise errors.ArgumentError(
                "crop_area",
                self.crop_area,
                "must be two fractions of the image with 0 < smallest <= largest <= 1.",
            )
        if not self.color_jitter_strength >= 0:
            raise errors.ArgumentError(
                "color_jitter_strength", self.color_jitter_strength, "must be at least 0 (none)."
            )
        if not 0 <= self.randaugment_level <= 10:
            raise errors.ArgumentError(
                "randaugment_level", self.randaugment_level, "must be from 0 to 10."
            )
        if self.randaugment_layers < 1:
            raise errors.ArgumentError(
                "randaugment_layers", self.randaugment_layers, "must be at least 1."
            )
        if self.branches not in operation_names.BRANCHES:
            raise errors.ArgumentError(
                "branches", self.branches, f"must be {' or '.join(operation_names.BRANCHES)}."
            )
        operation_names.parse(",".join(self.ops or (operation_names.CROP,)))  # Checks the names.

    @property
    def only_crops(self) -> Policy:
        """The policy with its crop alone, if it has one."""
        crops = (operation_names.CROP, operation_names.LATER_CROP)
        return self.without(*(op for op in self.ops if op not in crops))

    def without(self, *ops: str) -> Policy:
        """Returns the policy without some operations."""
        return dataclasses.replace(self, ops=tuple(op for op in self.ops if op not in ops))


class Operation(NamedTuple):
    """An operation on views: how its parameters are drawn, and how they are applied.

    Attributes:
        sample: (seed (2,), number n, policy) -> parameters, tensors with n rows.
        apply: (images (n, c, s, s), parameters, policy) -> images, in [0, 1] if the input is.
        fused: whether it works pixel by pixel, so that XLA can fuse it with its neighbours.
        single: whether XLA handles it well on one image at a time.
    """

    sample: Callable[[tf.Tensor, augment.Size, Policy], Any]
    apply: Callable[[tf.Tensor, Any, Policy], tf.Tensor]
    fused: bool = True
    single: bool = True


def _flag_sampler(probability: float) -> Callable[[tf.Tensor, augment.Size, Policy], tf.Tensor]:
    return lambda seed, n, _: augment.sample_flags(seed, n, probability=probability)


def _sample_jitter(seed: tf.Tensor, n: augment.Size, policy: Policy) -> jitter.JitterParams:
    return jitter.sample_jitter(
        seed,
        n,
        strength=policy.color_jitter_strength,
        additive_brightness=policy.additive_brightness,
        random_order=policy.random_jitter_order,
    )


def _jitter(images: tf.Tensor, params: jitter.JitterParams, policy: Policy) -> tf.Tensor:
    if policy.color_jitter_strength == 0:
        return images
    return jitter.jitter(images, params, additive_brightness=policy.additive_brightness)


def _color_drop(images: tf.Tensor, flags: tf.Tensor, policy: Policy) -> tf.Tensor:
    return images if policy.color_jitter_strength == 0 else jitter.color_drop(images, flags)


def _blur(images: tf.Tensor, params: augment.BlurParams, policy: Policy) -> tf.Tensor:
    size = augment.blur_kernel_size(policy.image_size)
    if size == 1:
        return images
    return augment.gaussian_blur(images, params.sigma, params.apply, kernel_size=size)


def _sample_noise(seed: tf.Tensor, n: augment.Size, policy: Policy) -> tf.Tensor:
    for_sigma, for_noise = random.split_seed(seed, 2)
    sigma = random.uniform(for_sigma, (n, 1, 1, 1), *_NOISE)
    size = policy.image_size
    return sigma * random.normal(for_noise, (n, policy.pixels.channels, size, size))


def _sample_factor(seed: tf.Tensor, n: augment.Size, policy: Policy) -> tf.Tensor:
    return channel_tones.sample_factors(seed, n, 1, strength=policy.color_jitter_strength)


def _sample_factors(seed: tf.Tensor, n: augment.Size, policy: Policy) -> tf.Tensor:
    channels = policy.pixels.channels
    return channel_tones.sample_factors(seed, n, channels, strength=policy.color_jitter_strength)


def _sample_warp(seed: tf.Tensor, n: augment.Size, policy: Policy) -> tuple[tf.Tensor, tf.Tensor]:
    for_moves, for_flags = random.split_seed(seed, 2)
    moves = geometry.sample_warp(for_moves, n, policy.image_size)
    return moves, augment.sample_flags(for_flags, n, probability=_WARP_PROBABILITY)


def _value_sampler(
    value: float, *, otherwise: float
) -> Callable[[tf.Tensor, augment.Size, Policy], tf.Tensor]:
    """Returns a function that draws `value` for a fifth of the views, `otherwise` for the rest."""

    def sample(seed: tf.Tensor, n: augment.Size, _: Policy) -> tf.Tensor:
        flags = augment.sample_flags(seed, n, probability=_BROADER_PROBABILITY)
        return tf.where(flags, value, otherwise)

    return sample


def _posterize(images: tf.Tensor, bits: tf.Tensor, _: Policy) -> tf.Tensor:
    return conditional.choose(bits < 8, tones.posterize(images, bits), images)


def _equalize(images: tf.Tensor, flags: tf.Tensor, _: Policy) -> tf.Tensor:
    return conditional.choose(flags, tones.equalize(images), images)


def _autoaugment(policy: str) -> Operation:
    return Operation(
        lambda seed, n, _: autoaugment.sample_autoaugment(seed, n, policy=policy),
        lambda images, params, _: autoaugment.apply_policy(images, params),
        fused=False,
        single=False,
    )


def _sample_randaugment(
    seed: tf.Tensor, n: augment.Size, policy: Policy
) -> autoaugment.PolicyParams:
    return autoaugment.sample_randaugment(
        seed, n, num_layers=policy.randaugment_layers, level=policy.randaugment_level
    )


def _sample_later_crop(seed: tf.Tensor, n: augment.Size, policy: Policy) -> tf.Tensor:
    sides = tf.fill([n], policy.image_size)
    return augment.sample_crops(seed, sides, sides, area=policy.crop_area)


def _later_crop(images: tf.Tensor, boxes: tf.Tensor, policy: Policy) -> tf.Tensor:
    # Bicubic weights overshoot.
    return tf.clip_by_value(augment.crop_and_resize(images, boxes, policy.image_size), 0.0, 1.0)


# With the names and in the order of `operation_names.OPERATIONS`.
OPERATIONS: dict[str, Operation] = {
    "flip": Operation(_flag_sampler(0.5), lambda x, p, _: augment.flip(x, p)),
    "color_jitter": Operation(_sample_jitter, _jitter),
    "color_drop": Operation(_flag_sampler(_COLOR_DROP_PROBABILITY), _color_drop),
    "blur": Operation(lambda seed, n, _: augment.sample_blur(seed, n), _blur, fused=False),
    "rotate": Operation(
        lambda seed, n, _: geometry.sample_turns(seed, n), lambda x, p, _: geometry.turn(x, p)
    ),
    "cutout": Operation(
        lambda seed, n, policy: geometry.sample_cutout(
            seed, n, policy.image_size, fraction=_CUTOUT_FRACTION
        ),
        lambda x, p, _: geometry.cutout(x, p),
    ),
    "noise": Operation(_sample_noise, lambda x, p, _: tones.add_noise(x, p)),
    "sobel": Operation(lambda *_: (), lambda x, *_: tones.sobel(x)),
    "solarize": Operation(_value_sampler(0.5, otherwise=2.0), lambda x, p, _: tones.solarize(x, p)),
    "equalize": Operation(
        _flag_sampler(_BROADER_PROBABILITY), _equalize, fused=False, single=False
    ),
    "posterize": Operation(_value_sampler(4.0, otherwise=8.0), _posterize),
    "warp": Operation(
        _sample_warp, lambda x, p, _: geometry.warp(x, *p), fused=False, single=False
    ),
    "autoaugment": _autoaugment("imagenet"),
    "autoaugment_cifar10": _autoaugment("cifar10"),
    "randaugment": Operation(
        _sample_randaugment,
        lambda x, p, _: autoaugment.apply_policy(x, p),
        fused=False,
        single=False,
    ),
    operation_names.LATER_CROP: Operation(
        _sample_later_crop, _later_crop, fused=False, single=False
    ),
    "flip_vertical": Operation(_flag_sampler(0.5), lambda x, p, _: augment.flip_vertical(x, p)),
    "brightness": Operation(_sample_factor, lambda x, p, _: channel_tones.brightness(x, p)),
    "contrast": Operation(_sample_factor, lambda x, p, _: channel_tones.contrast(x, p)),
    "channel_brightness": Operation(
        _sample_factors, lambda x, p, _: channel_tones.brightness(x, p)
    ),
    "channel_drop": Operation(
        lambda seed, n, policy: channel_tones.sample_drop(seed, n, policy.pixels.channels),
        lambda x, p, _: channel_tones.drop(x, p),
    ),
}
