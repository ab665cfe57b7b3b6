"""Attention over channels: selective kernels and squeeze-excitation.

Both take the mean of a map over space and let a small network decide from it how much each
channel counts. Widths and order are those of google-research/simclr `tf2/`.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.keras_api import keras
from simclr_tf.models import layers

# The networks that decide are at least this wide in selective kernels.
_MIN_WIDTH = 32


class SelectiveKernel(keras.layers.Layer):
    """Mixes two streams of a convolution (Li et al. 2019, as SimCLRv2 sec. 3 has it).

    In the paper the streams see different kernel sizes; in SimCLRv2 both are 3x3, and come from
    one convolution of twice the channels: first those of the one, then those of the other.
    """

    def __init__(self, make: layers.LayerMaker, filters: int, sk_ratio: float) -> None:
        """Makes the layer.

        Args:
            make: maker of its layers.
            filters: c, channels of each stream.
            sk_ratio: width of the network that decides, as a share of c; at least 32 channels.
        """
        super().__init__(name="selective_kernel", dtype=make.policy)
        self.reduce = make.conv(max(int(filters * sk_ratio), _MIN_WIDTH), 1)
        self.norm = make.norm()
        self.expand = make.conv(2 * filters, 1)
        self.filters = filters

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps both streams (n, h, w, 2 c) to their mixture (n, h, w, c)."""
        one, other = tf.split(x, 2, axis=-1)  # (n, h, w, c) each
        mean = _spatial_mean(one + other)  # (n, 1, 1, c)
        hidden = tf.nn.relu(self.norm(self.reduce(mean), training=training))
        votes = tf.cast(self.expand(hidden), tf.float32)  # (n, 1, 1, 2 c)
        ours, theirs = tf.split(votes, 2, axis=-1)
        # Of two, the softmax is a sigmoid of the difference.
        share = tf.cast(tf.sigmoid(ours - theirs), x.dtype)  # (n, 1, 1, c)
        return one * share + other * (1 - share)


class SqueezeExcitation(keras.layers.Layer):
    """Scales each channel by what the mean of the map says of it (Hu et al. 2018)."""

    def __init__(
        self, make: layers.LayerMaker, filters: int, se_ratio: float, channels: int
    ) -> None:
        """Makes the layer.

        Args:
            make: maker of its layers.
            filters: inner width of the block, of which se_ratio is a share. Of a bottleneck that
                is a quarter of its channels, so the layer is narrower than in Hu et al.
            se_ratio: width of the network that decides, as a share of `filters`.
            channels: of the map.
        """
        super().__init__(name="squeeze_excitation", dtype=make.policy)
        self.reduce = make.conv(max(1, int(filters * se_ratio)), 1, use_bias=True)
        self.expand = make.conv(channels, 1, use_bias=True)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Scales (n, h, w, channels)."""
        hidden = tf.nn.relu(self.reduce(_spatial_mean(x)))  # (n, 1, 1, reduced)
        return x * tf.sigmoid(self.expand(hidden))


def _spatial_mean(x: tf.Tensor) -> tf.Tensor:
    """Maps (n, h, w, c) to (n, 1, 1, c), adding up in float32."""
    return tf.cast(tf.reduce_mean(tf.cast(x, tf.float32), [1, 2], keepdims=True), x.dtype)
