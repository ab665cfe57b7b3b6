"""What a checkpoint stores of a network and of its optimizer, and under which names.

The names are those that Keras 2 gives, from the attributes of layers. Keras 3 keeps some variables
in other attributes, so there the names are given explicitly, and a checkpoint of one Keras is read
by the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from simclr_tf import keras_api, keras_optimizers
from simclr_tf.keras_api import keras


def of_network(network: keras.Model) -> Any:
    """Returns what stores a network or a part of it, for `tf.train.Checkpoint`."""
    return _of_layer(network, {}) if keras_api.IS_3 else network


def of_optimizer(optimizer: Any) -> Any:
    """Returns what stores an optimizer, for `tf.train.Checkpoint`."""
    found = keras_optimizers.stored(optimizer)
    return _node(found) if isinstance(found, Mapping) else found


def _node(parts: Mapping[str, Any]) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(
        **{name: _node(part) if isinstance(part, Mapping) else part for name, part in parts.items()}
    )


def _of_layer(layer: Any, seen: dict[int, Any]) -> Any:
    """Returns the node of a layer of Keras 3, or of a list or dict of layers.

    Args:
        layer: the layer.
        seen: nodes of layers by id; one that is used twice has one node.
    """
    if isinstance(layer, (keras.Variable, tf.Variable)):
        return keras_api.raw(layer)
    if id(layer) not in seen:
        parts = {name: _of_layer(part, seen) for name, part in keras_api.children(layer).items()}
        if isinstance(layer, keras.layers.Normalization) and "mean" in parts:
            # Only Keras 2 counts the images that `adapt` has seen, of which there are none.
            parts["count"] = tf.Variable(0, dtype=tf.int64, trainable=False)
        seen[id(layer)] = tf.train.Checkpoint(**parts)
    return seen[id(layer)]
