"""Similarities of a whole batch, never all in memory at once.

A contrastive loss needs, for each of n views, the log of a sum of exponentials over the n - 1
others: n * n similarities, four gigabytes of them at n = 32,768. Here they are made tile by tile
and made again for the gradient, so memory is O(n d + tile^2). Two facts make it faster, too, than
keeping them all:

  - Similarity is symmetric. Each unordered pair of tiles is multiplied once and serves the sums of
    its rows and those of its columns. Replicas share these pairs and add up what they found.
  - Cosines are at most 1. Then exp(s - 1/temperature) cannot overflow, and one exponential serves
    both sums. Where it could underflow, or projections are of any length, the largest similarity
    of each row is found first.

Letters for shapes: m views of this replica, n = R * m views in all, in t by t tiles.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import NamedTuple

import tensorflow as tf

from simclr_tf import distribute

# Side of a tile. Of 512, 1024 and 2048 the fastest on two cores: 4 MiB, about their cache.
TILE = 1024
# Below 2 / temperature = 80 no cosine is so small that its exponential is lost in float32.
_COLDEST_BOUNDED = 2 / 80
# What is added to the similarities of padding: low enough to vanish, and finite.
_NOTHING = -1e30

# (rows (t, k), columns (t, k)) -> (t, t) bool: whether a column is in the sum of a row.
Member = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class _Tiles(NamedTuple):
    """The batch cut into tiles of rows, and which of them this replica pairs with which.

    Attributes:
        views: (tiles, t, d) views of all replicas, zero where padded.
        left: (tiles, t, d + 2); `left @ right^T` is the similarities, less a bound of them.
        right: (tiles, t, d + 2).
        marks: (tiles, t, k) what `member` reads, 1 where padded; or None.
        member: who is in whose sum; None means all but itself.
        first: () int32, the first of this replica's rows of tiles.
        local: how many such rows it has.
        bounded: whether what was subtracted keeps every exponential in range.
    """

    views: tf.Tensor
    left: tf.Tensor
    right: tf.Tensor
    marks: tf.Tensor | None
    member: Member | None
    first: tf.Tensor
    local: int
    bounded: bool

    @property
    def number(self) -> int:
        """Returns the number of rows of tiles."""
        return self.views.shape[0]

    @property
    def side(self) -> int:
        """Returns t."""
        return self.views.shape[1]


def log_sum_exp(
    z: tf.Tensor,
    *,
    temperature: float,
    unit: bool,
    marks: tf.Tensor | None = None,
    member: Member | None = None,
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
    rows = z.shape[0]

    @tf.custom_gradient
    def summed(z: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        tiles = _cut(z, temperature, marks, member, tile, bounded=bounded)
        peaks = tf.zeros([tiles.number, tiles.side], z.dtype) if bounded else _peaks(tiles)
        totals = _totals(tiles, peaks)  # (tiles, t)
        found = totals > 0
        totals = tf.where(found, totals, 1)
        offset = 1 / temperature if bounded else 0.0
        logs = tf.where(found, tf.math.log(totals) + peaks + offset, 0)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            padded = tf.pad(upstream, [[0, tiles.local * tiles.side - rows]])
            weights = tf.reshape(distribute.gather(padded), totals.shape)
            weights = tf.where(found, weights / totals, 0) / temperature
            return _mine(_slopes(tiles, peaks, weights), tiles, rows)

        return _mine(logs, tiles, rows), gradient

    return summed(z)


def member_sums(z: tf.Tensor, *, marks: tf.Tensor, member: Member, tile: int = TILE) -> tf.Tensor:
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


def _member_products(z: tf.Tensor, marks: tf.Tensor, member: Member, tile: int) -> tf.Tensor:
    """Returns (m, d), the product of who picks whom, as ones and zeros, with the rows of z."""
    tiles = _cut(z, 1.0, marks, member, tile, bounded=False)

    def visit(row: tf.Tensor, column: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ones = tf.ones([tiles.side, tiles.side], z.dtype)
        by_row, by_column = _in_sums(tiles, ones, ones, row, column, otherwise=0.0)
        return (
            tf.matmul(by_row, tf.gather(tiles.views, column)),
            tf.matmul(by_column, tf.gather(tiles.views, row), transpose_a=True),
        )

    sums = distribute.add_up(_over_pairs(tiles, visit, _add, tf.zeros_like(tiles.views)))
    return _mine(sums, tiles, z.shape[0])


def _cut(
    z: tf.Tensor,
    temperature: float,
    marks: tf.Tensor | None,
    member: Member | None,
    tile: int,
    *,
    bounded: bool,
) -> _Tiles:
    """Gathers the views of all replicas and cuts them into tiles of equal size, padded a little."""
    local = math.ceil(z.shape[0] / tile)
    side = math.ceil(z.shape[0] / local)
    padding = [[0, local * side - z.shape[0]], [0, 0]]
    half_bound = -0.5 / temperature if bounded else 0.0
    offsets = tf.fill([z.shape[0], 1], tf.constant(half_bound, z.dtype))
    offsets = tf.pad(offsets, padding, constant_values=_NOTHING)
    z = tf.pad(z, padding)
    ones = tf.ones_like(offsets)

    def tiled(x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(distribute.gather(x), [-1, side, x.shape[1]])

    return _Tiles(
        tiled(z),
        tiled(tf.concat([z / temperature, offsets, ones], 1)),
        tiled(tf.concat([z, ones, offsets], 1)),
        None if marks is None else tiled(tf.pad(marks, padding, constant_values=1)),
        member,
        distribute.replica_index() * local,
        local,
        bounded,
    )


def _mine(x: tf.Tensor, tiles: _Tiles, rows: int) -> tf.Tensor:
    """Returns this replica's rows of (tiles, t, ...), without padding."""
    mine = x[tiles.first : tiles.first + tiles.local]
    return tf.reshape(mine, [tiles.local * tiles.side, *x.shape[2:]])[:rows]


