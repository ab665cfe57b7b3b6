"""Similarities of a whole batch, never all in memory at once.

A contrastive loss needs, for each of n views, the log of a sum of exponentials over the n - 1
others: n * n similarities, four gigabytes of them at n = 32,768. Here they are made tile by tile
and made again for the gradient, so memory is O(n d + tile^2). Two facts make it faster, too, than
keeping them all: a pair of tiles is multiplied once for the sums of both (see `tiles`); and cosines
are at most 1, so that one exponential serves both. Only where that could overflow, or projections
are of any length, is the largest similarity of each row found first and taken off.

Letters for shapes: m views of this replica, n = R * m views in all, in t by t tiles.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.losses import tiles as tiles_lib

# Side of a tile. Of 512, 1024 and 2048 the fastest on two cores: 4 MiB, about their cache. Of many
# views, none of them left out, the larger tile is the faster by a tenth.
TILE, LARGE_TILE = 1024, 2048
# Exponentials of -40 to 40, their sums and the inverse of these are far from float32's ends.
_COLDEST_BOUNDED = 1 / 40


def log_sum_exp(
    z: tf.Tensor,
    *,
    temperature: float,
    unit: bool,
    marks: tf.Tensor | None = None,
    member: tiles_lib.Member | None = None,
    tile: int = TILE,
) -> tf.Tensor:
    """Sums exp(similarity / temperature) of each view to other views of the global batch.

    Value and gradient are those of the sum written out, to rounding. The gradient reaches the
    views of all replicas, as it does through `distribute.gather`; it cannot itself be
    differentiated.

    Args:
        z: (m, d) this replica's views, float32 or float64; m is the same on every replica.
        temperature: divides the products; greater than 0.
        unit: whether the rows of z have length 1.
        marks: (m, k) int32 of each view, for `member`.
        member: tells from the marks of rows and columns who is in whose sum; it must leave out
            the view itself. None sums over all others.
        tile: side of the tiles.

    Returns:
        (m,) logarithms of the sums; 0 for a view with nothing in its sum.
    """
    bounded = unit and temperature >= _COLDEST_BOUNDED

    @tf.custom_gradient
    def summed(z: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        tiles = tiles_lib.cut(z, tile, temperature=temperature, marks=marks, member=member)
        peaks = None if bounded else _peaks(tiles)
        totals = _totals(tiles, peaks)  # (tiles, t)
        found = totals > 0
        totals = tf.where(found, totals, 1)
        logs = tf.math.log(totals) if peaks is None else tf.math.log(totals) + peaks

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            weights = tf.where(found, tiles.full(upstream) / totals, 0) / temperature
            return tiles.own(_slopes(tiles, peaks, weights))

        return tiles.own(tf.where(found, logs, 0)), gradient

    return summed(z)


def member_sums(
    z: tf.Tensor, *, marks: tf.Tensor, member: tiles_lib.Member, tile: int = TILE
) -> tf.Tensor:
    """Adds up, for each view, the views of the global batch that `member` picks for it.

    Args:
        z: (m, d) this replica's views.
        marks: (m, k) int32 of each view.
        member: tells from the marks of rows and columns which columns a row adds up.
        tile: side of the tiles.

    Returns:
        (m, d) sums, through which gradients flow to the views of all replicas.
    """

    def picked_by(column: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        return tf.transpose(member(row, column))

    @tf.custom_gradient
    def summed(z: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        sums = _member_products(z, marks, member, tile)
        return sums, lambda upstream: _member_products(upstream, marks, picked_by, tile)

    return summed(z)


def _member_products(
    z: tf.Tensor, marks: tf.Tensor, member: tiles_lib.Member, tile: int
) -> tf.Tensor:
    """Returns (m, d), the product of who picks whom, as ones and zeros, with the rows of z."""
    tiles = tiles_lib.cut(z, tile, marks=marks, member=member)

    def visit(pair: tiles_lib.Pair) -> tuple[tf.Tensor, tf.Tensor]:
        ones = tf.ones([tiles.side, tiles.side], z.dtype)
        by_row, by_column = _in_sums(tiles, ones, ones, pair, otherwise=0.0)
        return _products(tiles, by_row, by_column, pair)

    start = tf.zeros_like(tiles.views)
    sums = distribute.add_up(tiles_lib.over_pairs(tiles, visit, tf.add, start))
    return tiles.own(sums)


def _products(
    tiles: tiles_lib.Tiles,
    by_row: tf.Tensor,
    by_column: tf.Tensor,
    pair: tiles_lib.Pair,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (t, d) each: the views of the column summed by weights, and those of the row."""
    return (
        tf.matmul(by_row, tf.gather(tiles.views, pair.column)),
        tf.matmul(by_column, tf.gather(tiles.views, pair.row), transpose_a=True),
    )


