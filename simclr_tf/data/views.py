"""Makes views of images by the operations of a policy."""

from __future__ import annotations

from collections.abc import Callable
import functools
import itertools
from typing import Any, NamedTuple

import tensorflow as tf

from simclr_tf.data import augment, crops, operation_names, policies, random, scaling

# Sides in pixels; see `_compiled` and `_passes`.
_COMPILE_FROM, _FUSE_UP_TO = 16, 64


class Subset(NamedTuple):
    """Which images of a batch are given, when replicas split the batch.

    Parameters are drawn for the whole batch and gathered by index, so that views do not depend on
    the number of replicas.

    Attributes:
        indices: (b,) int32, index of each image in the batch.
        total: number of images in the batch.
    """

    indices: tf.Tensor
    total: int


def make_views(
    images: tf.Tensor,
    seed: tf.Tensor,
    policy: policies.Policy,
    *,
    num_views: int,
    subset: Subset | None = None,
    one_by_one: bool = False,
) -> tf.Tensor:
    """Makes random views of every image of a batch whose images have one size.

    Batched, and XLA can compile it. For images of different sizes use `crops.crop_encoded` on
    each, batch the results, and pass them to `distort_views`.

    Args:
        images: (b, h, w, c) as they are stored, see the policy's `pixels`; of 8-bit RGB, uint8 or
            float32 in [0, 1].
        seed: (2,) int32; equal seeds make equal views, on every device.
        policy: the operations and their settings.
        num_views: v, at least 1.
        subset: which images of the seed's batch these are; None for all.
        one_by_one: whether each view passes through all of its operations, and only those, before
            the next: fast on a CPU, slow on an accelerator. The views are the same.

    Returns:
        (b, v, s, s, c) float32 in [0, 1], s being the policy's image size.
    """
    for_crop, for_rest = random.split_seed(seed, 2)
    batch, height, width, _ = _shape(images)
    planes = _to_planes(policy, num_views)(images)  # (b * v, c, h, w)
    total = subset.total if subset else batch
    boxes = crops.crop_boxes(for_crop, total * num_views, height, width, policy)
    boxes = _gather(boxes, subset, num_views)
    planes = augment.crop_and_resize(planes, boxes, policy.image_size)  # `_distort` clips.
    made = _distort(planes, for_rest, policy, num_views, subset, one_by_one=one_by_one)
    return tf.reshape(made, [batch, num_views, *made.shape[1:]])


def distort_views(
    cropped: tf.Tensor,
    seed: tf.Tensor,
    policy: policies.Policy,
    *,
    subset: Subset | None = None,
    one_by_one: bool = False,
) -> tf.Tensor:
    """Applies the policy's remaining operations to crops.

    Every operation has its own seed: removing one does not change what the others draw.

    Args:
        cropped: (b, v, s, s, c) float32, or slightly beyond its range: the result of
            `crops.crop_encoded`. Of 8-bit RGB from 0 to 255, of others from 0 to 1.
        seed: (2,) int32.
        policy: the operations and their settings.
        subset: which images of the seed's batch these are; None for all.
        one_by_one: as for `make_views`.

    Returns:
        (b, v, s, s, c) float32 in [0, 1].
    """
    batch, num_views, *rest = _shape(cropped)
    images = tf.reshape(cropped, [batch * num_views, *rest])  # (b * v, s, s, c)
    scale = 1 / 255 if policy.pixels.is_rgb else 1.0
    made = _distort(images, seed, policy, num_views, subset, scale=scale, one_by_one=one_by_one)
    return tf.reshape(made, [batch, num_views, *rest])


