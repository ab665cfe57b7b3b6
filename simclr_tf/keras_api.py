"""The Keras that the package uses, and the only module that says where it comes from.

It is Keras 2 or 3 under the name `tf.keras`; `simclr_tf/__init__.py` chooses before TensorFlow is
imported. What differs between the two and concerns layers is here; optimizers are in
`training.keras_optimizers`, and what checkpoints store is in `runs.stored`.

A variable of Keras 3 wraps a `tf.Variable`. `tf.GradientTape`, `tf.distribute` and checkpoints work
with the latter, so this package does, too, and the base classes here list it.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import importlib.metadata
import inspect
from typing import Any

import tensorflow as tf

import simclr_tf

keras = tf.keras
IS_3 = simclr_tf.KERAS == 3
if IS_3:
    # Otherwise errors of users' layers are rewritten, for terminals.
    keras.config.disable_traceback_filtering()
# Keras 2 has a class of its own for statistics over replicas.
BATCH_NORMS = (
    (keras.layers.BatchNormalization,)
    if IS_3
    else (
        keras.layers.BatchNormalization,
        keras.layers.experimental.SyncBatchNormalization,
    )
)

# Variables whose names are not those of Keras 2, by the kind of layer.
_RENAMED = {
    "DepthwiseConv1D": {"kernel": "depthwise_kernel"},
    "DepthwiseConv2D": {"kernel": "depthwise_kernel"},
    "Normalization": {"adapt_mean": "mean", "adapt_variance": "variance"},
}


def version() -> str:
    """Returns the version of the package that Keras is from: tf-keras, or keras."""
    if not IS_3:
        try:
            return importlib.metadata.version("tf-keras")
        except importlib.metadata.PackageNotFoundError:
            pass  # TensorFlow up to 2.15 depends on keras, which is Keras 2 then.
    return importlib.metadata.version("keras")


def raw(variable: Any) -> tf.Variable:
    """Returns the `tf.Variable` of a variable of either Keras."""
    return variable._value if IS_3 and isinstance(variable, keras.Variable) else variable


def replace(layer: Any, name: str, variable: tf.Variable) -> None:
    """Makes a layer use another variable; `name` is that of its attribute."""
    if IS_3:
        getattr(layer, name)._value = variable
    else:
        setattr(layer, name, variable)


def variables(layer: Any) -> list[tf.Variable]:
    """Returns the variables of a layer and of those that it contains, in the order of Keras 2."""
    return [variable for _, variable in named_variables(layer)]


def named_variables(layer: Any) -> list[tuple[str, tf.Variable]]:
    """Returns the variables of `variables` after their names, which include those of layers."""
    if IS_3:
        found = _in_order_of_2(layer, _frozen(layer))
        return [(variable.path, raw(variable)) for variable in found]
    return [(variable.name, variable) for variable in layer.weights]


def trainable_variables(layer: Any) -> list[tf.Variable]:
    """Returns the variables of a layer, and of those that it contains, that are not frozen."""
    frozen = _frozen(layer) if IS_3 else frozenset()
    return [raw(variable) for variable in layer.trainable_weights if id(variable) not in frozen]


def layers_in(model: Any) -> list[Any]:
    """Returns all layers that a model contains, at any depth."""
    if IS_3:
        return model._flatten_layers(include_self=False)
    return [one for one in model.submodules if isinstance(one, keras.layers.Layer)]


def children(layer: Any) -> dict[str, Any]:
    """Returns what a layer of Keras 3 directly consists of, by the names that Keras 2 gives it.

    Args:
        layer: a layer, or a list or dict of layers.

    Returns:
        Layers, variables, and lists and dicts of them.
    """
    if isinstance(layer, (list, tuple)):
        found = {str(index): value for index, value in enumerate(layer)}
    elif isinstance(layer, dict):
        found = {str(name): value for name, value in layer.items()}
    elif isinstance(layer, keras.Sequential) or is_functional(layer):
        with_weights = [one for one in layer.layers if one.weights]
        found = {f"layer_with_weights-{index}": one for index, one in enumerate(with_weights)}
    else:
        found = {
            _name_in_2(layer, name, value): value
            for name, value in vars(layer).items()
            # TensorFlow's own attributes of whatever is stored begin with _self_.
            if name not in _of_keras_3() and not name.startswith("_self_") and _has_variables(value)
        }
    return {name: value for name, value in found.items() if _has_variables(value)}


def _has_variables(value: Any) -> bool:
    if isinstance(value, (list, tuple, dict)):
        parts = value.values() if isinstance(value, dict) else value
        return any(_has_variables(part) for part in parts)
    if isinstance(value, keras.layers.Layer):
        return bool(value.weights)
    return isinstance(value, (keras.Variable, tf.Variable))


def is_functional(layer: Any) -> bool:
    """Returns whether a layer is a network of the functional interface."""
    if IS_3:
        return isinstance(layer, keras.Model) and hasattr(layer, "_operations_by_depth")
    return getattr(layer, "_is_graph_network", False)


def clone(model: Any, replace: Callable[[Any], Any]) -> Any:
    """Returns a copy of a Sequential or functional network with other layers.

    Args:
        model: the network.
        replace: returns the layer to take instead of one of its layers, or the layer itself.
    """
    if not IS_3 or isinstance(model, keras.Sequential):
        return keras.models.clone_model(model, clone_function=replace)

    def call(layer: Any, *args: Any, **named: Any) -> Any:
        # Keras 3 repeats all arguments of the original call, which other layers need not have.
        known = inspect.signature(layer.call).parameters
        return layer(*args, **{name: value for name, value in named.items() if name in known})

    return keras.models.clone_model(model, clone_function=replace, call_function=call)


def is_random(layer: Any) -> bool:
    """Returns whether a layer itself draws random numbers in training, as dropout does."""
    if IS_3:
        # Dropout at a rate of 0 has no generator, and draws nothing.
        draws = any(isinstance(one, keras.random.SeedGenerator) for one in vars(layer).values())
    else:
        draws = isinstance(layer, keras.__internal__.layers.BaseRandomLayer)
    return draws or type(layer).__name__ == "StochasticDepth"


@functools.cache
def _of_keras_3() -> frozenset[str]:
    """Returns the attributes that every layer and model of Keras 3 has."""
    return frozenset([*vars(keras.layers.Layer()), *vars(keras.Model())])


def _name_in_2(layer: Any, name: str, value: Any) -> str:
    """Returns the name of an attribute of a layer in Keras 2."""
    if not isinstance(value, keras.Variable):
        return name
    # Keras 3 has properties over some variables, such as the kernel of a convolution.
    name = value.name if name == f"_{value.name}" else name
    for kind, renamed in _RENAMED.items():
        if isinstance(layer, getattr(keras.layers, kind)):
            return renamed.get(name, name)
    return name


def _frozen(layer: Any) -> frozenset[int]:
    """Returns the ids of the variables of Keras 3 that do not train.

    Keras 3 does not count those of a layer that was frozen before it was built.
    """
    frozen = [one for one in layer._flatten_layers() if not one.trainable]
    fixed = [one for one in layer.weights if not one.trainable]
    return frozenset(map(id, [*fixed, *(one for part in frozen for one in part.weights)]))


def _in_order_of_2(layer: Any, frozen: frozenset[int]) -> list[Any]:
    """Returns the variables of Keras 3 in the order of Keras 2, on which fingerprints depend.

    That is, of every part of a model, the trainable variables first.
    """
    if isinstance(layer, keras.Model):
        inside = list(children(layer).values())
        found = [one for part in inside for one in _in_order_of_2(part, frozen)]
    elif isinstance(layer, (list, tuple, dict)):
        parts = layer.values() if isinstance(layer, dict) else layer
        found = _trained_first(
            [one for part in parts for one in _in_order_of_2(part, frozen)], frozen
        )
    elif isinstance(layer, keras.layers.Layer):
        found = _trained_first(layer.weights, frozen)
    else:
        found = [layer]
    return list({id(one): one for one in found}.values())


def _trained_first(found: list[Any], frozen: frozenset[int]) -> list[Any]:
    return sorted(found, key=lambda one: id(one) in frozen)  # Otherwise in their order.


def add_float32_weight(
    layer: Any,
    name: str,
    shape: list[int],
    initializer: str,
    *,
    is_average: bool = False,
) -> Any:
    """Adds a variable to a layer that is float32 whatever the policy, also where it is read.

    Args:
        layer: the layer.
        name: name of the variable.
        shape: its shape.
        initializer: name of its initializer.
        is_average: whether the layer sets it and training does not. Each replica then has its own
            value, and reading it outside of replicas returns their mean.

    Returns:
        The variable of Keras, for `raw`.
    """
    if IS_3:
        # Not by `add_weight`, which has no setting for the synchronization. The layer finds the
        # variable when it becomes an attribute.
        return keras.Variable(
            keras.initializers.get(initializer),
            shape=tuple(shape),
            dtype="float32",
            trainable=not is_average,
            autocast=False,
            aggregation="mean" if is_average else "none",
            synchronization="on_read" if is_average else "auto",
            name=name,
        )
    options: dict[str, Any] = {}
    if is_average:
        options = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.MEAN,
        }
    return layer.add_weight(
        name=name,
        shape=shape,
        dtype=tf.float32,
        initializer=initializer,
        experimental_autocast=False,
        **options,
    )


_Base: Any = object  # The other base class of its subclasses is of Keras 3.


class _Raw(_Base):
    """Lists variables as `tf.Variable`, and builds without a trace.

    Keras 3 builds a layer without a method `build` by tracing its call, then those of the layers in
    it, once for each level. Here a layer is built by its first call.
    """

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables."""
        return variables(self)

    @property
    def trainable_variables(self) -> list[tf.Variable]:
        """Those that are not frozen."""
        return trainable_variables(self)

    @property
    def non_trainable_variables(self) -> list[tf.Variable]:
        """Those that are frozen, and moving averages."""
        frozen = _frozen(self)
        return [raw(variable) for variable in self.weights if id(variable) in frozen]

    def build(self, input_shape: Any) -> None:
        """Does nothing."""
        del input_shape
        self.built = True


def _base_class(of_keras: Any) -> Any:
    return type(of_keras.__name__, (_Raw, of_keras), {}) if IS_3 else of_keras


# Base classes of the package's layers and networks.
Layer: Any = _base_class(keras.layers.Layer)
Model: Any = _base_class(keras.Model)
