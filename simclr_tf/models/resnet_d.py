"""The stem and the shortcuts of ResNet-D (He et al. 2019, "Bag of tricks").

google-research/simclr builds these whenever selective kernels are on, and so does `resnet`.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf import keras_api
from simclr_tf.models import layers


class DeepStem(keras_api.Layer):
    """Three 3x3 convolutions, the first with stride 2, instead of one of 7x7.

    Batch norm and ReLU follow each but the last; after the last the caller applies them.
    """

    def __init__(self, layer_maker: layers.LayerMaker, filters: int) -> None:
        """Creates the layer: `filters` output channels, half as many in between."""
        super().__init__(name="deep_stem", dtype=layer_maker.policy)
        half = filters // 2
        self.convs = [
            layer_maker.conv(half, 3, 2),
            layer_maker.conv(half, 3),
            layer_maker.conv(filters, 3),
        ]
        self.norms = [layer_maker.norm(), layer_maker.norm()]

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps (n, h, w, c) to (n, h / 2, w / 2, filters)."""
        x = self.convs[0](images)
        for norm, conv in zip(self.norms, self.convs[1:]):
            x = conv(tf.nn.relu(norm(x, training=training)))
        return x


def pooled_shortcut(x: tf.Tensor, strides: int) -> tf.Tensor:
    """Averages 2x2 neighbours before the 1x1 convolution of a shortcut, so that it uses all pixels.

    Args:
        x: (n, h, w, c).
        strides: 1 or 2. At 1 the windows overlap, and those that cross the bottom or right border
            average the pixels inside the image only. At 2 an odd side is padded by a line of zeros
            at its end, which the average includes.

    Returns:
        (n, h / strides, w / strides, c), rounded up.
    """
    if strides == 1:
        return tf.nn.avg_pool2d(x, 2, 1, "SAME")
    return tf.nn.avg_pool2d(tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]]), 2, strides, "VALID")
