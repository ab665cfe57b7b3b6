"""Cuts the views of the global batch into tiles and iterates over all pairs of tiles.

Similarity is symmetric, so each unordered pair of tiles is computed once and serves the rows of
both. The pairs are divided among the replicas; each replica accumulates the results of its own
pairs, and the caller combines them, for example by `distribute.all_reduce_sum`.

Letters for shapes: m views of this replica, n = R * m views in all, in t by t tiles.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import tensorflow as tf

from simclr_tf import distribute

# Similarity of a padding row or column: low enough for its exponential to be 0, and finite.
MASKED = -1e30

# Attributes of rows (t, k) and of columns (t, k) -> (t, t) bool: whether the sum of a row includes
# a column.
MaskFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# (accumulated value of a tile, new contribution), of one shape -> accumulated value
CombineFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Pair(NamedTuple):
    """Two tiles to compare: different ones, or a tile with itself.

    Attributes:
        row: () int32, index of the tile whose views are the rows of the result.
        column: () int32, index of the tile whose views are the columns.
        is_diagonal: whether both are the same tile.
    """

    row: tf.Tensor
    column: tf.Tensor
    is_diagonal: bool


# Returns the contributions of a pair to its row tile and to its column tile. Only the first is
# used if the pair is diagonal.
TilePairFn = Callable[[Pair], tuple[tf.Tensor, tf.Tensor]]


class Tiles(NamedTuple):
    """The global batch in tiles.

    Attributes:
        views: (tiles, t, d) views of all replicas, zero where padded.
        left: (tiles, t, d or d + 2); `left @ right^T` is the similarities over the temperature.
        right: (tiles, t, d or d + 2).
        row_attributes: (tiles, t, k) arguments of `mask_fn`, 1 where padded; or None.
        mask_fn: which columns the sum of a row includes; None means all but the row itself.
        num_local: number of tiles that hold this replica's views.
        num_rows: m.
    """

    views: tf.Tensor
    left: tf.Tensor
    right: tf.Tensor
    row_attributes: tf.Tensor | None
    mask_fn: MaskFn | None
    num_local: int
    num_rows: int

    @property
    def num_tiles(self) -> int:
        """Number of tiles."""
        return self.views.shape[0]

    @property
    def side(self) -> int:
        """Number of views in a tile, t."""
        return self.views.shape[1]

    def similarities(self, pair: Pair) -> tf.Tensor:
        """Returns (t, t) similarities over the temperature, `MASKED` or less at padding."""
        left, right = tf.gather(self.left, pair.row), tf.gather(self.right, pair.column)
        return tf.matmul(left, right, transpose_b=True)

    def gather(self, x: tf.Tensor) -> tf.Tensor:
        """Returns (tiles, t, ...), the values (m, ...) of all replicas in tiles."""
        return _gathered(x, self.num_local, self.side)

    def local_rows(self, x: tf.Tensor) -> tf.Tensor:
        """Returns this replica's rows (m, ...) of (tiles, t, ...), without padding."""
        first = distribute.replica_index() * self.num_local
        # Not by indexing, whose end XLA does not know to be `num_local` after its start.
        begin = [first, *[0] * (len(x.shape) - 1)]
        local = tf.slice(x, begin, [self.num_local, *x.shape[1:]])
        return tf.reshape(local, [self.num_local * self.side, *x.shape[2:]])[: self.num_rows]


def cut(
    z: tf.Tensor,
    side: int,
    *,
    temperature: float = 1.0,
    row_attributes: tf.Tensor | None = None,
    mask_fn: MaskFn | None = None,
) -> Tiles:
    """Gathers the views of all replicas and cuts them into tiles of equal size.

    Args:
        z: (m, d) this replica's views; m is the same on every replica.
        side: largest number of views in a tile.
        temperature: divisor of the similarities.
        row_attributes: (m, k) int32, the attributes of each view that `mask_fn` reads.
        mask_fn: which columns the sum of a row includes; it must exclude the view itself. None
            includes all others.

    Returns:
        The tiles, padded if tiles of equal size hold more than m views.
    """
    num_local = math.ceil(z.shape[0] / side)
    side = math.ceil(z.shape[0] / num_local)
    views, left = _gathered(z, num_local, side), _gathered(z / temperature, num_local, side)
    right = views
    if num_local * side > z.shape[0]:
        # Two more columns add 1 * MASKED to the similarity if either view is padding.
        ones = tf.ones_like(views[..., :1])
        padded = _gathered(tf.zeros_like(z[:, :1]), num_local, side, MASKED)
        left = tf.concat([left, padded, ones], 2)
        right = tf.concat([right, ones, padded], 2)
    return Tiles(
        views,
        left,
        right,
        None if row_attributes is None else _gathered(row_attributes, num_local, side, 1),
        mask_fn,
        num_local,
        z.shape[0],
    )


def _gathered(x: tf.Tensor, num_local: int, side: int, padding: float = 0) -> tf.Tensor:
    """Returns (tiles, t, ...): x (m, ...) of all replicas, each padded to `num_local` tiles."""
    missing = num_local * side - x.shape[0]
    x = tf.pad(x, [[0, missing], *[[0, 0]] * (len(x.shape) - 1)], constant_values=padding)
    return tf.reshape(distribute.gather(x), [-1, side, *x.shape[1:]])


def over_pairs(
    tiles: Tiles, pair_fn: TilePairFn, combine_fn: CombineFn, start: tf.Tensor
) -> tf.Tensor:
    """Accumulates the contributions of this replica's pairs of tiles, one pair at a time.

    First each tile is paired with itself. Then each tile is paired with the next one, the second
    next and so on, modulo the number of tiles, up to half of that number, so every unordered pair
    occurs once. If the number is even, only the first half of the tiles are paired with the tile
    at exactly half of it.

    Args:
        tiles: the batch.
        pair_fn: function that returns the contributions of a pair to its row tile and to its
            column tile.
        combine_fn: function that adds a contribution to the accumulated value of a tile.
        start: (tiles, ...) initial value of each tile.

    Returns:
        (tiles, ...) accumulated value of each tile.
    """
    count, replicas = tiles.num_tiles, distribute.num_replicas()

    # An array of tensors: a scatter into one tensor would copy all of it for every pair.
    def accumulate(state: tf.TensorArray, index: tf.Tensor, value: tf.Tensor) -> tf.TensorArray:
        return state.write(index, combine_fn(state.read(index), value))

    def diagonal(tile: tf.Tensor, state: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        value = pair_fn(Pair(tile, tile, is_diagonal=True))[0]
        return tile + replicas, accumulate(state, tile, value)

    def off_diagonal(pair: tf.Tensor, state: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        row, distance = pair % count, pair // count + 1
        column = (row + distance) % count
        row_value, column_value = pair_fn(Pair(row, column, is_diagonal=False))
        state = accumulate(accumulate(state, row, row_value), column, column_value)
        return pair + replicas, state

    def loop(body: Callable[..., Any], end: int, state: tf.TensorArray) -> tf.TensorArray:
        first = distribute.replica_index()
        return tf.while_loop(lambda i, _: i < end, body, (first, state), parallel_iterations=1)[1]

    state = tf.TensorArray(
        start.dtype, count, element_shape=start.shape[1:], clear_after_read=False
    ).unstack(start)
    state = loop(diagonal, count, state)
    return loop(off_diagonal, count * (count - 1) // 2, state).stack()
