"""What ResNet-D changes (He et al. 2019, "Bag of tricks"): the stem and the shortcuts.

google-research/simclr builds these whenever selective kernels are on, and so does `resnet`.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.keras_api import keras
from simclr_tf.models import layers


class DeepStem(keras.layers.Layer):
    """Three 3x3 convolutions, the first with stride 2, in place of one of 7x7.

    Batch norm and ReLU stand between them; those after the last are the caller's.
    """

    def __init__(self, make: layers.LayerMaker, filters: int) -> None:
        """Makes the layer, of `filters` channels in the end and half of them before."""
        super().__init__(name="deep_stem", dtype=make.policy)
        half = filters // 2
        self.convs = [make.conv(half, 3, 2), make.conv(half, 3), make.conv(filters, 3)]
        self.norms = [make.norm(), make.norm()]

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps (n, h, w, 3) to (n, h / 2, w / 2, filters)."""
        x = self.convs[0](images)
        for norm, conv in zip(self.norms, self.convs[1:]):
            x = conv(tf.nn.relu(norm(x, training=training)))
        return x


def pooled_shortcut(x: tf.Tensor, strides: int) -> tf.Tensor:
    """Averages 2x2 neighbours before the 1x1 convolution of a shortcut, so that none is lost.

    Args:
        x: (n, h, w, c).
        strides: 1 or 2. At 1 the windows overlap, and those that leave the image at its far end
            average what is left in it; at 2 an odd side gets a line of zeros there, which count.

    Returns:
        (n, h / strides, w / strides, c), rounded up.
    """
    if strides == 1:
        return tf.nn.avg_pool2d(x, 2, 1, "SAME")
    return tf.nn.avg_pool2d(tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]]), 2, strides, "VALID")
