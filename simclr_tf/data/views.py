"""Views of images: a policy's operations, from which seeds, on a batch or a part of one."""

from __future__ import annotations

from collections.abc import Callable
import functools
import itertools
from typing import Any, NamedTuple

import tensorflow as tf

from simclr_tf.data import augment, compositions, crops, policies

# Sides in pixels; see `_compiled` and `_passes`.
_COMPILE_FROM, _FUSE_UP_TO = 16, 64


class Part(NamedTuple):
    """Which images of a larger batch are at hand, where replicas share it.

    Parameters are drawn for the whole batch and picked by place, so that views do not depend on
    how many share the work.

    Attributes:
        places: (b,) int32, where in the batch each image is.
        total: number of images in the batch.
    """

    places: tf.Tensor
    total: int


def make_views(
    images: tf.Tensor,
    seed: tf.Tensor,
    policy: policies.Policy,
    *,
    num_views: int,
    part: Part | None = None,
) -> tf.Tensor:
    """Make random views of every image of a batch whose images have one size.

    Batched, and free to be compiled by XLA. For images of different sizes use
    `crops.crop_encoded` on each, batch the results, and give them to `distort_views`.

    Args:
        images: (b, h, w, 3), uint8 or float32 in [0, 1].
        seed: (2,) int32; equal seeds make equal views, on every device.
        policy: what to do.
        num_views: v, at least 1.
        part: which images of the seed's batch these are; None for all.

    Returns:
        (b, v, s, s, 3) float32 in [0, 1], s being the policy's image size.
    """
    for_crop, for_rest = augment.split_seed(seed, 2)
    batch, height, width, _ = _shape(images)
    planes = _to_planes(policy, num_views)(images)  # (b * v, 3, h, w)
    total = part.total if part else batch
    boxes = crops.crop_boxes(for_crop, total * num_views, height, width, policy)
    boxes = _pick(boxes, part, num_views)
    planes = augment.crop_and_resize(planes, boxes, policy.image_size)  # clipped in `_distort`
    return _by_image(_distort(planes, for_rest, policy, num_views, part), num_views)


def distort_views(
    cropped: tf.Tensor, seed: tf.Tensor, policy: policies.Policy, *, part: Part | None = None
) -> tf.Tensor:
    """Do to crops what is left of the policy.

    Every operation has a seed of its own: leaving one out does not change what the others draw.

    Args:
        cropped: (b, v, s, s, 3) float32 from 0 to 255, or a little beyond: from `crops.crop_views`.
        seed: (2,) int32.
        policy: what to do.
        part: which images of the seed's batch these are; None for all.

    Returns:
        (b, v, s, s, 3) float32 in [0, 1].
    """
    batch, num_views, *rest = _shape(cropped)
    images = tf.reshape(cropped, [batch * num_views, *rest])  # (b * v, s, s, 3)
    planes = _to_planes(policy, 1, scale=1 / 255)(images)
    return _by_image(_distort(planes, seed, policy, num_views, part), num_views)


def _distort(
    images: tf.Tensor,
    seed: tf.Tensor,
    policy: policies.Policy,
    num_views: int,
    part: Part | None,
) -> tf.Tensor:
    """Do what `distort_views` promises to (b * v, 3, s, s), the views of an image side by side.

    Resized images may lie a little outside [0, 1] when they come here.
    """
    if policy.branches == "one" and num_views > 1:
        images = tf.reshape(images, [-1, num_views, *images.shape[1:]])
        first = _distort(images[:, 0], seed, policy, 1, part)
        images = tf.concat([first[:, tf.newaxis], _clip(images[:, 1:])], axis=1)
        return tf.reshape(images, [-1, *images.shape[2:]])
    number = part.total * num_views if part else _shape(images)[0]
    # XLA wants the number while the graph is built.
    known = isinstance(number, int)
    drawn = _draws(policy, number)(seed) if known else _draw(policy, number, seed)
    params = tf.nest.map_structure(lambda x: _pick(x, part, num_views), drawn)
    passes = _passes(policy)
    if not passes or not policies.OPERATIONS[passes[0][0]].fused:
        images = _clip(images)
    for names in passes:
        images = _applies(policy, names)(images, params)
    return images


