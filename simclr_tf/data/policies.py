"""Policies: which operations make a view, with which settings; and each operation itself."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from simclr_tf import errors
from simclr_tf.data import (
    augment,
    autoaugment,
    conditional,
    geometry,
    jitter,
    operation_names,
    tones,
)

_COLOR_DROP_PROBABILITY = 0.2
# SimCLR's figure 4 shows these ops without their settings; the settings are ours.
_CUTOUT_SHARE = 0.5
_NOISE = (0.0, 0.2)
# The paper (app. B.2) gives no share for its broader policy; SupCon's code warps half of the views.
_BROADER_PROBABILITY = 0.2
_WARP_PROBABILITY = 0.5


@dataclasses.dataclass(frozen=True)
class Policy:
    """Which operations make a view, with the paper's settings (Chen et al. 2020, App. A).

    Attributes:
        image_size: side of a view in pixels, at least 1.
        ops: names of operations, first to last; a view is cropped first if "crop" is among them,
            otherwise only resized, where it differs.
        crop_area: smallest and largest share of the image's area, in (0, 1]; never below 0.1.
        color_jitter_strength: at least 0; 0 removes jitter and grey, as in the reference code.
        additive_brightness: see `jitter.sample_jitter`.
        random_jitter_order: see `jitter.sample_jitter`.
        randaugment_layers: how many ops RandAugment takes.
        randaugment_level: how strong they are, from 0 to 10.
        branches: "both", or "one" to leave every second view of an image at its crop, as in the
            paper's study of single operations (sec. 3.1).
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
        if not 0 <= self.randaugment_level <= 10 or self.randaugment_layers < 1:
            raise errors.UserError(
                f"RandAugment takes 1 layer or more at a level from 0 to 10, not "
                f"{self.randaugment_layers} at {self.randaugment_level}."
            )
        if self.branches not in operation_names.BRANCHES:
            raise errors.UserError(
                f"branches is {self.branches!r}; give {' or '.join(operation_names.BRANCHES)}."
            )
        operation_names.parse(
            ",".join(self.ops or (operation_names.CROP,))
        )  # Refuses unknown names.

    def without(self, *ops: str) -> Policy:
        """Returns the policy less some operations."""
        return dataclasses.replace(self, ops=tuple(op for op in self.ops if op not in ops))


class Operation(NamedTuple):
    """An operation on views, with its sampling apart from its applying.

    Attributes:
        sample: (seed (2,), number n, policy) -> parameters, whose tensors begin with n.
        apply: (images (n, 3, s, s), parameters, policy) -> images, in [0, 1] if they were.
        fused: whether it works pixel by pixel, so that XLA makes one pass of it and its neighbours.
        alone: whether XLA is good at it on one image at a time.
    """

    sample: Callable[[tf.Tensor, augment.Size, Policy], Any]
    apply: Callable[[tf.Tensor, Any, Policy], tf.Tensor]
    fused: bool = True
    alone: bool = True


def _flags(probability: float) -> Callable[[tf.Tensor, augment.Size, Policy], tf.Tensor]:
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
    for_sigma, for_noise = augment.split_seed(seed, 2)
    sigma = augment.uniform(for_sigma, (n, 1, 1, 1), *_NOISE)
    return sigma * augment.normal(for_noise, (n, 3, policy.image_size, policy.image_size))


def _sample_warp(seed: tf.Tensor, n: augment.Size, policy: Policy) -> tuple[tf.Tensor, tf.Tensor]:
    for_moves, for_flags = augment.split_seed(seed, 2)
    moves = geometry.sample_warp(for_moves, n, policy.image_size)
    return moves, augment.sample_flags(for_flags, n, probability=_WARP_PROBABILITY)


def _some(value: float, otherwise: float) -> Callable[[tf.Tensor, augment.Size, Policy], tf.Tensor]:
    """Draws `value` for a fifth of the views."""

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
        alone=False,
    )


def _sample_randaugment(
    seed: tf.Tensor, n: augment.Size, policy: Policy
) -> autoaugment.PolicyParams:
    return autoaugment.sample_randaugment(
        seed, n, num_layers=policy.randaugment_layers, level=policy.randaugment_level
    )


# By the names and in the order of `compositions.OPERATIONS`.
OPERATIONS: dict[str, Operation] = {
    "flip": Operation(_flags(0.5), lambda x, p, _: augment.flip(x, p)),
    "color_jitter": Operation(_sample_jitter, _jitter),
    "color_drop": Operation(_flags(_COLOR_DROP_PROBABILITY), _color_drop),
    "blur": Operation(lambda seed, n, _: augment.sample_blur(seed, n), _blur, fused=False),
    "rotate": Operation(
        lambda seed, n, _: geometry.sample_turns(seed, n), lambda x, p, _: geometry.turn(x, p)
    ),
    "cutout": Operation(
        lambda seed, n, policy: geometry.sample_cutout(
            seed, n, policy.image_size, share=_CUTOUT_SHARE
        ),
        lambda x, p, _: geometry.cutout(x, p),
    ),
    "noise": Operation(_sample_noise, lambda x, p, _: tones.add_noise(x, p)),
    "sobel": Operation(lambda *_: (), lambda x, *_: tones.sobel(x)),
    "solarize": Operation(_some(0.5, 2.0), lambda x, p, _: tones.solarize(x, p)),
    "equalize": Operation(_flags(_BROADER_PROBABILITY), _equalize, fused=False, alone=False),
    "posterize": Operation(_some(4.0, 8.0), _posterize),
    "warp": Operation(_sample_warp, lambda x, p, _: geometry.warp(x, *p), fused=False, alone=False),
    "autoaugment": _autoaugment("imagenet"),
    "autoaugment_cifar10": _autoaugment("cifar10"),
    "randaugment": Operation(
        _sample_randaugment,
        lambda x, p, _: autoaugment.apply_policy(x, p),
        fused=False,
        alone=False,
    ),
}
