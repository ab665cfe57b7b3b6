"""Users' encoders with mistakes in them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

keras_layers = tf.keras.layers


def _network(*layers: tf.keras.layers.Layer) -> tf.keras.Model:
    return tf.keras.Sequential([keras_layers.Conv2D(4, 3, strides=2), *layers])


class _Layer(tf.keras.layers.Layer):
    """A layer that is a function of its input and of whether it trains."""

    def __init__(self, function) -> None:
        super().__init__()
        self._function = function

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Calls the function."""
        return self._function(x, training)


def _raise(error: BaseException) -> None:
    raise error


def raises(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Raises what no check expects."""
    networks: dict[tuple[int, int, int], tf.keras.Model] = {}
    return networks[input_shape]


def exits(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Ends the program."""
    raise SystemExit(f"no network for {input_shape}")


def raises_in_a_layer(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a network that raises when it is run."""
    del input_shape
    return _network(_Layer(lambda x, _: _raise(AttributeError("no such layer"))))


def raises_in_training(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a network that raises in training only."""
    del input_shape

    def call(x: tf.Tensor, training: bool) -> tf.Tensor:
        return _raise(IndexError("layer 7")) if training else x

    return _network(_Layer(call))


def other_rows(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a network that makes a row of every pixel."""
    del input_shape
    return _network(_Layer(lambda x, _: tf.reshape(x, [-1, 4])))


def integers(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a network with integer features."""
    del input_shape
    return _network(_Layer(lambda x, _: tf.cast(x, tf.int32)))


def infinite(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a network whose initial weights are not numbers."""
    del input_shape
    return _network(keras_layers.Conv2D(4, 1, kernel_initializer=tf.constant_initializer(np.nan)))


def not_for_xla(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a network that calls Python, which XLA cannot."""
    del input_shape

    def call(x: tf.Tensor, _: bool) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(lambda x: x, [x], tf.float32), x.shape)

    return _network(_Layer(call))