def _distort(
    images: tf.Tensor,
    seed: tf.Tensor,
    policy: policies.Policy,
    num_views: int,
    subset: Subset | None,
    *,
    scale: float | None = None,
    one_by_one: bool,
) -> tf.Tensor:
    """Implements `distort_views` for planes (b * v, c, s, s), or pixels (b * v, s, s, c).

    Pixels are multiplied by `scale`; planes have none. Resized images may be slightly outside
    [0, 1]. Returns (b * v, s, s, c).
    """
    distort = functools.partial(_distort, scale=scale, one_by_one=one_by_one)
    if policy.branches == "one" and num_views > 1:
        images = tf.reshape(images, [-1, num_views, *images.shape[1:]])
        first = distort(images[:, 0], seed, policy, 1, subset)[:, tf.newaxis]
        rest = tf.reshape(images[:, 1:], [-1, *images.shape[2:]])
        # With the seed of the first view, a later crop would crop all views of an image alike.
        _, for_rest = random.split_seed(seed, 2)
        rest = distort(rest, for_rest, policy.only_crops, num_views - 1, subset)
        rest = tf.reshape(rest, [-1, num_views - 1, *first.shape[2:]])
        return tf.reshape(tf.concat([first, rest], axis=1), [-1, *first.shape[2:]])
    number = subset.total * num_views if subset else _shape(images)[0]
    if isinstance(number, int):  # XLA needs a static number.
        drawn = _compiled_sampler(policy, number)(seed)
    else:
        drawn = _sample_params(policy, number, seed)
    params = tf.nest.map_structure(lambda x: _gather(x, subset, num_views), drawn)
    if one_by_one and policy.image_size >= _COMPILE_FROM:
        return _apply_per_image(images, params, policy, scale)
    return _apply_batched(images, params, policy, scale)


def _apply_batched(
    images: tf.Tensor, params: dict[str, Any], policy: policies.Policy, scale: float | None
) -> tf.Tensor:
    """Applies each operation to all images before the next: fast on accelerators."""
    if scale is not None:
        images = _to_planes(policy, 1, scale, is_stored=False)(images)
    passes = _passes(policy)
    if not passes or not policies.OPERATIONS[passes[0][0]].fused:
        images = _clip(images)
    for names in passes:
        images = _operations_pass(policy, names)(images, params)
    return tf.transpose(images, [0, 2, 3, 1])


def _apply_per_image(
    images: tf.Tensor, params: dict[str, Any], policy: policies.Policy, scale: float | None
) -> tf.Tensor:
    """Applies all operations to one image before the next: fast on a CPU.

    An image stays in a core's cache, and skips the operations that do not change it.
    """
    names = [name for name in policy.ops if name != operation_names.CROP]
    groups = itertools.groupby(names, lambda name: policies.OPERATIONS[name].single)
    passes = [(single, tuple(group)) for single, group in groups]
    # The first loop converts pixels to planes, the last one planes to pixels.
    if not passes or not passes[0][0]:
        passes.insert(0, (True, ()))
    if not passes[-1][0]:
        passes.append((True, ()))
    for i, (single, group) in enumerate(passes):
        if single:
            last = i == len(passes) - 1
            images = _per_image_loop(policy, group, None if i else scale, last)(images, params)
        for name in () if single else group:
            images = policies.OPERATIONS[name].apply(images, params[name], policy)
    return images


@functools.lru_cache(maxsize=64)
def _per_image_loop(
    policy: policies.Policy, names: tuple[str, ...], scale: float | None, last: bool
) -> Callable[[tf.Tensor, dict[str, Any]], tf.Tensor]:
    """Returns a function of images and parameters that applies operations image by image.

    It takes pixels (n, s, s, c) if there is a scale, else planes (n, c, s, s), and returns pixels
    if it is the last.
    """

    def one(row: tuple[tf.Tensor, dict[str, Any]]) -> tf.Tensor:
        image, params = tf.nest.map_structure(lambda x: x[tf.newaxis], row)
        if scale is not None:
            image = tf.transpose(image * scale, [0, 3, 1, 2])
        image = _clip(image)  # (1, c, s, s)
        for name in names:
            image = policies.OPERATIONS[name].apply(image, params[name], policy)
        return tf.transpose(image, [0, 2, 3, 1])[0] if last else image[0]

    def apply(images: tf.Tensor, params: dict[str, Any]) -> tf.Tensor:
        params = {name: params[name] for name in names}
        return tf.map_fn(one, (images, params), fn_output_signature=tf.float32)

    return _compiled(apply, policy)