def _exponentials(
    tiles: tiles_lib.Tiles, peaks: tf.Tensor | None, pair: tiles_lib.Pair
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the exponentials (t, t) that the sums of the rows and of the columns add up.

    Each is 0 where it is not in the sum.
    """
    s = tiles.similarities(pair)
    if peaks is None:
        by_row = by_column = tf.exp(s)
    else:
        by_row = tf.exp(s - tf.gather(peaks, pair.row)[:, tf.newaxis])
        by_column = tf.exp(s - tf.gather(peaks, pair.column))
    return _in_sums(tiles, by_row, by_column, pair, otherwise=0.0)


def _in_sums(
    tiles: tiles_lib.Tiles,
    by_row: tf.Tensor,
    by_column: tf.Tensor,
    pair: tiles_lib.Pair,
    *,
    otherwise: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Replaces what is not in the sum of its row, and what is not in that of its column."""
    if pair.itself:
        same, diagonal = (
            by_row is by_column,
            tf.fill([tiles.side], tf.cast(otherwise, by_row.dtype)),
        )
        by_row = tf.linalg.set_diag(by_row, diagonal)
        by_column = by_row if same else tf.linalg.set_diag(by_column, diagonal)
    if tiles.member is None or tiles.marks is None:
        return by_row, by_column
    rows, columns = tf.gather(tiles.marks, pair.row), tf.gather(tiles.marks, pair.column)
    in_row, in_column = tiles.member(rows, columns), tf.transpose(tiles.member(columns, rows))
    return tf.where(in_row, by_row, otherwise), tf.where(in_column, by_column, otherwise)


def _totals(tiles: tiles_lib.Tiles, peaks: tf.Tensor | None) -> tf.Tensor:
    """Returns (tiles, t), the sums of the exponentials."""

    def visit(pair: tiles_lib.Pair) -> tuple[tf.Tensor, tf.Tensor]:
        by_row, by_column = _exponentials(tiles, peaks, pair)
        return tf.reduce_sum(by_row, 1), tf.reduce_sum(by_column, 0)

    start = tf.zeros_like(tiles.views[..., 0])
    return distribute.add_up(tiles_lib.over_pairs(tiles, visit, tf.add, start))


def _peaks(tiles: tiles_lib.Tiles) -> tf.Tensor:
    """Returns (tiles, t), the largest similarity in the sum of each view."""

    def visit(pair: tiles_lib.Pair) -> tuple[tf.Tensor, tf.Tensor]:
        s = tiles.similarities(pair)
        by_row, by_column = _in_sums(tiles, s, s, pair, otherwise=tiles_lib.NOTHING)
        return tf.reduce_max(by_row, 1), tf.reduce_max(by_column, 0)

    start = tf.fill([tiles.number, tiles.side], tf.constant(tiles_lib.NOTHING, tiles.left.dtype))
    found = tiles_lib.over_pairs(tiles, visit, tf.maximum, start)
    return tf.reduce_max(distribute.gather(found[tf.newaxis]), 0)


def _slopes(tiles: tiles_lib.Tiles, peaks: tf.Tensor | None, weights: tf.Tensor) -> tf.Tensor:
    """Returns (tiles, t, d), the gradient by every view of all sums, each by its weight.

    A similarity stands in the sum of its row and in that of its column; its own gradient is the
    sum of both, and goes to either view along the other.
    """

    def visit(pair: tiles_lib.Pair) -> tuple[tf.Tensor, tf.Tensor]:
        by_row, by_column = _exponentials(tiles, peaks, pair)
        of_row, of_column = tf.gather(weights, pair.row), tf.gather(weights, pair.column)
        if by_row is by_column:
            slope = by_row * _outer_sum(of_row, of_column)
        else:
            slope = by_row * of_row[:, tf.newaxis] + by_column * of_column  # (t, t)
        return _products(tiles, slope, slope, pair)

    start = tf.zeros_like(tiles.views)
    return distribute.add_up(tiles_lib.over_pairs(tiles, visit, tf.add, start))


def _outer_sum(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns (t, t) a_i + b_j, as a product, which takes half the time of broadcasting."""
    left, right = tf.stack([a, tf.ones_like(a)], 1), tf.stack([tf.ones_like(b), b], 1)
    return tf.matmul(left, right, transpose_b=True)
