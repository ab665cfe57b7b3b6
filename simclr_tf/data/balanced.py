"""Class-balanced batches: of each class that a batch holds, the same number of images.

Which images those are is a function of (seed, step), so that a run that resumes goes on exactly
where it would have gone. That asks for images by number rather than in a stream: an image folder
reads the files it needs; of any other data set the encoded images are kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import numpy as np
import tensorflow as tf

from simclr_tf import errors
from simclr_tf.data import folder, sources

# Keeps the draws of a step apart.
_CLASSES, _PLACES, _STARTS, _ORDER = 0, 1, 2, 3
_READ_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class ByClass:
    """The images of a split by class, each of which can be read by its number.

    Attributes:
        numbers: (n,) int64 of the labelled images, those of one class next to each other.
        starts: (c,) int32, the place in `numbers` where each class that has images begins.
        counts: (c,) int32 images of those classes.
        read: number () -> {"image": () string, "label": () int64, "name": () string}.
    """

    numbers: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    read: Callable[[tf.Tensor], dict[str, tf.Tensor]]


def open_by_class(source: sources.Source, split: str) -> ByClass:
    """Lists the images of a split by class, reading them into memory if they are no files.

    Args:
        source: a data set with labels.
        split: of it, in tensorflow-datasets syntax.
    """
    examples = source.by_number(split) or _in_memory(source, split)
    labels = examples.labels
    numbers = np.argsort(labels, kind="stable")
    numbers = numbers[labels[numbers] >= 0]  # -1 is an image without a label.
    _, starts, counts = np.unique(labels[numbers], return_index=True, return_counts=True)
    return ByClass(
        numbers.astype(np.int64), starts.astype(np.int32), counts.astype(np.int32), examples.read
    )


def needed_bytes(source: sources.Source, split: str) -> int:
    """Estimates the memory that `open_by_class` takes at its peak; 0 for files."""
    return 0 if source.by_number(split) is not None else 2 * source.num_bytes(split)


def _in_memory(source: sources.Source, split: str) -> folder.ByNumber:
    kept = list(source.examples(split).batch(_READ_AT_ONCE))
    columns = {name: tf.concat([batch[name] for batch in kept], 0) for name in kept[0]}

    def read(number: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: column[number] for name, column in columns.items()}

    return folder.ByNumber(columns["label"].numpy(), read)


def check(images: ByClass, *, batch_size: int, samples_per_class: int) -> str | None:
    """Refuses batches that the classes cannot fill.

    Args:
        images: of the training split.
        batch_size: B.
        samples_per_class: m, which divides B.

    Returns:
        A sentence to tell the user if some classes have fewer than m images, or None.

    Raises:
        errors.UserError: if there are fewer than B / m classes.
    """
    classes, asked = len(images.counts), batch_size // samples_per_class
    if asked > classes:
        enough = next(
            m for m in range(1, batch_size + 1) if not batch_size % m and batch_size // m <= classes
        )
        raise errors.UserError(
            f"--samples_per_class={samples_per_class} fills a batch of {batch_size:,} from "
            f"{asked:,} classes, and the data has images of {classes:,}; use "
            f"--samples_per_class={enough}, or a smaller --train_batch_size."
        )
    few = int(np.sum(images.counts < samples_per_class))
    if not few:
        return None
    return (
        f"{few:,} of {classes:,} classes have fewer than {samples_per_class} images "
        f"(the smallest {images.counts.min()}); a batch repeats them, each time in other views."
    )


def batch_of(
    images: ByClass, seed: tf.Tensor, *, batch_size: int, samples_per_class: int
) -> tf.Tensor:
    """Draws the images of one batch.

    The classes are drawn without repetition, each as likely as another however many images it
    has; within a class every set of images is as likely as another.

    Args:
        images: of the training split, of at least B / m classes.
        seed: (2,) of the step.
        batch_size: B.
        samples_per_class: m.

    Returns:
        Numbers of images, (B,) int64, in random order: m different ones of each of B / m classes,
        or, of a class that has fewer, all of them before any a second time.
    """
    m = samples_per_class
    seeds = {
        use: tf.random.experimental.stateless_fold_in(seed, use)
        for use in (_CLASSES, _PLACES, _STARTS, _ORDER)
    }
    drawn = _shuffled(len(images.counts), seeds[_CLASSES])[: batch_size // m]
    counts = tf.gather(tf.constant(images.counts), drawn)  # (B / m,)
    places = tf.where(
        (counts >= m)[:, tf.newaxis],
        _different(counts, m, seeds[_PLACES]),
        _in_turn(counts, m, seeds[_STARTS]),
    )  # (B / m, m)
    places += tf.gather(tf.constant(images.starts), drawn)[:, tf.newaxis]
    numbers = tf.gather(tf.constant(images.numbers), tf.reshape(places, [-1]))
    return tf.gather(numbers, _shuffled(batch_size, seeds[_ORDER]))


def _shuffled(count: int, seed: tf.Tensor) -> tf.Tensor:
    keys = tf.random.stateless_uniform([count], seed, None, None, tf.int64, alg="philox")
    return tf.argsort(keys, stable=True)


def _different(counts: tf.Tensor, m: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws m different numbers below each of `counts` (g,), every set as likely: (g, m).

    Floyd's method (Bentley and Floyd 1987): the j-th draw is below counts - m + j + 1, and one
    that is there already becomes that bound itself. Where counts < m the numbers mean nothing.
    """
    groups = counts.shape[0]
    uniform = tf.random.stateless_uniform([groups, m], seed, alg="philox", dtype=tf.float64)

    def draw(j: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        bound = counts - m + j  # (g,)
        new = tf.cast(uniform[:, j] * tf.cast(bound + 1, tf.float64), tf.int32)
        there = tf.reduce_any(chosen == new[:, tf.newaxis], 1)
        new = tf.where(there, bound, new)
        return j + 1, tf.where(tf.range(m) == j, new[:, tf.newaxis], chosen)

    start = (tf.constant(0), tf.fill([groups, m], -1))
    return tf.while_loop(lambda j, _: j < m, draw, start)[1]


def _in_turn(counts: tf.Tensor, m: int, seed: tf.Tensor) -> tf.Tensor:
    """Takes m numbers below each of `counts` (g,) one after another, from a random one: (g, m)."""
    uniform = tf.random.stateless_uniform(counts.shape, seed, alg="philox", dtype=tf.float64)
    first = tf.cast(uniform * tf.cast(counts, tf.float64), tf.int32)
    return (first[:, tf.newaxis] + tf.range(m)) % counts[:, tf.newaxis]
