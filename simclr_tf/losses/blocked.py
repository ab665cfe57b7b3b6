"""Sums over the similarities of a global batch, without holding all of them in memory.

A contrastive loss needs, for each of n views, the log of a sum of exponentials over the n - 1
others: n * n similarities, four gigabytes of them at n = 32,768. Here they are computed tile by
tile, and computed again for the gradient, so memory is O(n d + tile^2). This is also faster than
keeping them all, for two reasons: each pair of tiles is multiplied once for the sums of both (see
`tiles`); and cosines are at most 1, so one exponential serves both. Only if that could overflow,
or if projections are not normalised, is the largest similarity of each row computed first and
subtracted.

Letters for shapes: m views of this replica, n = R * m views in all, in t by t tiles.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.losses import tiles as tiles_lib

# Numbers of views in a tile. 1024 is the fastest of 512, 1024 and 2048 on two cores: 4 MiB, about
# their cache. For very many views without a mask, the larger tile is a tenth faster.
TILE, LARGE_TILE = 1024, 2048
# Exponentials of -40 to 40, their sums and the inverses of these are well within float32's range.
_LOWEST_BOUNDED_TEMPERATURE = 1 / 40


def log_sum_exp(
    z: tf.Tensor,
    *,
    temperature: float,
    unit: bool,
    row_attributes: tf.Tensor | None = None,
    mask_fn: tiles_lib.MaskFn | None = None,
    tile: int = TILE,
) -> tf.Tensor:
    """Sums exp(similarity / temperature) of each view to other views of the global batch.

    Value and gradient equal those of the explicit sum, up to rounding. The gradient reaches the
    views of all replicas, as it does through `distribute.gather`; it cannot be differentiated
    itself.

    Args:
        z: (m, d) this replica's views, float32 or float64; m is the same on every replica.
        temperature: divisor of the products; greater than 0.
        unit: whether the rows of z have length 1.
        row_attributes: (m, k) int32, the attributes of each view that `mask_fn` reads.
        mask_fn: which columns the sum of a row includes; it must exclude the view itself. None
            includes all others.
        tile: largest number of views in a tile.

    Returns:
        (m,) logarithms of the sums; 0 for a view whose sum is empty.
    """
    bounded = unit and temperature >= _LOWEST_BOUNDED_TEMPERATURE

    @tf.custom_gradient
    def summed(z: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        tiles = tiles_lib.cut(
            z, tile, temperature=temperature, row_attributes=row_attributes, mask_fn=mask_fn
        )
        peaks = None if bounded else _peaks(tiles)
        totals = _totals(tiles, peaks)  # (tiles, t)
        nonempty = totals > 0
        totals = tf.where(nonempty, totals, 1)
        logs = tf.math.log(totals) if peaks is None else tf.math.log(totals) + peaks

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            weights = tf.where(nonempty, tiles.gather(upstream) / totals, 0) / temperature
            return tiles.local_rows(_gradient(tiles, peaks, weights))

        return tiles.local_rows(tf.where(nonempty, logs, 0)), gradient

    return summed(z)


def masked_sums(
    z: tf.Tensor, *, row_attributes: tf.Tensor, mask_fn: tiles_lib.MaskFn, tile: int = TILE
) -> tf.Tensor:
    """Sums, for each view, the views of the global batch that `mask_fn` includes.

    Args:
        z: (m, d) this replica's views.
        row_attributes: (m, k) int32, the attributes of each view that `mask_fn` reads.
        mask_fn: which columns the sum of a row includes; it must exclude the view itself.
        tile: largest number of views in a tile.

    Returns:
        (m, d) sums, through which gradients flow to the views of all replicas.
    """

    def transposed_fn(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
        return tf.transpose(mask_fn(columns, rows))

    @tf.custom_gradient
    def summed(z: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        sums = _masked_products(z, row_attributes, mask_fn, tile)
        return sums, lambda upstream: _masked_products(
            upstream, row_attributes, transposed_fn, tile
        )

    return summed(z)


def _masked_products(
    z: tf.Tensor, row_attributes: tf.Tensor, mask_fn: tiles_lib.MaskFn, tile: int
) -> tf.Tensor:
    """Returns (m, d), the product of the (m, n) mask, as ones and zeros, with all views."""
    tiles = tiles_lib.cut(z, tile, row_attributes=row_attributes, mask_fn=mask_fn)

    def products_of_pair(pair: tiles_lib.Pair) -> tuple[tf.Tensor, tf.Tensor]:
        ones = tf.ones([tiles.side, tiles.side], z.dtype)
        by_row, by_column = _masked(tiles, ones, ones, pair, otherwise=0.0)
        return _products(tiles, by_row, by_column, pair)

    start = tf.zeros_like(tiles.views)
    sums = distribute.all_reduce_sum(tiles_lib.over_pairs(tiles, products_of_pair, tf.add, start))
    return tiles.local_rows(sums)


def _products(
    tiles: tiles_lib.Tiles,
    by_row: tf.Tensor,
    by_column: tf.Tensor,
    pair: tiles_lib.Pair,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (t, d) each: the weighted sums of the column tile's views and of the row tile's."""
    return (
        tf.matmul(by_row, tf.gather(tiles.views, pair.column)),
        tf.matmul(by_column, tf.gather(tiles.views, pair.row), transpose_a=True),
    )


