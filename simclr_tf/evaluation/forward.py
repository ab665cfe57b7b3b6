"""What a frozen network makes of images, compiled once for all batches."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import tensorflow as tf

from simclr_tf import multi_worker
from simclr_tf.data import shown
from simclr_tf.evaluation import thumbnails
from simclr_tf.models import simclr

# Changes images (b, s, s, 3), given their positions (b,) in the stored order of the split, which
# are -1 for padding.
Change = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# Largest side of images in the linear evaluation of raw pixels, which is slow for larger ones.
MAX_PIXEL_SIDE = 32


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What is extracted besides features, logits, labels and positions.

    Attributes:
        pixels: whether to extract the pixels, for the linear evaluation of raw pixels.
        projection: whether to extract the output of the projection head.
        content: whether to extract a fingerprint of the encoded images.
        thumbnail_seed: extracts thumbnails, of images that this seed draws if there are many; None
            for none.
        shown: --show_channels, for thumbnails; see `shown.choose`.
    """

    pixels: bool = False
    projection: bool = False
    content: bool = False
    thumbnail_seed: int | None = None
    shown: str | None = None


class Forward:
    """A network in inference mode, whose replicas split each batch.

    It is compiled at its first call. One that is kept extracts several splits without being
    compiled again.
    """

    def __init__(
        self,
        model: simclr.SimCLR,
        strategy: tf.distribute.Strategy | None = None,
        outputs: Outputs | None = None,
        *,
        change: Change | None = None,
    ) -> None:
        """Prepares to run a network.

        Args:
            model: the network.
            strategy: the strategy of the network; None for one device.
            outputs: what to extract.
            change: changes the images before the network sees them.
        """
        self.model = model
        self.strategy = strategy or tf.distribute.get_strategy()
        self.outputs = outputs or Outputs()
        self._change = change
        # Traced for each size of batches, which several workers and TPUs must know.
        self.compiled: Any = tf.function(
            lambda batch: self.strategy.run(self._on_replica, (batch,)),
            autograph=model.needs_autograph,
        )

    def __call__(self, batch: dict[str, tf.Tensor]) -> dict[str, Any]:
        """Returns the rows of a batch, of each replica.

        The "image" (b, s, s, c) of the batch is replaced by what is extracted from it. What else
        the batch holds is returned as it is. Of several workers, each gets what all of them
        extract.
        """
        return self.compiled(batch)

    def shown_channels(self) -> str:
        """Returns which channels thumbnails show, see `shown.in_words`."""
        return shown.in_words(self.model.architecture.pixels, self._channels())

    def _channels(self) -> tuple[int, ...]:
        return shown.choose(self.model.architecture.pixels, self.outputs.shown)

    def _on_replica(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        rest = {name: x for name, x in batch.items() if name != "image"}
        images = batch["image"]
        if self._change is not None:
            images = self._change(images, batch["position"])
        return multi_worker.gather({**self._infer(images), **rest})

    def _infer(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        found = dict(self.model.infer(images))
        if self.outputs.projection:
            stages = self.model.projection_head(found["features"], training=False)
            found["projection"] = stages[-1]
        if self.outputs.pixels:
            found["pixels"] = _raw(images)
        if self.outputs.thumbnail_seed is not None:
            found["thumbnail"] = thumbnails.of_batch(images, self._channels())
        return found


def _raw(images: tf.Tensor) -> tf.Tensor:
    """Returns (b, s * s * c) pixels of images (b, h, w, c), at `MAX_PIXEL_SIDE` or smaller."""
    if images.shape[1] > MAX_PIXEL_SIDE:
        images = tf.image.resize(images, [MAX_PIXEL_SIDE, MAX_PIXEL_SIDE], "area")
    return tf.reshape(images, [images.shape[0], -1])
