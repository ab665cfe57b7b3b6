"""Runs a network over images in memory, as often as one likes, after compiling it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from simclr_tf import multi_worker
from simclr_tf.models import simclr


class Outputs(NamedTuple):
    """What a network returns for n images.

    Attributes:
        features: (n, f) float32.
        logits: (n, c) float32 of the linear head, or None without one.
    """

    features: np.ndarray
    logits: np.ndarray | None


class Network:
    """A network in inference mode, on all replicas."""

    def __init__(
        self,
        model: simclr.SimCLR,
        *,
        batch_size: int,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        """Prepares a network; it is compiled when it first runs.

        Args:
            model: the network.
            batch_size: images at a time, over all replicas, rounded up to a multiple of those.
            strategy: the strategy of the network; None for one device.
        """
        self._strategy = strategy or tf.distribute.get_strategy()
        self._on_replica = -(-batch_size // self._strategy.num_replicas_in_sync)

        def forward(images: tf.Tensor) -> dict[str, tf.Tensor]:
            if images.dtype == tf.uint8:
                images = tf.cast(images, tf.float32) / 255.0
            return multi_worker.gather(dict(model.infer(images)))

        self._step = tf.function(
            lambda images: self._strategy.run(forward, (images,)),
            reduce_retracing=True,
            autograph=model.needs_autograph,
        )

    def __call__(
        self, images: np.ndarray, *, progress: Callable[[int], None] = lambda images: None
    ) -> Outputs:
        """Returns the outputs for images, each of which counts once.

        Args:
            images: (n, s, s, c) uint8, or float32 in [0, 1].
            progress: called with the number of images so far.
        """
        batch = self._on_replica * self._strategy.num_replicas_in_sync
        parts = []
        for start in range(0, len(images), batch):
            parts.append(self._run(images[start : start + batch]))
            progress(min(start + batch, len(images)))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Outputs(joined["features"], joined.get("logits"))

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the outputs for at most one batch; it is padded, so that nothing is traced again.

        The replicas take its images one after another.
        """
        count, size = len(images), self._on_replica
        padding = size * self._strategy.num_replicas_in_sync - count
        images = np.pad(images, [(0, padding), (0, 0), (0, 0), (0, 0)])
        dealt = self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(images[context.replica_id_in_sync_group * size :][:size])
        )
        rows = multi_worker.local_rows(self._strategy, self._step(dealt))
        return {name: x[:count] for name, x in rows.items()}
