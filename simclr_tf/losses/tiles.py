"""The views of a whole batch cut into tiles, and a walk over all pairs of these.

Similarity is symmetric: an unordered pair of tiles is met once and serves the rows of either.
Replicas share the pairs; each adds up what its own gave, and `distribute.add_up` the rest.

Letters for shapes: m views of this replica, n = R * m views in all, in t by t tiles.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any, NamedTuple

import tensorflow as tf

from simclr_tf import distribute

# What is added to the similarities of padding: low enough to vanish, and finite.
NOTHING = -1e30

# (rows (t, k), columns (t, k)) -> (t, t) bool: whether a column is in the sum of a row.
Member = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# (what a tile has, what it is given), of one shape -> what it has now
Combine = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Pair(NamedTuple):
    """Two tiles that meet, or one that meets itself.

    Attributes:
        row: () int32, the number of the tile whose views are the rows of what is found.
        column: () int32, that of the other.
        itself: whether they are one.
    """

    row: tf.Tensor
    column: tf.Tensor
    itself: bool


# What a pair gives to its row, and what to its column; of one tile only the first counts.
Visit = Callable[[Pair], tuple[tf.Tensor, tf.Tensor]]


class Tiles(NamedTuple):
    """The batch in tiles.

    Attributes:
        views: (tiles, t, d) views of all replicas, zero where padded.
        left: (tiles, t, d or d + 2); `left @ right^T` is the similarities over the temperature.
        right: (tiles, t, d or d + 2).
        marks: (tiles, t, k) what `member` reads, 1 where padded; or None.
        member: who is in whose sum; None means all but itself.
        local: how many tiles are this replica's own.
        rows: m.
    """

    views: tf.Tensor
    left: tf.Tensor
    right: tf.Tensor
    marks: tf.Tensor | None
    member: Member | None
    local: int
    rows: int

    @property
    def number(self) -> int:
        """Returns the number of tiles."""
        return self.views.shape[0]

    @property
    def side(self) -> int:
        """Returns t."""
        return self.views.shape[1]

    def similarities(self, pair: Pair) -> tf.Tensor:
        """Returns (t, t) similarities over the temperature, `NOTHING` or less with padding."""
        left, right = tf.gather(self.left, pair.row), tf.gather(self.right, pair.column)
        return tf.matmul(left, right, transpose_b=True)

    def full(self, x: tf.Tensor) -> tf.Tensor:
        """Returns (tiles, t, ...) of what each replica has of its own views, (m, ...)."""
        return _gathered(x, self.local, self.side)

    def own(self, x: tf.Tensor) -> tf.Tensor:
        """Returns this replica's rows (m, ...) of (tiles, t, ...), without padding."""
        first = distribute.replica_index() * self.local
        own = x[first : first + self.local]
        return tf.reshape(own, [self.local * self.side, *x.shape[2:]])[: self.rows]


def cut(
    z: tf.Tensor,
    side: int,
    *,
    temperature: float = 1.0,
    marks: tf.Tensor | None = None,
    member: Member | None = None,
) -> Tiles:
    """Gathers the views of all replicas and cuts them into tiles of equal size.

    Args:
        z: (m, d) this replica's views; m is the same on every replica.
        side: of a tile, at most.
        temperature: divides similarities.
        marks: (m, k) int32 of each view, for `member`.
        member: tells from the marks of rows and columns who is in whose sum; it must leave out
            the view itself. None means all others.

    Returns:
        The tiles, padded a little where tiles of equal size hold more than m views.
    """
    local = math.ceil(z.shape[0] / side)
    side = math.ceil(z.shape[0] / local)
    views, left = _gathered(z, local, side), _gathered(z / temperature, local, side)
    right = views
    if local * side > z.shape[0]:  # Two more products, 1 times NOTHING where either is padding.
        ones = tf.ones_like(views[..., :1])
        padded = _gathered(tf.zeros_like(z[:, :1]), local, side, NOTHING)
        left = tf.concat([left, padded, ones], 2)
        right = tf.concat([right, ones, padded], 2)
    return Tiles(
        views,
        left,
        right,
        None if marks is None else _gathered(marks, local, side, 1),
        member,
        local,
        z.shape[0],
    )


def _gathered(x: tf.Tensor, local: int, side: int, padding: float = 0) -> tf.Tensor:
    """Returns (tiles, t, ...) of all replicas, of `local` padded tiles (m, ...) of each."""
    missing = local * side - x.shape[0]
    x = tf.pad(x, [[0, missing], *[[0, 0]] * (len(x.shape) - 1)], constant_values=padding)
    return tf.reshape(distribute.gather(x), [-1, side, *x.shape[1:]])


def over_pairs(tiles: Tiles, visit: Visit, combine: Combine, start: tf.Tensor) -> tf.Tensor:
    """Visits this replica's share of the unordered pairs of tiles, one at a time.

    First each tile meets itself. Then tiles stand in a circle, and each meets the one that comes
    next, the one after that, and so on half the way round: so every pair is met once. With an even
    number the tile opposite is met by the first half of them only.

    Args:
        tiles: the batch.
        visit: what a pair gives to its row and to its column.
        combine: what a tile has with what it is given.
        start: (tiles, ...) what each tile has before.

    Returns:
        (tiles, ...) what each tile has after the last pair.
    """
    number, replicas = tiles.number, distribute.num_replicas()

    # An array of tensors: a scatter into one tensor would copy all of it for every pair.
    def give(state: tf.TensorArray, index: tf.Tensor, given: tf.Tensor) -> tf.TensorArray:
        return state.write(index, combine(state.read(index), given))

    def with_itself(tile: tf.Tensor, state: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        return tile + replicas, give(state, tile, visit(Pair(tile, tile, itself=True))[0])

    def with_another(pair: tf.Tensor, state: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        row, distance = pair % number, pair // number + 1
        column = (row + distance) % number
        of_row, of_column = visit(Pair(row, column, itself=False))
        return pair + replicas, give(give(state, row, of_row), column, of_column)

    def loop(body: Callable[..., Any], end: int, state: tf.TensorArray) -> tf.TensorArray:
        first = distribute.replica_index()
        return tf.while_loop(lambda i, _: i < end, body, (first, state), parallel_iterations=1)[1]

    state = tf.TensorArray(
        start.dtype, number, element_shape=start.shape[1:], clear_after_read=False
    ).unstack(start)
    return loop(with_another, number * (number - 1) // 2, loop(with_itself, number, state)).stack()
