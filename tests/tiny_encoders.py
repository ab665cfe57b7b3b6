"""User-defined encoders, valid and invalid."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf import keras_api

keras_layers = tf.keras.layers


def sequential(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a network with dropout, whose variables are created by its first call."""
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


def plain(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns two convolutions with batch norm: traced in a fraction of a ResNet's time."""
    del input_shape
    first = [keras_layers.Conv2D(8, 3, strides=2, use_bias=False)]
    second = [keras_layers.Conv2D(16, 3, padding="same", use_bias=False)]
    normalized = [[keras_layers.BatchNormalization(), keras_layers.ReLU()] for _ in range(2)]
    pooling = keras_layers.GlobalAveragePooling2D()
    return tf.keras.Sequential([*first, *normalized[0], *second, *normalized[1], pooling])


def nested(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a functional network that runs one block twice and returns a map."""
    x = images = tf.keras.Input(input_shape)
    block = tf.keras.Sequential(
        [keras_layers.Conv2D(3, 3, padding="same"), keras_layers.BatchNormalization()]
    )
    x = block(block(x))
    norm = keras_layers.BatchNormalization()
    norm.trainable = False
    return tf.keras.Model(images, keras_layers.GaussianNoise(1.0)(norm(x)))


def many_kinds(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a functional network of layers whose variables Keras 3 names in another way."""
    x = images = tf.keras.Input(input_shape)
    x = keras_layers.Normalization()(x)
    x = keras_layers.DepthwiseConv2D(3)(x)
    x = keras_layers.SeparableConv2D(4, 3)(x)
    x = keras_layers.LayerNormalization()(x)
    return tf.keras.Model(images, keras_layers.Conv2DTranspose(2, 3)(x))


def sequence(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a network whose output is neither features nor a map."""
    return tf.keras.Sequential([keras_layers.Reshape([input_shape[0] * input_shape[1], 3])])


def not_a_model(input_shape: tuple[int, int, int]) -> str:
    """Returns a string instead of a network."""
    return str(input_shape)


class Subclassed(tf.keras.Model):
    """A subclassed network, in which batch norm cannot be replaced."""

    def __init__(self, input_shape: tuple[int, int, int]) -> None:
        """Creates the layer."""
        super().__init__()
        del input_shape
        self.norm = keras_layers.BatchNormalization()

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalises."""
        return self.norm(x, training=training)


class Branching(tf.keras.layers.Layer):
    """Doubles a batch of bright images and halves a batch of dark ones, by a Python `if`."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Scales the batch."""
        if keras_api.IS_3:  # It does not convert Python control flow.
            return tf.cond(tf.reduce_mean(x) > 0.5, lambda: 2.0 * x, lambda: 0.5 * x)
        if tf.reduce_mean(x) > 0.5:
            x = 4 * x
        return 0.5 * x


class Square(tf.keras.layers.Layer):
    """Squares its input, which overflows above 1.8e19."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Squares."""
        return x * x


def squaring(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a network without batch norm that maps huge images to infinite features."""
    del input_shape
    return tf.keras.Sequential(
        [
            keras_layers.Conv2D(4, 3, strides=2, name="convolution"),
            Square(name="square"),
            keras_layers.Flatten(),
            keras_layers.Dense(6),
        ]
    )


def branching(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns `sequential` after a layer with Python control flow on tensors."""
    return tf.keras.Sequential([Branching(), *sequential(input_shape).layers])


class Centred(tf.keras.layers.Layer):
    """Subtracts the middle of the range of pixels."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Subtracts."""
        return x - 0.5


def pixels(input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Returns a network whose features are the pixels, from -0.5 to 0.5."""
    del input_shape
    return tf.keras.Sequential([Centred(), keras_layers.Flatten()])
