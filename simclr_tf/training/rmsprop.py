"""RMSProp (Hinton 2012), which trains SupCon's classifiers: the rule, then what keeps its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from simclr_tf.keras_api import keras


class Update(NamedTuple):
    """A step of RMSProp: the new weight, mean square of gradients, and momentum buffer."""

    weight: tf.Tensor
    mean_square: tf.Tensor
    buffer: tf.Tensor


def rmsprop_update(
    weight: tf.Tensor,
    gradient: tf.Tensor,
    mean_square: tf.Tensor,
    buffer: tf.Tensor,
    *,
    learning_rate: tf.Tensor,
    momentum: float,
    decay: float,
    epsilon: float,
) -> Update:
    """One step of RMSProp with momentum, as TensorFlow 1 took it.

    mean_square = decay * mean_square + (1 - decay) * gradient ** 2;
    buffer = momentum * buffer + learning_rate * gradient / sqrt(mean_square + epsilon);
    w = w - buffer.

    Args:
        weight: w, of any shape.
        gradient: of the same shape.
        mean_square: of the same shape, one at first.
        buffer: of the same shape, zero at first.
        learning_rate: () of this step.
        momentum: in [0, 1).
        decay: what the mean square keeps of itself, in [0, 1).
        epsilon: keeps the root from zero.

    Returns:
        The new weight, mean square and buffer.
    """
    mean_square = decay * mean_square + (1 - decay) * tf.square(gradient)
    buffer = momentum * buffer + learning_rate * gradient * tf.math.rsqrt(mean_square + epsilon)
    return Update(weight - buffer, mean_square, buffer)


class RMSProp(keras.optimizers.Optimizer):
    """Keeps a mean square and a momentum buffer per variable and applies `rmsprop_update`.

    Keras's own starts the mean square at zero, which makes the first steps at SupCon's rates
    (above 1 at its batch) large ones; here it starts at one, and they are small.
    """

    def __init__(
        self,
        learning_rate: float | Callable[[tf.Tensor], tf.Tensor],
        *,
        momentum: float = 0.9,
        decay: float = 0.9,
        epsilon: float = 1e-3,
    ) -> None:
        """Makes the optimizer, with the settings of SupCon's second stage unless told others.

        Args:
            learning_rate: a number or a schedule.
            momentum: see `rmsprop_update`.
            decay: see `rmsprop_update`.
            epsilon: see `rmsprop_update`.
        """
        super().__init__(name="RMSProp", jit_compile=False)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.momentum = momentum
        self.decay = decay
        self.epsilon = epsilon
        self.mean_squares: list[tf.Variable] = []
        self.buffers: list[tf.Variable] = []

    def build(self, var_list: list[tf.Variable]) -> None:
        """Makes the state, once."""
        super().build(var_list)
        if self.buffers:
            return
        self.mean_squares = [
            self.add_variable_from_reference(
                variable, "mean_square", initial_value=tf.ones_like(variable)
            )
            for variable in var_list
        ]
        self.buffers = [
            self.add_variable_from_reference(variable, "momentum") for variable in var_list
        ]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Moves one variable."""
        index = self._index_dict[self._var_key(variable)]
        mean_square, buffer = self.mean_squares[index], self.buffers[index]
        new = rmsprop_update(
            tf.convert_to_tensor(variable),
            gradient,
            tf.convert_to_tensor(mean_square),
            tf.convert_to_tensor(buffer),
            learning_rate=tf.cast(self.learning_rate, variable.dtype),
            momentum=self.momentum,
            decay=self.decay,
            epsilon=self.epsilon,
        )
        mean_square.assign(new.mean_square)
        buffer.assign(new.buffer)
        variable.assign(new.weight)

    def get_config(self) -> dict[str, object]:
        """Returns the settings, for a reader."""
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "momentum": self.momentum,
            "decay": self.decay,
            "epsilon": self.epsilon,
        }