def _over_pairs(
    tiles: _Tiles,
    visit: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    add: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    start: tf.Tensor,
) -> tf.Tensor:
    """Visits this replica's share of the unordered pairs of tiles, one at a time.

    Row i meets the columns i, i + 1, ... i + count // 2, counted in a circle: so every pair is met
    once, by some row, and rows have equally much to do. With an even count the farthest column
    would be met from both its sides; the second half of the rows leaves it out.

    Args:
        tiles: the batch.
        visit: (row, column) -> what it adds to the row and what to the column.
        add: (state, index, what) -> state.
        start: the state, (tiles, ...).

    Returns:
        The state after the last pair.
    """
    reach = tiles.number // 2 + 1

    def body(pair: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        row, distance = tiles.first + pair // reach, pair % reach
        column = (row + distance) % tiles.number
        seen = (2 * distance == tiles.number) & (row >= column)

        def met() -> tf.Tensor:
            of_row, of_column = visit(row, column)
            both = add(state, row, of_row)
            return tf.cond(distance == 0, lambda: both, lambda: add(both, column, of_column))

        return pair + 1, tf.cond(seen, lambda: state, met)

    pairs = tiles.local * reach
    _, state = tf.while_loop(
        lambda pair, _: pair < pairs, body, (tf.constant(0), start), parallel_iterations=1
    )
    return state


def _similarities(tiles: _Tiles, row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
    """Returns (t, t) similarities over the temperature, less their bound if there is one."""
    return tf.matmul(tf.gather(tiles.left, row), tf.gather(tiles.right, column), transpose_b=True)


def _exponentials(
    tiles: _Tiles, peaks: tf.Tensor, row: tf.Tensor, column: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the exponentials (t, t) that the sums of the rows and of the columns add up.

    Each is 0 where it is not in the sum.
    """
    s = _similarities(tiles, row, column)
    if tiles.bounded:
        by_row = by_column = tf.exp(s)
    else:
        by_row = tf.exp(s - tf.gather(peaks, row)[:, tf.newaxis])
        by_column = tf.exp(s - tf.gather(peaks, column))
    return _in_sums(tiles, by_row, by_column, row, column, otherwise=0.0)


def _in_sums(
    tiles: _Tiles,
    by_row: tf.Tensor,
    by_column: tf.Tensor,
    row: tf.Tensor,
    column: tf.Tensor,
    *,
    otherwise: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Replaces what is not in the sum of its row, and what is not in that of its column."""
    same = by_row is by_column
    by_row = _without_itself(by_row, row == column, otherwise)
    by_column = by_row if same else _without_itself(by_column, row == column, otherwise)
    if tiles.member is None or tiles.marks is None:
        return by_row, by_column
    rows, columns = tf.gather(tiles.marks, row), tf.gather(tiles.marks, column)
    in_row, in_column = tiles.member(rows, columns), tf.transpose(tiles.member(columns, rows))
    return tf.where(in_row, by_row, otherwise), tf.where(in_column, by_column, otherwise)


def _without_itself(x: tf.Tensor, on_diagonal: tf.Tensor, otherwise: float) -> tf.Tensor:
    """Replaces the diagonal of a tile that lies on the diagonal of the batch."""
    diagonal = tf.fill(x.shape[:1], tf.constant(otherwise, x.dtype))
    return tf.cond(on_diagonal, lambda: tf.linalg.set_diag(x, diagonal), lambda: x)


def _add(state: tf.Tensor, index: tf.Tensor, what: tf.Tensor) -> tf.Tensor:
    return tf.tensor_scatter_nd_add(state, [[index]], what[tf.newaxis])


def _totals(tiles: _Tiles, peaks: tf.Tensor) -> tf.Tensor:
    """Returns (tiles, t), the sums of the exponentials."""

    def visit(row: tf.Tensor, column: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        by_row, by_column = _exponentials(tiles, peaks, row, column)
        return tf.reduce_sum(by_row, 1), tf.reduce_sum(by_column, 0)

    return distribute.add_up(_over_pairs(tiles, visit, _add, tf.zeros_like(peaks)))


def _peaks(tiles: _Tiles) -> tf.Tensor:
    """Returns (tiles, t), the largest similarity in the sum of each view."""

    def visit(row: tf.Tensor, column: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        s = _similarities(tiles, row, column)
        by_row, by_column = _in_sums(tiles, s, s, row, column, otherwise=_NOTHING)
        return tf.reduce_max(by_row, 1), tf.reduce_max(by_column, 0)

    def highest(state: tf.Tensor, index: tf.Tensor, what: tf.Tensor) -> tf.Tensor:
        return tf.tensor_scatter_nd_max(state, [[index]], what[tf.newaxis])

    start = tf.fill([tiles.number, tiles.side], tf.constant(_NOTHING, tiles.left.dtype))
    mine = _over_pairs(tiles, visit, highest, start)
    return tf.reduce_max(distribute.gather(mine[tf.newaxis]), 0)


def _slopes(tiles: _Tiles, peaks: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns (tiles, t, d), the gradient by every view of all sums, each by its weight.

    A similarity stands in the sum of its row and in that of its column; its own gradient is the
    sum of both, and goes to either view along the other.
    """

    def visit(row: tf.Tensor, column: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        by_row, by_column = _exponentials(tiles, peaks, row, column)
        of_row, of_column = tf.gather(weights, row)[:, tf.newaxis], tf.gather(weights, column)
        if by_row is by_column:
            slope = by_row * (of_row + of_column)
        else:
            slope = by_row * of_row + by_column * of_column  # (t, t)
        return (
            tf.matmul(slope, tf.gather(tiles.views, column)),
            tf.matmul(slope, tf.gather(tiles.views, row), transpose_a=True),
        )

    return distribute.add_up(_over_pairs(tiles, visit, _add, tf.zeros_like(tiles.views)))
