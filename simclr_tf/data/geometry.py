"""Geometric operations and cutout: batched and stateless.

Shapes as in `augment`: images are (b, 3, h, w) float32 in [0, 1], channels first. Pixels from
outside an image are grey, as in AutoAugment's code.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from simclr_tf.data import augment, conditional, random

GREY = 128 / 255
# SupCon's code moves the control points of a 224-pixel image by up to 23 pixels.
_WARP_FRACTION = 23 / 224


def sample_turns(seed: tf.Tensor, batch: augment.Size) -> tf.Tensor:
    """Draws (b,) int32, quarter turns from 0 to 3, equally likely (SimCLR, figure 4)."""
    return tf.cast(random.uniform(seed, (batch,), 0.0, 4.0), tf.int32)


def turn(images: tf.Tensor, quarters: tf.Tensor) -> tf.Tensor:
    """Turns each square image counter-clockwise by its quarter turns, as `tf.image.rot90`.

    Args:
        images: (b, 3, s, s).
        quarters: (b,) int32 from 0 to 3.

    Returns:
        (b, 3, s, s).
    """
    images = conditional.choose(quarters % 2 == 1, tf.transpose(images, [0, 1, 3, 2]), images)
    upside_down = (quarters == 1) | (quarters == 2)
    images = conditional.choose(upside_down, tf.reverse(images, [2]), images)
    return conditional.choose(quarters >= 2, tf.reverse(images, [3]), images)


def sample_cutout(seed: tf.Tensor, batch: augment.Size, side: int, *, fraction: float) -> tf.Tensor:
    """Draws (b, 4) int32 boxes y, x, height, width: squares, centred anywhere.

    Each side is `fraction` of the image's. As in DeVries and Taylor (2017), a square may cross the
    border, where it is cut off.
    """
    half = max(round(side * fraction / 2), 1)
    centres = tf.cast(random.uniform(seed, (batch, 2), 0.0, float(side)), tf.int32)
    return boxes_around(centres, tf.fill(tf.shape(centres)[:1], half), side)


def boxes_around(centres: tf.Tensor, halves: tf.Tensor, side: augment.Size) -> tf.Tensor:
    """Returns (b, 4) int32 boxes: squares of 2 * half around (y, x), cut off at the border."""
    low = tf.maximum(centres - halves[:, tf.newaxis], 0)
    high = tf.minimum(centres + halves[:, tf.newaxis], side)
    return tf.concat([low, high - low], axis=1)


def cutout(images: tf.Tensor, boxes: tf.Tensor, *, fill: float = GREY) -> tf.Tensor:
    """Covers one box (b, 4) int32 (y, x, height, width) of each image (b, 3, h, w)."""
    y, x, height, width = tf.unstack(boxes[:, tf.newaxis], axis=-1)  # (b, 1) each
    rows, columns = (tf.range(tf.shape(images)[axis])[tf.newaxis] for axis in (2, 3))
    in_rows = (rows >= y) & (rows < y + height)  # (b, h)
    in_columns = (columns >= x) & (columns < x + width)  # (b, w)
    covered = in_rows[:, tf.newaxis, :, tf.newaxis] & in_columns[:, tf.newaxis, tf.newaxis]
    return tf.where(covered, fill, images)


def rotation(degrees: tf.Tensor, height: augment.Size, width: augment.Size) -> tf.Tensor:
    """Returns (b, 6): the maps that rotate by (b,) degrees about the centre; see `transform`."""
    radians = degrees * (np.pi / 180)
    sin, cos = tf.sin(radians), tf.cos(radians)
    y, x = (tf.cast(height, tf.float32) - 1) / 2, (tf.cast(width, tf.float32) - 1) / 2
    return tf.stack([cos, -sin, x - (cos * x - sin * y), sin, cos, y - (sin * x + cos * y)], 1)


def shear(along_x: tf.Tensor, along_y: tf.Tensor) -> tf.Tensor:
    """Returns (b, 6): maps that shift rows by `along_x` (b,) times y, and columns likewise."""
    one, zero = tf.ones_like(along_x), tf.zeros_like(along_x)
    return tf.stack([one, along_x, zero, along_y, one, zero], axis=1)


def translation(by_x: tf.Tensor, by_y: tf.Tensor) -> tf.Tensor:
    """Returns (b, 6): maps that move the content left and up by (b,) pixels."""
    one, zero = tf.ones_like(by_x), tf.zeros_like(by_x)
    return tf.stack([one, zero, by_x, zero, one, by_y], axis=1)


def transform(images: tf.Tensor, maps: tf.Tensor, *, fill: float = GREY) -> tf.Tensor:
    """Applies affine maps to images by nearest-neighbour sampling.

    Args:
        images: (b, 3, h, w).
        maps: (b, 6): a, b, c, d, e, f; the pixel at (x, y) of the result is the one nearest to
            (a x + b y + c, d x + e y + f), as in `ImageProjectiveTransform`.
        fill: the value of pixels outside the image.

    Returns:
        (b, 3, h, w).
    """
    height, width = tf.shape(images)[2], tf.shape(images)[3]
    y, x = _grid(height, width)  # (1, h * w) each
    a, b, c, d, e, f = tf.unstack(maps[:, tf.newaxis], axis=-1)  # (b, 1) each
    from_x = tf.floor(a * x + b * y + c + 0.5)  # (b, h * w)
    from_y = tf.floor(d * x + e * y + f + 0.5)
    inside = (from_x >= 0) & (from_x < tf.cast(width, tf.float32))
    inside &= (from_y >= 0) & (from_y < tf.cast(height, tf.float32))
    index = tf.where(inside, from_y * tf.cast(width, tf.float32) + from_x, 0.0)
    found = _look_up(images, tf.cast(index, tf.int32))  # (b, c, h * w)
    return tf.reshape(tf.where(inside[:, tf.newaxis], found, fill), tf.shape(images))


def sample_warp(seed: tf.Tensor, batch: augment.Size, side: int) -> tf.Tensor:
    """Draws (b, 4, 2): by how many pixels (y, x) each of four inner points of an image moves.

    As in SupCon's code: Gaussian directions times a length that is uniform up to a tenth of the
    side, one length per image.
    """
    for_length, for_direction = random.split_seed(seed, 2)
    length = random.uniform(for_length, (batch, 1, 1), 0.0, _WARP_FRACTION * side)
    return length * random.normal(for_direction, (batch, 4, 2))


def warp(images: tf.Tensor, moves: tf.Tensor, apply: tf.Tensor) -> tf.Tensor:
    """Warps images by a thin-plate spline through four points, as `tfa.image.sparse_image_warp`.

    Args:
        images: (b, 3, h, w).
        moves: (b, 4, 2) pixels (y, x) by which the points at thirds of the sides move.
        apply: (b,) bool; the other images do not change.

    Returns:
        (b, 3, h, w), interpolated bilinearly; beyond the border the border pixel repeats.
    """
    height, width = tf.shape(images)[2], tf.shape(images)[3]
    thirds = tf.constant([[i / 3, j / 3] for i in (1, 2) for j in (1, 2)])
    points = thirds * tf.cast(tf.stack([height, width]), tf.float32) + moves  # (b, 4, 2)
    y, x = _grid(height, width)  # (1, h * w)
    flow = _spline(points, moves, tf.stack([y[0], x[0]], axis=-1))  # (b, h * w, 2)
    bent = _bilinear(images, y - flow[..., 0], x - flow[..., 1])
    # Rounding may exceed 1, though bilinear weights sum to 1.
    return conditional.choose(apply, tf.clip_by_value(bent, 0.0, 1.0), images)


def _spline(points: tf.Tensor, values: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
    """Interpolates (b, k, 2) values at (b, k, 2) points by thin-plate splines at (q, 2) queries."""
    k = points.shape[1]
    ones = tf.ones_like(points[..., :1])
    linear = tf.concat([points, ones], axis=-1)  # (b, k, 3)
    near = _thin_plate(points, points)  # (b, k, k)
    left = tf.concat(
        [
            tf.concat([near, linear], axis=2),
            tf.concat([tf.linalg.matrix_transpose(linear), tf.zeros_like(near[:, :3, :3])], axis=2),
        ],
        axis=1,
    )  # (b, k + 3, k + 3)
    right = tf.pad(values, [[0, 0], [0, 3], [0, 0]])  # (b, k + 3, 2)
    weights = tf.linalg.solve(left, right)
    queries = tf.broadcast_to(queries, tf.concat([tf.shape(points)[:1], tf.shape(queries)], 0))
    radial = tf.matmul(_thin_plate(queries, points), weights[:, :k])
    affine = tf.concat([queries, tf.ones_like(queries[..., :1])], axis=-1)
    return radial + tf.matmul(affine, weights[:, k:])  # (b, q, 2)


def _thin_plate(points: tf.Tensor, centres: tf.Tensor) -> tf.Tensor:
    """Returns (b, m, n): r^2 log r between (b, m, 2) and (b, n, 2)."""
    offsets = points[:, :, tf.newaxis] - centres[:, tf.newaxis]  # (b, m, n, 2)
    squares = tf.reduce_sum(tf.square(offsets), axis=-1)
    return 0.5 * squares * tf.math.log(tf.maximum(squares, 1e-10))


def _bilinear(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Interpolates (b, 3, h, w) at (b, h * w) rows and columns, which need not be whole."""
    height, width = (tf.cast(tf.shape(images)[axis], tf.float32) for axis in (2, 3))
    top = tf.clip_by_value(tf.floor(y), 0.0, tf.maximum(height - 2, 0.0))
    left = tf.clip_by_value(tf.floor(x), 0.0, tf.maximum(width - 2, 0.0))
    down, right = tf.clip_by_value(y - top, 0.0, 1.0), tf.clip_by_value(x - left, 0.0, 1.0)
    mixed = tf.zeros([])
    for rows, weight_y in ((top, 1 - down), (tf.minimum(top + 1, height - 1), down)):
        for columns, weight_x in ((left, 1 - right), (tf.minimum(left + 1, width - 1), right)):
            found = _look_up(images, tf.cast(rows * width + columns, tf.int32))
            mixed += found * (weight_y * weight_x)[:, tf.newaxis]
    return tf.reshape(mixed, tf.shape(images))


def _grid(height: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the y and the x of every pixel, (1, h * w) float32 each."""
    index = tf.range(height * width)[tf.newaxis]
    return tf.cast(index // width, tf.float32), tf.cast(index % width, tf.float32)


def _look_up(images: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Gathers (b, c, q) from (b, c, h, w) at (b, q) int32 indices, counted along the rows."""
    shape = tf.shape(images)
    channels = images.shape[1] or shape[1]
    flat = tf.reshape(images, [shape[0], channels, shape[2] * shape[3]])
    # One gather for all channels instead of one for each.
    flat = tf.transpose(flat, [0, 2, 1])  # (b, h * w, c)
    return tf.transpose(tf.gather(flat, indices, batch_dims=1), [0, 2, 1])
