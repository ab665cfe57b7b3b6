"""The optimizers of Keras 2 and 3 under one interface, which is that of Keras 2.

The two differ in the base class of optimizers, in who sums gradients over replicas, and in the
scale of the loss for float16. With the same gradients they compute the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import functools
from typing import Any

import tensorflow as tf

from simclr_tf import distribute, keras_api
from simclr_tf.keras_api import keras

Pairs = Iterable[tuple[tf.Tensor, tf.Variable]]

_Base: Any = object  # The other base class of its subclasses is of Keras.


class _On3(_Base):
    """Adapts an optimizer of Keras 3.

    It always sums gradients over replicas, but a training step does so itself, before it looks at
    their norm.
    """

    def __init__(self, learning_rate: Any, **settings: Any) -> None:
        super().__init__(learning_rate, **settings)
        self._sums = True
        self.current_learning_rate = None
        if callable(learning_rate):
            # The rate of the last step, which Keras 2 stores in checkpoints.
            self.current_learning_rate = tf.Variable(
                learning_rate(tf.constant(0, tf.int64)),
                trainable=False,
                name="current_learning_rate",
            )

    @property
    def variables(self) -> list[tf.Variable]:
        """The number of steps and the slots."""
        return [keras_api.raw(variable) for variable in self._variables]

    def apply_gradients(
        self, grads_and_vars: Pairs, experimental_aggregate_gradients: bool = True
    ) -> Any:
        """Updates variables; sums gradients over replicas if it is to aggregate."""
        if self.current_learning_rate is not None:
            self.current_learning_rate.assign(self.learning_rate)
        self._sums = experimental_aggregate_gradients
        return super().apply_gradients(grads_and_vars)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return super()._all_reduce_sum_gradients(grads_and_vars) if self._sums else grads_and_vars


class _Own(_Base):
    """What the package's own optimizers have in common."""

    def update(self, gradient: tf.Tensor, variable: tf.Variable, rate: tf.Tensor) -> None:
        """Updates one variable on its device, given its gradient and the learning rate."""
        raise NotImplementedError


class _OwnOn3(_Own, _On3):
    def __init__(self, learning_rate: Any, *, name: str) -> None:
        super().__init__(learning_rate, name=name)

    def add_slots(
        self, variables: Sequence[tf.Variable], name: str, initializer: str = "zeros"
    ) -> list[tf.Variable]:
        """Returns a new variable like each of the given ones, all "zeros" or "ones"."""
        return [
            keras_api.raw(self.add_variable_from_reference(variable, name, initializer))
            for variable in variables
        ]

    def index(self, variable: tf.Variable) -> int:
        """Returns the position of a variable among those to update."""
        return self._get_variable_index(variable)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates one variable."""
        self.update(gradient, variable, tf.cast(learning_rate, variable.dtype))


class _OwnOn2(_Own):
    def __init__(self, learning_rate: Any, *, name: str) -> None:
        super().__init__(name=name, jit_compile=False)
        self._learning_rate = self._build_learning_rate(learning_rate)

    def add_slots(
        self, variables: Sequence[tf.Variable], name: str, initializer: str = "zeros"
    ) -> list[tf.Variable]:
        """Returns a new variable like each of the given ones, all "zeros" or "ones"."""
        value = {"zeros": tf.zeros_like, "ones": tf.ones_like}[initializer]
        return [
            self.add_variable_from_reference(variable, name, initial_value=value(variable))
            for variable in variables
        ]

    def index(self, variable: tf.Variable) -> int:
        """Returns the position of a variable among those to update."""
        return self._index_dict[self._var_key(variable)]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Updates one variable."""
        self.update(gradient, variable, tf.cast(self.learning_rate, variable.dtype))


def _standard(of_keras: Any) -> Any:
    """Returns what creates one of Keras's own optimizers."""
    if keras_api.IS_3:
        return type(of_keras.__name__, (_On3, of_keras), {})
    return functools.partial(of_keras, jit_compile=False)


# Base class of the package's own optimizers, which define `build` and `update`.
Optimizer: Any = type(
    "Optimizer", (_OwnOn3 if keras_api.IS_3 else _OwnOn2, keras.optimizers.Optimizer), {}
)
SGD, Adam, AdamW = map(
    _standard, (keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW)
)


