"""Attention over channels: selective kernels and squeeze-excitation.

Both average a feature map over space, and a small network computes the weight of each channel from
the averages. Widths and order of layers are those of google-research/simclr `tf2/`.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf import keras_api
from simclr_tf.models import layers

# Smallest width of the middle layer of selective kernels.
_MIN_WIDTH = 32


def selective_kernel_width(filters: int, ratio: float) -> int:
    """Returns the width of the middle layer of selective kernels."""
    return max(_MIN_WIDTH, int(filters * ratio))


def squeeze_excitation_width(filters: int, ratio: float) -> int:
    """Returns the width of the middle layer of squeeze-excitation."""
    return max(1, int(filters * ratio))


class SelectiveKernel(keras_api.Layer):
    """Mixes two streams of a convolution (Li et al. 2019; SimCLRv2, sec. 3).

    In the paper the streams have different kernel sizes; in SimCLRv2 both are 3x3, computed by one
    convolution of twice the channels: the first half is one stream, the second half the other.
    """

    def __init__(self, layer_maker: layers.LayerMaker, filters: int, sk_ratio: float) -> None:
        """Creates the layer.

        Args:
            layer_maker: maker of the layers.
            filters: c, channels of each stream.
            sk_ratio: width of the middle layer of the small network, as a fraction of c; it has at
                least 32 channels.
        """
        super().__init__(name="selective_kernel", dtype=layer_maker.policy)
        self.reduce = layer_maker.conv(selective_kernel_width(filters, sk_ratio), 1)
        self.norm = layer_maker.norm()
        self.expand = layer_maker.conv(2 * filters, 1)
        self.filters = filters

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps both streams (n, h, w, 2 c) to their mixture (n, h, w, c)."""
        first, second = tf.split(x, 2, axis=-1)  # (n, h, w, c) each
        mean = _spatial_mean(first + second)  # (n, 1, 1, c)
        hidden = tf.nn.relu(self.norm(self.reduce(mean), training=training))
        logits = tf.cast(self.expand(hidden), tf.float32)  # (n, 1, 1, 2 c)
        first_logits, second_logits = tf.split(logits, 2, axis=-1)
        # The softmax over two streams is a sigmoid of the difference.
        weight = tf.cast(tf.sigmoid(first_logits - second_logits), x.dtype)  # (n, 1, 1, c)
        return first * weight + second * (1 - weight)


class SqueezeExcitation(keras_api.Layer):
    """Scales each channel by a weight computed from the spatial means (Hu et al. 2018)."""

    def __init__(
        self, layer_maker: layers.LayerMaker, filters: int, se_ratio: float, channels: int
    ) -> None:
        """Creates the layer.

        Args:
            layer_maker: maker of the layers.
            filters: inner width of the block. In a bottleneck that is a quarter of its channels,
                so the small network is narrower than in Hu et al.
            se_ratio: width of the middle layer of the small network, as a fraction of `filters`.
            channels: channels of the feature map.
        """
        super().__init__(name="squeeze_excitation", dtype=layer_maker.policy)
        self.reduce = layer_maker.conv(
            squeeze_excitation_width(filters, se_ratio), 1, use_bias=True
        )
        self.expand = layer_maker.conv(channels, 1, use_bias=True)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Scales (n, h, w, channels)."""
        hidden = tf.nn.relu(self.reduce(_spatial_mean(x)))  # (n, 1, 1, reduced)
        return x * tf.sigmoid(self.expand(hidden))


def _spatial_mean(x: tf.Tensor) -> tf.Tensor:
    """Averages (n, h, w, c) over space to (n, 1, 1, c), in float32."""
    return tf.cast(tf.reduce_mean(tf.cast(x, tf.float32), [1, 2], keepdims=True), x.dtype)