def _exponentials(
    tiles: tiles_lib.Tiles, peaks: tf.Tensor | None, pair: tiles_lib.Pair
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the exponentials (t, t) to sum by row, and those to sum by column.

    Each is 0 where its sum does not include it.
    """
    s = tiles.similarities(pair)
    if peaks is None:
        by_row = by_column = tf.exp(s)
    else:
        by_row = tf.exp(s - tf.gather(peaks, pair.row)[:, tf.newaxis])
        by_column = tf.exp(s - tf.gather(peaks, pair.column))
    return _masked(tiles, by_row, by_column, pair, otherwise=0.0)


def _masked(
    tiles: tiles_lib.Tiles,
    by_row: tf.Tensor,
    by_column: tf.Tensor,
    pair: tiles_lib.Pair,
    *,
    otherwise: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Replaces values that the sum of their row, or that of their column, does not include."""
    if pair.is_diagonal:
        same = by_row is by_column
        diagonal = tf.fill([tiles.side], tf.cast(otherwise, by_row.dtype))
        by_row = tf.linalg.set_diag(by_row, diagonal)
        by_column = by_row if same else tf.linalg.set_diag(by_column, diagonal)
    if tiles.mask_fn is None or tiles.row_attributes is None:
        return by_row, by_column
    rows = tf.gather(tiles.row_attributes, pair.row)
    columns = tf.gather(tiles.row_attributes, pair.column)
    in_row, in_column = tiles.mask_fn(rows, columns), tf.transpose(tiles.mask_fn(columns, rows))
    return tf.where(in_row, by_row, otherwise), tf.where(in_column, by_column, otherwise)


def _totals(tiles: tiles_lib.Tiles, peaks: tf.Tensor | None) -> tf.Tensor:
    """Returns (tiles, t), the sums of the exponentials."""

    def totals_of_pair(pair: tiles_lib.Pair) -> tuple[tf.Tensor, tf.Tensor]:
        by_row, by_column = _exponentials(tiles, peaks, pair)
        return tf.reduce_sum(by_row, 1), tf.reduce_sum(by_column, 0)

    start = tf.zeros_like(tiles.views[..., 0])
    return distribute.all_reduce_sum(tiles_lib.over_pairs(tiles, totals_of_pair, tf.add, start))


def _peaks(tiles: tiles_lib.Tiles) -> tf.Tensor:
    """Returns (tiles, t), the largest similarity in the sum of each view."""

    def peaks_of_pair(pair: tiles_lib.Pair) -> tuple[tf.Tensor, tf.Tensor]:
        s = tiles.similarities(pair)
        by_row, by_column = _masked(tiles, s, s, pair, otherwise=tiles_lib.MASKED)
        return tf.reduce_max(by_row, 1), tf.reduce_max(by_column, 0)

    start = tf.fill([tiles.num_tiles, tiles.side], tf.constant(tiles_lib.MASKED, tiles.left.dtype))
    local_peaks = tiles_lib.over_pairs(tiles, peaks_of_pair, tf.maximum, start)
    return tf.reduce_max(distribute.gather(local_peaks[tf.newaxis]), 0)


def _gradient(tiles: tiles_lib.Tiles, peaks: tf.Tensor | None, weights: tf.Tensor) -> tf.Tensor:
    """Returns (tiles, t, d), the gradient of the weighted total of all sums with respect to views.

    A similarity occurs in the sum of its row and in that of its column. Its gradient is the total
    of both; multiplied by one of its views, it is the gradient with respect to the other.
    """

    def gradient_of_pair(pair: tiles_lib.Pair) -> tuple[tf.Tensor, tf.Tensor]:
        by_row, by_column = _exponentials(tiles, peaks, pair)
        row_weights, column_weights = tf.gather(weights, pair.row), tf.gather(weights, pair.column)
        if by_row is by_column:
            gradient = by_row * _outer_sum(row_weights, column_weights)
        else:
            gradient = by_row * row_weights[:, tf.newaxis] + by_column * column_weights  # (t, t)
        return _products(tiles, gradient, gradient, pair)

    start = tf.zeros_like(tiles.views)
    return distribute.all_reduce_sum(tiles_lib.over_pairs(tiles, gradient_of_pair, tf.add, start))


def _outer_sum(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns (t, t) a_i + b_j as a matrix product, which takes half the time of broadcasting."""
    left, right = tf.stack([a, tf.ones_like(a)], 1), tf.stack([tf.ones_like(b), b], 1)
    return tf.matmul(left, right, transpose_b=True)
