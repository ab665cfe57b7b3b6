"""Batch normalisation with float32 statistics of one replica or of all replicas."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import contextvars

import tensorflow as tf

from simclr_tf import distribute, keras_api

EPSILON = 1e-5

# Set by `moving_average_scale`, read while a layer is traced.
_FRACTION: contextvars.ContextVar[float] = contextvars.ContextVar("fraction", default=1.0)


@contextlib.contextmanager
def moving_average_scale(fraction: float) -> Iterator[None]:
    """Scales the updates of moving averages by calls of layers within this context.

    A training step may run the network k times. With fraction 1 / k, each run multiplies the old
    averages by momentum ** (1 / k), so all k runs together multiply them by momentum, as a step
    that runs the network once does. With fraction 0 the averages do not change.

    Args:
        fraction: fraction of the update of one step, from 0 to 1.
    """
    token = _FRACTION.set(fraction)
    try:
        yield
    finally:
        _FRACTION.reset(token)


class BatchNorm(keras_api.Layer):
    """Batch normalisation (Ioffe and Szegedy 2015) over all axes but the last.

    In training it normalises by the mean and variance of the batch and updates the moving
    averages; in inference it normalises by the moving averages. Statistics are float32, whatever
    the compute dtype. The moving variance averages the variance over n values, not over n - 1, as
    in the published SimCLR models; Keras's fused layer uses n - 1.

    Keras's `BatchNormalization(synchronized=True)` computes the same over replicas, but takes the
    variance as E[x^2] - E[x]^2, needs three all-reduces, and is not fused even on a single device.
    Here one device uses the fused kernel, and replicas exchange (mean, variance) once and combine
    them exactly (Chan et al. 1979).
    """

    def __init__(
        self,
        *,
        momentum: float = 0.9,
        epsilon: float = EPSILON,
        center: bool = True,
        scale: bool = True,
        zero_gamma: bool = False,
        synchronized: bool = True,
        **kwargs: object,
    ) -> None:
        """Creates the layer.

        Args:
            momentum: factor of the old moving averages in each step, in [0, 1].
            epsilon: constant added to the variance, above 0.
            center: whether to add a learned offset (beta).
            scale: whether to multiply by a learned scale (gamma).
            zero_gamma: whether to initialise the scale to 0, so that a residual branch starts as
                zero (Goyal et al. 2017).
            synchronized: whether to compute the statistics over the batches of all replicas.
            **kwargs: arguments of `tf.keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.zero_gamma = zero_gamma
        self.synchronized = synchronized

    def build(self, input_shape: tf.TensorShape) -> None:
        """Creates gamma, beta and the moving averages, all float32 (channels,)."""
        channels = [int(input_shape[-1])]

        def weight(name: str, initializer: str, *, is_average: bool = False) -> tf.Variable:
            return keras_api.add_float32_weight(
                self, name, channels, initializer, is_average=is_average
            )

        self.gamma = None
        if self.scale:
            self.gamma = weight("gamma", "zeros" if self.zero_gamma else "ones")
        self.beta = weight("beta", "zeros") if self.center else None
        self.moving_mean = weight("moving_mean", "zeros", is_average=True)
        self.moving_variance = weight("moving_variance", "ones", is_average=True)
        super().build(input_shape)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalises (..., channels) and, in training, updates the moving averages.

        A layer that is not trainable is always in inference mode, like Keras's own.
        """
        if not (training and self.trainable):
            return self._fused(x, training=False)[0]
        if self.synchronized and distribute.num_replicas() > 1:
            y, mean, variance = self._over_replicas(x)
        else:
            y, mean, variance = self._fused(x, training=True)
        self._update(self.moving_mean, mean)
        self._update(self.moving_variance, variance)
        return y

    def _update(self, average: tf.Variable, value: tf.Tensor) -> None:
        fraction = _FRACTION.get()
        if fraction:
            average = keras_api.raw(average)
            average.assign_sub((average - value) * (1 - self.momentum**fraction))

    def _affine(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the (channels,) scale and offset to apply after normalisation."""
        scale = tf.ones(self.moving_mean.shape) if self.gamma is None else self.gamma
        offset = tf.zeros(self.moving_mean.shape) if self.beta is None else self.beta
        return tf.convert_to_tensor(scale), tf.convert_to_tensor(offset)

    def _fused(self, x: tf.Tensor, *, training: bool) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the normalised x, and the (channels,) mean and variance used for it."""
        channels = x.shape[-1]
        image = x if len(x.shape) == 4 else tf.reshape(x, [-1, 1, 1, channels])  # (n, 1, 1, c)
        empty = tf.constant([], tf.float32)
        scale, offset = self._affine()
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=image,
            scale=scale,
            offset=offset,
            mean=empty if training else tf.convert_to_tensor(self.moving_mean),
            variance=empty if training else tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=training,
        )
        if training:
            # The kernel returns the variance over n - 1; this layer uses n.
            n = tf.cast(tf.size(image) // channels, tf.float32)
            variance *= (n - 1) / n
        return (y if image is x else tf.reshape(y, [-1, channels])), mean, variance

    def _over_replicas(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the same as `_fused`, with statistics over the batches of all replicas."""
        axes = list(range(len(x.shape) - 1))
        moments = tf.stack(tf.nn.moments(tf.cast(x, tf.float32), axes))  # (2, c)
        replica_moments = distribute.gather(moments[tf.newaxis])  # (R, 2, c)
        means, variances = replica_moments[:, 0], replica_moments[:, 1]  # (R, c)
        mean = tf.reduce_mean(means, 0)  # (c,)
        # All replicas hold the same number of values, so the total variance is the mean variance
        # within replicas plus the variance of their means.
        variance = tf.reduce_mean(variances + tf.square(means - mean), 0)  # (c,)
        gamma, offset = self._affine()
        scale = gamma * tf.math.rsqrt(variance + self.epsilon)
        y = tf.cast(x, tf.float32) * scale + (offset - mean * scale)
        return tf.cast(y, x.dtype), mean, variance
