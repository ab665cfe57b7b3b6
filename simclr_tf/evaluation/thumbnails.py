"""Small copies of evaluated images, for pictures of what an evaluation found."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from simclr_tf.data import shown

# Largest side, and the most images of which copies are kept: 66 MiB of them.
SIDE, MOST = 48, 10_000


@dataclasses.dataclass(frozen=True)
class Thumbnails:
    """Small copies of t of the evaluated images.

    Attributes:
        images: (t, s, s, 3) uint8.
        rows: (t,) the numbers of these images, in ascending order.
        channels: which channels they show, see `shown.in_words`.
    """

    images: np.ndarray
    rows: np.ndarray
    channels: str = ""


def of_batch(images: tf.Tensor, channels: tuple[int, ...] = (0, 1, 2)) -> tf.Tensor:
    """Returns (b, s, s, 3) uint8 copies of images (b, h, h, c) in [0, 1], s at most `SIDE`.

    Args:
        images: the images.
        channels: the channels that are drawn, see `shown.choose`.
    """
    images = shown.as_rgb(images, channels)
    if images.shape[1] > SIDE:
        images = tf.image.resize(images, [SIDE, SIDE], "area")
    return tf.cast(tf.round(255 * tf.clip_by_value(images, 0, 1)), tf.uint8)


class Collector:
    """Keeps the copies of at most `MOST` images, which a seed draws, while batches pass by."""

    def __init__(self, count: int, seed: int) -> None:
        """Draws the images.

        Args:
            count: number of images of the split.
            seed: seed of the draw.
        """
        self._kept = np.ones(count, bool)
        if count > MOST:
            self._kept[:] = False
            self._kept[np.random.default_rng(seed).choice(count, MOST, replace=False)] = True
        self._images: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._passed = 0

    def add(self, positions: np.ndarray, images: np.ndarray) -> None:
        """Keeps those of a batch that were drawn.

        Args:
            positions: (b,) in the stored order of the split.
            images: (b, s, s, 3) uint8.
        """
        drawn = self._kept[positions]
        self._images.append(images[drawn])
        self._rows.append(self._passed + np.flatnonzero(drawn))
        self._passed += len(positions)

    def collected(self, count: int, channels: str) -> Thumbnails:
        """Returns the copies of those of the first `count` images that were drawn.

        Args:
            count: number of images.
            channels: see `Thumbnails`.
        """
        rows = np.concatenate(self._rows)
        kept = rows < count
        return Thumbnails(np.concatenate(self._images)[kept], rows[kept], channels)
