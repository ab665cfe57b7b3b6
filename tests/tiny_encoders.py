"""Encoders as a person might bring them along, right and wrong."""

from __future__ import annotations

import tensorflow as tf

keras_layers = tf.keras.layers


def sequential(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a network that waits for its first images to make variables, with dropout."""
    del input_shape
    return tf.keras.Sequential(
        [
            keras_layers.Conv2D(8, 3, strides=2),
            keras_layers.BatchNormalization(momentum=0.99, epsilon=0.1, scale=False),
            keras_layers.ReLU(),
            keras_layers.Dropout(0.5),
            keras_layers.Flatten(),
            keras_layers.Dense(6),
        ]
    )


def nested(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a functional network that runs one part twice and ends in a map."""
    x = images = tf.keras.Input(input_shape)
    part = tf.keras.Sequential(
        [keras_layers.Conv2D(3, 3, padding="same"), keras_layers.BatchNormalization()]
    )
    x = part(part(x))
    norm = keras_layers.BatchNormalization()
    norm.trainable = False
    return tf.keras.Model(images, keras_layers.GaussianNoise(9.0)(norm(x)))


def sequence(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a network that ends in neither features nor a map."""
    return tf.keras.Sequential([keras_layers.Reshape([input_shape[0] * input_shape[1], 3])])


def no_model(input_shape: tuple[int, int, int]) -> str:
    """Returns something else."""
    return str(input_shape)


class Own(tf.keras.Model):
    """A network of a class of its own, whose batch norm nobody can exchange."""

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        """Makes the layers."""
        super().__init__()
        del input_shape
        self.norm = keras_layers.BatchNormalization()

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalises."""
        return self.norm(x, training=training)


class Branching(keras_layers.Layer):
    """Doubles images of a positive mean and halves others, by a Python `if` on a tensor."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Scales the whole batch."""
        if tf.reduce_mean(x) > 0:
            x = 4 * x
        return 0.5 * x


def branching(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a network whose layer holds Python control flow on its input."""
    del input_shape
    return tf.keras.Sequential([Branching(), keras_layers.Conv2D(4, 3)])
