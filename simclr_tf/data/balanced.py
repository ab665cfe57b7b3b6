"""Class-balanced batches: the same number of images of each class in a batch.

The images of a batch are a function of (seed, step), so a resumed run sees the batches that it
would have seen without the interruption. This takes random access instead of a stream: an image
folder and an ArrayRecord data set read the images they need; of any other data set the encoded
images are kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import numpy as np
import tensorflow as tf

from simclr_tf import errors
from simclr_tf.data import folder, iterators, random, sources

# Constants folded into the seed of a step: each gives an independent random stream.
_CLASSES, _MEMBERS, _STARTS, _ORDER = 0, 1, 2, 3
_READ_BATCH = 1024


@dataclasses.dataclass(frozen=True)
class ByClass:
    """The images of a split by class, with random access.

    Attributes:
        indices: (n,) int64, indices of the labelled images, those of one class next to each other.
        starts: (c,) int32, position in `indices` at which each class that has images begins.
        counts: (c,) int32, number of images of each of those classes.
        read: function: index () -> {"image": () string, "label": () int64, "name": () string}.
    """

    indices: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    read: Callable[[tf.Tensor], dict[str, tf.Tensor]]


def open_by_class(source: sources.Source, split: str) -> ByClass:
    """Lists the images of a split by class, reading them into memory if they are not files.

    Args:
        source: a data set with labels.
        split: split of the data set, in tensorflow-datasets syntax.
    """
    examples = source.random_access(split) or _in_memory(source, split)
    labels = _read_labels(examples) if examples.labels is None else examples.labels
    indices = np.argsort(labels, kind="stable")
    indices = indices[labels[indices] >= 0]  # -1 is unlabelled or excluded.
    _, starts, counts = np.unique(labels[indices], return_index=True, return_counts=True)
    return ByClass(
        indices.astype(np.int64), starts.astype(np.int32), counts.astype(np.int32), examples.read
    )


def needed_bytes(source: sources.Source, split: str) -> int:
    """Estimates the peak memory of `open_by_class`; 0 for files."""
    return 0 if source.random_access(split) is not None else 2 * source.num_bytes(split)


def _read_labels(examples: folder.RandomAccess) -> np.ndarray:
    """Reads all examples for their labels, (n,) int64; -1 where they are excluded."""
    labels = np.full(len(examples.excluded), -1, np.int64)
    kept = np.flatnonzero(~examples.excluded)
    read = tf.data.Dataset.from_tensor_slices(kept).map(
        lambda index: examples.read(index)["label"],
        num_parallel_calls=iterators.CORES,
        deterministic=True,
    )
    batches = iterators.without_tuning(read.batch(_READ_BATCH)).as_numpy_iterator()
    labels[kept] = np.concatenate(list(batches))
    return labels


def _in_memory(source: sources.Source, split: str) -> folder.RandomAccess:
    batches = list(source.examples(split).batch(_READ_BATCH))
    columns = {name: tf.concat([batch[name] for batch in batches], 0) for name in batches[0]}

    def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: column[index] for name, column in columns.items()}

    names, labels = columns["name"].numpy(), columns["label"].numpy()
    return folder.RandomAccess(
        lambda i: names[i].decode(), labels, np.zeros(len(labels), bool), read
    )


def check(images: ByClass, *, batch_size: int, samples_per_class: int) -> str | None:
    """Checks that the classes can fill the batches.

    Args:
        images: images of the training split.
        batch_size: B.
        samples_per_class: m, which divides B.

    Returns:
        A sentence for the user if some classes have fewer than m images, or None.

    Raises:
        errors.UserError: if there are fewer than B / m classes.
    """
    classes, needed = len(images.counts), batch_size // samples_per_class
    if needed > classes:
        enough = next(
            m for m in range(1, batch_size + 1) if not batch_size % m and batch_size // m <= classes
        )
        raise errors.ArgumentError(
            "samples_per_class",
            samples_per_class,
            f"fills a batch of {batch_size:,} from {needed:,} classes, but the data has images of "
            f"{classes:,}; use {enough}, or a smaller batch.",
        )
    few = int(np.sum(images.counts < samples_per_class))
    if not few:
        return None
    return (
        f"{few:,} of {classes:,} classes have fewer than {samples_per_class} images "
        f"(the smallest {images.counts.min()}); a batch repeats them in different views."
    )


def batch_of(
    images: ByClass, seed: tf.Tensor, *, batch_size: int, samples_per_class: int
) -> tf.Tensor:
    """Draws the images of one batch.

    Classes are drawn without repetition, all equally likely however many images they have;
    within a class all sets of images are equally likely.

    Args:
        images: images of the training split, of at least B / m classes.
        seed: (2,) int32, seed of the step.
        batch_size: B.
        samples_per_class: m.

    Returns:
        (B,) int64, indices of images in random order: m different ones of each of B / m classes.
        A class that has fewer gives all its images before any is repeated.
    """
    m = samples_per_class
    seeds = {
        use: tf.random.experimental.stateless_fold_in(seed, use)
        for use in (_CLASSES, _MEMBERS, _STARTS, _ORDER)
    }
    drawn = random.permutation(seeds[_CLASSES], len(images.counts))[: batch_size // m]
    counts = tf.gather(tf.constant(images.counts), drawn)  # (B / m,)
    members = tf.where(
        (counts >= m)[:, tf.newaxis],
        _distinct(counts, m, seeds[_MEMBERS]),
        _consecutive(counts, m, seeds[_STARTS]),
    )  # (B / m, m)
    members += tf.gather(tf.constant(images.starts), drawn)[:, tf.newaxis]
    indices = tf.gather(tf.constant(images.indices), tf.reshape(members, [-1]))
    return tf.gather(indices, random.permutation(seeds[_ORDER], batch_size))


def _distinct(counts: tf.Tensor, m: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws m different numbers below each of `counts` (g,), all sets equally likely: (g, m).

    Floyd's method (Bentley and Floyd 1987): the j-th draw is at most counts - m + j; a number that
    was drawn before is replaced by that bound. Where counts < m the result is meaningless.
    """
    groups = counts.shape[0]
    uniform = tf.random.stateless_uniform([groups, m], seed, alg=random.PHILOX, dtype=tf.float64)

    def draw(j: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        bound = counts - m + j  # (g,)
        new = tf.cast(uniform[:, j] * tf.cast(bound + 1, tf.float64), tf.int32)
        repeated = tf.reduce_any(chosen == new[:, tf.newaxis], 1)
        new = tf.where(repeated, bound, new)
        return j + 1, tf.where(tf.range(m) == j, new[:, tf.newaxis], chosen)

    start = (tf.constant(0), tf.fill([groups, m], -1))
    return tf.while_loop(lambda j, _: j < m, draw, start)[1]


def _consecutive(counts: tf.Tensor, m: int, seed: tf.Tensor) -> tf.Tensor:
    """Returns m consecutive numbers modulo each of `counts` (g,), from a random start: (g, m)."""
    uniform = tf.random.stateless_uniform(counts.shape, seed, alg=random.PHILOX, dtype=tf.float64)
    first = tf.cast(uniform * tf.cast(counts, tf.float64), tf.int32)
    return (first[:, tf.newaxis] + tf.range(m)) % counts[:, tf.newaxis]
