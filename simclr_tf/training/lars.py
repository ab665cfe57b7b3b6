"""LARS (You et al. 2017), the optimizer of SimCLR."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import tensorflow as tf

from simclr_tf import keras_optimizers


class Update(NamedTuple):
    """The result of one step of LARS: the new weight and the new momentum buffer."""

    weight: tf.Tensor
    buffer: tf.Tensor


def lars_update(
    weight: tf.Tensor,
    gradient: tf.Tensor,
    buffer: tf.Tensor,
    *,
    learning_rate: tf.Tensor,
    momentum: float,
    weight_decay: float,
    excluded: bool,
    nesterov: bool = False,
    eta: float = 0.001,
) -> Update:
    """Computes one step of LARS, as the published SimCLR models were trained.

    With g = gradient + weight_decay * w and r = learning_rate * eta * |w| / |g|, the learning rate
    is inside the momentum ("classic momentum"):
    buffer = momentum * buffer + r * g;  w = w - buffer.
    The trust ratio eta * |w| / |g| is 1 if either norm is 0.

    Args:
        weight: w, of any shape.
        gradient: gradient of the same shape.
        buffer: momentum buffer of the same shape, initially zero.
        learning_rate: () learning rate of this step.
        momentum: momentum coefficient, in [0, 1).
        weight_decay: coefficient of the L2 term, added to the gradient before its norm is taken.
        excluded: whether to apply momentum SGD at the full learning rate, without weight decay or
            trust ratio; for batch norm, biases and the linear head.
        nesterov: whether to use Nesterov momentum.
        eta: trust coefficient.

    Returns:
        The new weight and buffer.
    """
    rate = learning_rate
    if not excluded:
        gradient += weight_decay * weight
        weight_norm, gradient_norm = tf.norm(weight), tf.norm(gradient)
        both = (weight_norm > 0) & (gradient_norm > 0)
        rate = rate * tf.where(both, eta * weight_norm / tf.where(both, gradient_norm, 1.0), 1.0)
    step = rate * gradient
    buffer = momentum * buffer + step
    return Update(weight - (momentum * buffer + step if nesterov else buffer), buffer)


class LARS(keras_optimizers.Optimizer):
    """LARS, with one momentum buffer per variable."""

    def __init__(
        self,
        learning_rate: float | Callable[[tf.Tensor], tf.Tensor],
        *,
        momentum: float = 0.9,
        weight_decay_rate: float = 0.0,
        nesterov: bool = False,
        excluded_variables: Iterable[tf.Variable] = (),
    ) -> None:
        """Creates the optimizer.

        Args:
            learning_rate: a number or a schedule.
            momentum: momentum coefficient, in [0, 1).
            weight_decay_rate: see `lars_update`.
            nesterov: see `lars_update`.
            excluded_variables: variables to update without weight decay and trust ratio.
        """
        super().__init__(learning_rate, name="LARS")
        self.momentum = momentum
        self.weight_decay_rate = weight_decay_rate
        self.nesterov = nesterov
        self._excluded_refs = {variable.ref() for variable in excluded_variables}
        self._excluded: list[bool] = []
        self.buffers: list[tf.Variable] = []

    def build(self, var_list: list[tf.Variable]) -> None:
        """Creates the momentum buffers, at the first call only."""
        super().build(var_list)
        if self.buffers:
            return
        self._excluded = [variable.ref() in self._excluded_refs for variable in var_list]
        self.buffers = self.add_slots(var_list, "momentum")

    def update(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        """Updates one variable."""
        index = self.index(variable)
        buffer = self.buffers[index]
        new = lars_update(
            tf.convert_to_tensor(variable),
            gradient,
            tf.convert_to_tensor(buffer),
            learning_rate=rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay_rate,
            excluded=self._excluded[index],
            nesterov=self.nesterov,
        )
        buffer.assign(new.buffer)
        variable.assign(new.weight)
