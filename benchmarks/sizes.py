"""How large an encoder is and how much it computes, told without making its variables."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from simclr_tf.models import simclr

# Operations that multiply by weights, and which axes of the weights each output number adds over.
_MULTIPLIES = {"Conv2D": (0, 1, 2), "DepthwiseConv2dNative": (0, 1), "MatMul": (0,)}


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of an encoder.

    Attributes:
        parameters: numbers that train.
        averages: numbers that follow them, of batch norm. SimCLR's table 6 counts parameters
            alone, SimCLRv2's table 1 these too (233M for a ResNet-152 of width 2).
        multiply_adds: in the forward pass of one image, of convolutions and matrix products. What
            papers call FLOPs of a network is mostly this; a floating-point operation proper is
            half of one.
        features: f, the width of the features.
    """

    parameters: int
    averages: int
    multiply_adds: int
    features: int


def of_encoder(architecture: simclr.Architecture) -> Size:
    """Returns the size of the encoder of an architecture, for images of its size.

    The encoder is only traced, in a graph of its own that never runs: no memory, seconds of time
    for the deepest.

    Args:
        architecture: which.

    Raises:
        UserError: if there is no such encoder.
    """
    side = architecture.image_size
    with tf.Graph().as_default() as graph:
        encoder = simclr.make_encoder(architecture)
        made = len(graph.get_operations())  # Those of Keras run the network while making it.
        encoder(tf.zeros([1, side, side, 3]))
        operations = graph.get_operations()[made:]
    return Size(
        _numbers(encoder.trainable_variables),
        _numbers(encoder.non_trainable_variables),
        sum(_multiply_adds(operation) for operation in operations),
        encoder.num_features,
    )


def _numbers(variables: list[tf.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _multiply_adds(operation: tf.Operation) -> int:
    if operation.type not in _MULTIPLIES:
        return 0
    weights = operation.inputs[1].shape
    added = math.prod(weights[axis] for axis in _MULTIPLIES[operation.type])
    return math.prod(operation.outputs[0].shape) * added
