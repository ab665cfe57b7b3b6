"""Projection and linear heads."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf import keras_api
from simclr_tf.models import layers


def layer_count(mode: str, num_layers: int) -> int:
    """Returns the number of layers of a projection head.

    Args:
        mode: "none", "linear" or "nonlinear".
        num_layers: number of layers of a nonlinear head.
    """
    return {"none": 0, "linear": 1, "nonlinear": num_layers}[mode]


class ProjectionHead(keras_api.Model):
    """Maps features to the space of the contrastive loss (g of the paper, sec. 2.1).

    "nonlinear": L layers; all but the last are dense, batch norm and ReLU, as wide as the
    features; the last is dense to `out_dim` and batch norm without offset. "linear": only the
    last layer. "none": the identity. No layer has a bias, as in the published models.

    SupCon's heads have no batch norm (Khosla et al. 2020, sec. 3.1, and its code): dense with bias,
    ReLU, then dense without bias. The paper's head of 2048 and 128 units is "nonlinear" with two
    layers on a ResNet-50.
    """

    def __init__(
        self,
        layer_maker: layers.LayerMaker,
        *,
        mode: str,
        num_layers: int,
        width: int,
        out_dim: int,
        batch_norm: bool = True,
    ) -> None:
        """Creates the head.

        Args:
            layer_maker: maker of the layers.
            mode: "none", "linear" or "nonlinear".
            num_layers: L, used if the mode is "nonlinear".
            width: f, the width of the features and of the hidden layers.
            out_dim: d, the width of the projection.
            batch_norm: whether batch norm follows each dense layer, instead of a bias in it.
        """
        super().__init__(name="projection_head")
        count = layer_count(mode, num_layers)
        widths = [width] * (count - 1) + [out_dim] if count else []
        # The last layer has no offset either way.
        offsets = [i < count - 1 for i in range(count)]
        self.denses = [
            layer_maker.dense(units, use_bias=offset and not batch_norm)
            for units, offset in zip(widths, offsets)
        ]
        self.norms = [layer_maker.norm(center=offset) for offset in offsets] if batch_norm else []

    def call(
        self, features: tf.Tensor, training: bool = False, num_layers: int = -1
    ) -> list[tf.Tensor]:
        """Runs the head and returns the outputs of all its stages.

        Args:
            features: (n, f).
            training: whether to normalise by batch statistics.
            num_layers: number of layers to run; -1 runs all.

        Returns:
            The features, then the output of each layer that ran, all float32. The last layer's
            output is the projection (n, d).
        """
        stages = [features]
        count = len(self.denses) if num_layers < 0 else num_layers
        for index in range(count):
            x = self.denses[index](stages[-1])
            if self.norms:
                x = self.norms[index](x, training=training)
            if index < len(self.denses) - 1:
                x = tf.nn.relu(x)
            stages.append(tf.cast(x, tf.float32))
        return stages

    def stage(self, selector: int) -> int:
        """Returns the index of a stage: `selector`, or that of the last stage if it is -1."""
        return len(self.denses) if selector == -1 else selector


class LinearHead(keras_api.Model):
    """A linear classifier, in float32."""

    def __init__(self, layer_maker: layers.LayerMaker, *, num_classes: int) -> None:
        super().__init__(name="linear_head")
        self.dense = layer_maker.dense(num_classes, use_bias=True, dtype="float32")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps (n, f) to logits (n, c)."""
        return self.dense(tf.cast(x, tf.float32))