class _LossScaled(tf.Module):
    """Scales the loss up for float16, by as much as its gradients allow, like that of Keras 2.

    The optimizer of that name in Keras 3 unscales gradients where it applies them, but a training
    step needs their norm before.

    Attributes:
        inner_optimizer: the optimizer.
        loss_scale: () float32 variable, the factor: doubled after `GROWTH_STEPS` steps with finite
            gradients, and halved by one without.
        good_steps: () int64 variable, steps with finite gradients since it changed.
    """

    INITIAL_SCALE, GROWTH_STEPS = 2.0**15, 2000

    def __init__(self, optimizer: Any) -> None:
        super().__init__()
        self.inner_optimizer = optimizer
        self.loss_scale = tf.Variable(self.INITIAL_SCALE, trainable=False)
        self.good_steps = tf.Variable(0, dtype=tf.int64, trainable=False)

    @property
    def iterations(self) -> Any:
        """The number of steps, also of those with gradients that are not finite."""
        return keras_api.raw(self.inner_optimizer.iterations)

    def build(self, variables: list[tf.Variable]) -> None:
        """Creates the slots of variables."""
        self.inner_optimizer.build(variables)

    def get_scaled_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """Returns the loss times the factor."""
        return loss * tf.cast(self.loss_scale, loss.dtype)

    def get_unscaled_gradients(self, gradients: list[Any]) -> list[Any]:
        """Returns the gradients of the loss from those of the scaled loss."""
        factor = 1.0 / tf.convert_to_tensor(self.loss_scale)
        return [None if one is None else one * tf.cast(factor, one.dtype) for one in gradients]

    def apply_gradients(
        self, grads_and_vars: Pairs, experimental_aggregate_gradients: bool = False
    ) -> None:
        """Updates the factor, and variables if the gradients are finite.

        Args:
            grads_and_vars: with gradients that are summed over replicas.
            experimental_aggregate_gradients: False.
        """
        assert not experimental_aggregate_gradients
        gradients, variables = zip(*grads_and_vars)
        present = [one for one in gradients if one is not None]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(one)) for one in present])
        self._update_scale(finite)

        def update(gradients: Sequence[Any]) -> None:
            pairs = zip(gradients, variables)
            self.inner_optimizer.apply_gradients(pairs, experimental_aggregate_gradients=False)

        def skip(steps: tf.Tensor) -> None:
            self.iterations.assign_add(steps)

        distribute.run_if(finite, update, list(gradients))
        distribute.run_if(~finite, skip, tf.constant(1, tf.int64))

    def _update_scale(self, finite: tf.Tensor) -> None:
        scale, steps = tf.convert_to_tensor(self.loss_scale), self.good_steps + 1
        grows = steps >= self.GROWTH_STEPS
        doubled = tf.where(tf.math.is_finite(2 * scale), 2 * scale, scale)
        grown = tf.where(grows, doubled, scale)
        self.loss_scale.assign(tf.where(finite, grown, tf.maximum(scale / 2, 1.0)))
        self.good_steps.assign(tf.where(finite & ~grows, steps, 0))


def loss_scaled(optimizer: Any) -> Any:
    """Returns an optimizer that also scales the loss for float16."""
    if keras_api.IS_3:
        return _LossScaled(optimizer)
    return keras.mixed_precision.LossScaleOptimizer(optimizer)


def iterations(optimizer: Any) -> tf.Variable:
    """Returns the () int64 variable that counts the steps of an optimizer."""
    return keras_api.raw(optimizer.iterations)


def stored(optimizer: Any) -> Any:
    """Returns what a checkpoint stores of an optimizer, by the names of Keras 2.

    Returns:
        The optimizer itself if Keras 2 names its variables; otherwise nested dicts of variables.
    """
    if not keras_api.IS_3:
        return optimizer
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    steps, *slots = inner.variables
    names = {"_iterations": steps, "_current_learning_rate": inner.current_learning_rate}
    found: dict[str, Any] = {name: value for name, value in names.items() if value is not None}
    found["_variables"] = {str(index): slot for index, slot in enumerate(slots, 1)}
    if isinstance(optimizer, _LossScaled):
        found["loss_scale"] = {
            "current_loss_scale": optimizer.loss_scale,
            "good_steps": optimizer.good_steps,
        }
    return found
