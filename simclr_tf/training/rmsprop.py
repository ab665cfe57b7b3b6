"""RMSProp (Hinton 2012) as TensorFlow 1 defined it, which trains SupCon's linear classifiers."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from simclr_tf import keras_optimizers


class RMSProp(keras_optimizers.Optimizer):
    """RMSProp whose mean square of the gradients starts at one, where Keras's starts at zero.

    From zero, the first steps at SupCon's learning rates (above 1 at its batch size) would be
    large.
    """

    def __init__(
        self,
        learning_rate: float | Callable[[tf.Tensor], tf.Tensor],
        *,
        rho: float,
        momentum: float,
        epsilon: float,
    ) -> None:
        """Creates the optimizer.

        Args:
            learning_rate: a number or a schedule.
            rho: factor of the old mean square in each step.
            momentum: momentum coefficient, in [0, 1).
            epsilon: constant added to the mean square.
        """
        super().__init__(learning_rate, name="RMSprop")
        self.rho, self.momentum, self.epsilon = rho, momentum, epsilon
        self.squares: list[tf.Variable] = []
        self.buffers: list[tf.Variable] = []

    def build(self, var_list: list[tf.Variable]) -> None:
        """Creates the mean squares and the momentum buffers, at the first call only."""
        super().build(var_list)
        if self.squares:
            return
        self.squares = self.add_slots(var_list, "velocity", "ones")  # Keras's name.
        if self.momentum > 0:
            self.buffers = self.add_slots(var_list, "momentum")

    def update(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        """Updates one variable."""
        index = self.index(variable)
        square = self.squares[index]
        square.assign(self.rho * square + (1 - self.rho) * tf.square(gradient))
        step = rate * gradient * tf.math.rsqrt(square + self.epsilon)
        if self.momentum > 0:
            buffer = self.buffers[index]
            buffer.assign(self.momentum * buffer + step)
            step = buffer
        variable.assign_add(-step)