def _passes(policy: policies.Policy) -> list[tuple[str, ...]]:
    """Groups a policy's operations by what is compiled into one pass over the pixels.

    Only for small images. Large ones do not fit the cache, and XLA would then compute
    intermediate results twice.
    """
    names = [name for name in policy.ops if name != operation_names.CROP]
    if policy.image_size > _FUSE_UP_TO:
        return [(name,) for name in names]
    groups = itertools.groupby(names, lambda name: policies.OPERATIONS[name].fused)
    passes: list[tuple[str, ...]] = []
    for fused, group in groups:
        passes += [tuple(group)] if fused else [(name,) for name in group]
    return passes


def _sample_params(
    policy: policies.Policy, number: augment.Size, seed: tf.Tensor
) -> dict[str, Any]:
    """Draws the parameters of each operation but the crop, for a number of views."""
    seeds = dict(zip(policies.OPERATIONS, random.split_seed(seed, len(policies.OPERATIONS))))
    return {
        name: policies.OPERATIONS[name].sample(seeds[name], number, policy)
        for name in policy.ops
        if name != operation_names.CROP
    }


@functools.lru_cache(maxsize=64)
def _compiled_sampler(
    policy: policies.Policy, number: int
) -> Callable[[tf.Tensor], dict[str, Any]]:
    """Returns `_sample_params` as a function of the seed, compiled."""
    return _compiled(functools.partial(_sample_params, policy, number), policy)


@functools.lru_cache(maxsize=64)
def _operations_pass(
    policy: policies.Policy, names: tuple[str, ...]
) -> Callable[[tf.Tensor, dict[str, Any]], tf.Tensor]:
    """Returns a function of images and parameters that applies some operations in turn."""

    def apply(images: tf.Tensor, params: dict[str, Any]) -> tf.Tensor:
        if policies.OPERATIONS[names[0]].fused:
            images = _clip(images)  # Needed after a crop; free within a pass.
        for name in names:
            images = policies.OPERATIONS[name].apply(images, params[name], policy)
        return images

    return _compiled(apply, policy) if policies.OPERATIONS[names[0]].fused else apply


def _compiled(function: Callable, policy: policies.Policy) -> Callable:
    """Compiles a function by XLA, which fuses dozens of passes over the pixels into a few.

    Not for the smallest images, nor where it is called outside of a graph, so only a few times:
    compiling would take longer than it saves.
    """
    if policy.image_size < _COMPILE_FROM:
        return function
    compiled = tf.function(function, jit_compile=True, autograph=False)
    return lambda *args: (function if tf.executing_eagerly() else compiled)(*args)


def _gather(params: tf.Tensor, subset: Subset | None, num_views: int) -> tf.Tensor:
    """Gathers the rows of a subset's views from parameters (total * v, ...) of a whole batch."""
    if subset is None:
        return params
    rows = subset.indices[:, tf.newaxis] * num_views + tf.range(num_views)  # (b, v)
    return tf.gather(params, tf.reshape(rows, [-1]))


@functools.lru_cache(maxsize=64)
def _to_planes(
    policy: policies.Policy, copies: int, scale: float = 1.0, *, is_stored: bool = True
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from (n, h, w, c) to float32 (n * copies, c, h, w).

    Args:
        policy: the policy.
        copies: how often each image comes.
        scale: what values are multiplied by.
        is_stored: whether they are as stored, and not in [0, 1] or cropped.
    """

    def planes(images: tf.Tensor) -> tf.Tensor:
        if is_stored and not policy.pixels.is_rgb:
            images = scaling.to_unit(images, policy.pixels)
        else:
            images = tf.image.convert_image_dtype(images, tf.float32)
        images = tf.transpose(images * scale, [0, 3, 1, 2])
        return tf.repeat(images, copies, axis=0) if copies > 1 else images

    return _compiled(planes, policy)


def _shape(x: tf.Tensor) -> list[augment.Size]:
    """Returns the shape, with static sizes as numbers, which XLA and Keras need."""
    dynamic = tf.shape(x)
    return [dynamic[i] if size is None else size for i, size in enumerate(x.shape)]


def _clip(images: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(images, 0.0, 1.0)
