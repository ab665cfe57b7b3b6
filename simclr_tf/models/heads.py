"""What sits on the encoder: the projection head and the linear head."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.models import layers


class ProjectionHead(tf.keras.Model):
    """Maps features to the space of the contrastive loss (g of the paper, sec. 2.1).

    "nonlinear": L layers; all but the last are dense, batch norm, ReLU at the width of the
    features, the last is dense to `out_dim` and batch norm without offset. "linear": only the
    last. "none": the identity. No layer has a bias, as in the published models.
    """

    def __init__(
        self, make: layers.LayerMaker, *, mode: str, num_layers: int, width: int, out_dim: int
    ) -> None:
        """Makes the head.

        Args:
            make: maker of its layers.
            mode: "none", "linear" or "nonlinear".
            num_layers: L, for "nonlinear".
            width: f, the width of the features and of the hidden layers.
            out_dim: d, the width of the projection.
        """
        super().__init__(name="projection_head")
        count = {"none": 0, "linear": 1, "nonlinear": num_layers}[mode]
        widths = [width] * (count - 1) + [out_dim] if count else []
        self.denses = [make.dense(units, use_bias=False) for units in widths]
        self.norms = [make.norm(center=i < count - 1) for i in range(count)]

    def call(
        self, features: tf.Tensor, training: bool = False, num_layers: int = -1
    ) -> list[tf.Tensor]:
        """Runs the head and keeps every stage.

        Args:
            features: (n, f).
            training: normalises by batch statistics.
            num_layers: stops after this many layers; -1 runs all.

        Returns:
            The features, then the output of each layer that ran, all float32; the last is the
            projection (n, d).
        """
        stages = [features]
        count = len(self.denses) if num_layers < 0 else num_layers
        for index in range(count):
            x = self.norms[index](self.denses[index](stages[-1]), training=training)
            if index < len(self.denses) - 1:
                x = tf.nn.relu(x)
            stages.append(tf.cast(x, tf.float32))
        return stages

    def stage(self, selector: int) -> int:
        """Returns `selector` counted from the front: -1 becomes the last stage."""
        return len(self.denses) if selector == -1 else selector


class LinearHead(tf.keras.Model):
    """A linear classifier, in float32."""

    def __init__(self, make: layers.LayerMaker, *, num_classes: int) -> None:
        super().__init__(name="linear_head")
        self.dense = make.dense(num_classes, use_bias=True, dtype="float32")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps (n, f) to logits (n, c)."""
        return self.dense(tf.cast(x, tf.float32))