def _passes(policy: policies.Policy) -> list[tuple[str, ...]]:
    """Group a policy's operations by what is compiled into one pass over the pixels.

    Together for small images. Large ones leave the cache within a pass, and XLA would then work
    out twice what it does not keep.
    """
    names = [name for name in policy.ops if name != compositions.CROP]
    if policy.image_size > _FUSE_UP_TO:
        return [(name,) for name in names]
    groups = itertools.groupby(names, lambda name: policies.OPERATIONS[name].fused)
    passes: list[tuple[str, ...]] = []
    for fused, group in groups:
        passes += [tuple(group)] if fused else [(name,) for name in group]
    return passes


def _draw(policy: policies.Policy, number: augment.Size, seed: tf.Tensor) -> dict[str, Any]:
    """Draw the parameters of each operation but the crop, for a number of views."""
    seeds = dict(zip(policies.OPERATIONS, augment.split_seed(seed, len(policies.OPERATIONS))))
    return {
        name: policies.OPERATIONS[name].sample(seeds[name], number, policy)
        for name in policy.ops
        if name != compositions.CROP
    }


@functools.lru_cache(maxsize=64)
def _draws(policy: policies.Policy, number: int) -> Callable[[tf.Tensor], dict[str, Any]]:
    """Return `_draw` as a function of the seed, compiled."""
    return _compiled(functools.partial(_draw, policy, number), policy)


@functools.lru_cache(maxsize=64)
def _applies(
    policy: policies.Policy, names: tuple[str, ...]
) -> Callable[[tf.Tensor, dict[str, Any]], tf.Tensor]:
    """Return the function of images and parameters that applies some operations in turn."""

    def apply(images: tf.Tensor, params: dict[str, Any]) -> tf.Tensor:
        if policies.OPERATIONS[names[0]].fused:
            images = _clip(images)  # After a crop; costs nothing within a pass.
        for name in names:
            images = policies.OPERATIONS[name].apply(images, params[name], policy)
        return images

    return _compiled(apply, policy) if policies.OPERATIONS[names[0]].fused else apply


def _compiled(function: Callable, policy: policies.Policy) -> Callable:
    """Compile by XLA, which turns dozens of passes over the pixels into a few.

    Not for the smallest images, where compiling takes longer than it saves.
    """
    if policy.image_size < _COMPILE_FROM:
        return function
    return tf.function(function, jit_compile=True, autograph=False)


def _pick(params: tf.Tensor, part: Part | None, num_views: int) -> tf.Tensor:
    """Pick the rows of the views at hand from parameters (total * v, ...) of a whole batch."""
    if part is None:
        return params
    rows = part.places[:, tf.newaxis] * num_views + tf.range(num_views)  # (b, v)
    return tf.gather(params, tf.reshape(rows, [-1]))


@functools.lru_cache(maxsize=64)
def _to_planes(
    policy: policies.Policy, copies: int, scale: float = 1.0
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the function from (n, h, w, 3) to float32 (n * copies, 3, h, w)."""

    def planes(images: tf.Tensor) -> tf.Tensor:
        images = tf.image.convert_image_dtype(images, tf.float32)
        images = tf.transpose(images * scale, [0, 3, 1, 2])
        return tf.repeat(images, copies, axis=0) if copies > 1 else images

    return _compiled(planes, policy)


def _by_image(images: tf.Tensor, num_views: int) -> tf.Tensor:
    """Turn (b * v, 3, s, s) into (b, v, s, s, 3)."""
    images = tf.transpose(images, [0, 2, 3, 1])  # (b * v, s, s, 3)
    number, *rest = _shape(images)
    return tf.reshape(images, [number // num_views, num_views, *rest])


def _shape(x: tf.Tensor) -> list[augment.Size]:
    """Return the shape, as numbers where they are known: XLA and Keras want them."""
    dynamic = tf.shape(x)
    return [dynamic[i] if side is None else side for i, side in enumerate(x.shape)]


def _clip(images: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(images, 0.0, 1.0)
