"""RMSProp (Hinton 2012) as TensorFlow 1 defined it, which trains SupCon's linear classifiers."""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.keras_api import keras


class RMSProp(keras.optimizers.RMSprop):
    """Keras's RMSprop, except that the mean square of the gradients starts at one, not at zero.

    From zero, the first steps at SupCon's learning rates (above 1 at its batch size) would be
    large.
    """

    def add_variable_from_reference(
        self,
        model_variable: tf.Variable,
        variable_name: str,
        shape: list[int] | None = None,
        initial_value: tf.Tensor | None = None,
    ) -> tf.Variable:
        """Creates a slot of a variable; `velocity` is Keras's name for the mean square."""
        if variable_name == "velocity":
            initial_value = tf.ones_like(model_variable)
        return super().add_variable_from_reference(
            model_variable, variable_name, shape, initial_value
        )
