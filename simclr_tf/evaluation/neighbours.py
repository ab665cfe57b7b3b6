"""The most similar rows of a matrix, exactly and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


def nearest_in_parts(
    queries: np.ndarray,
    parts: Sequence[np.ndarray],
    k: int,
    *,
    own: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest candidates in several arrays, of which one at a time is in memory.

    Args:
        queries: (m, f).
        parts: (n_i, f) each; candidates are counted over all of them.
        k: number of neighbours, at most the number of candidates, less one with `own`.
        own: (m,) the number of the candidate that each query is, and which it does not find; None
            if queries are not among the candidates.

    Returns:
        The indices (m, k) of the neighbours, the most similar first, and the similarities (m, k).
    """
    wanted = k if own is None else k + 1
    indices = np.zeros((len(queries), 0), np.int64)
    values = np.zeros((len(queries), 0), np.float32)
    start = 0
    for part in parts:
        found = list(nearest(queries, part, min(wanted, len(part))))
        here = np.concatenate([rows for _, rows, _ in found]) + start
        indices = np.concatenate([indices, here], 1)
        values = np.concatenate([values, np.concatenate([x for _, _, x in found])], 1)
        order = np.argsort(-values, 1, kind="stable")[:, :wanted]
        indices, values = (np.take_along_axis(x, order, 1) for x in (indices, values))
        start += len(part)
    if own is None:
        return indices, values
    # Of more than k equal ones, the query itself may not be among the first; then the last goes.
    is_own = indices == own[:, np.newaxis]
    is_own[~is_own.any(1), -1] = True
    shape = (len(queries), wanted - 1)
    return indices[~is_own].reshape(shape), values[~is_own].reshape(shape)
