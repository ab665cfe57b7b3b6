"""The most similar rows of a matrix, exactly and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

# Similarities that are in memory at a time: 256 MiB of float32.
_BLOCK_ELEMENTS = 2**26


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Returns features (n, f) with rows of length 1, float32; rows of zeros stay zeros."""
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return (features / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def nearest(
    queries: np.ndarray, candidates: np.ndarray, k: int, *, exclude_self: bool = False
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Finds the k candidates of the largest cosine similarity to each query, block by block.

    Args:
        queries: (m, f).
        candidates: (n, f).
        k: number of neighbours, at most n, or n - 1 with `exclude_self`.
        exclude_self: whether candidate i is left out of the neighbours of query i; queries and
            candidates are then the same.

    Yields:
        The rows of a block of b queries; the indices (b, k) of their neighbours, the most similar
        first and equal ones in their order; and the similarities (b, k).
    """
    table = tf.constant(unit_rows(candidates))
    rows = unit_rows(queries)
    block = max(1, _BLOCK_ELEMENTS // max(len(candidates), 1))
    for start in range(0, len(rows), block):
        part = slice(start, min(start + block, len(rows)))
        similarities = tf.matmul(rows[part], table, transpose_b=True)  # (b, n)
        if exclude_self:
            own = np.arange(part.start, part.stop)
            similarities = tf.tensor_scatter_nd_update(
                similarities,
                np.stack([np.arange(len(own)), own], 1),
                tf.fill([len(own)], similarities.dtype.min),
            )
        values, indices = tf.math.top_k(similarities, k)
        yield part, indices.numpy(), values.numpy()
