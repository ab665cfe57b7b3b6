"""Counts parameters and arithmetic of an encoder without allocating its variables."""

from __future__ import annotations

import dataclasses
import math

import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

import tensorflow as tf  # isort: skip

from simclr_tf.models import keras_encoders, simclr

# Operations that multiply by weights, and the axes of the weights that each output sums over.
_SUMMED_AXES = {"Conv2D": (0, 1, 2), "DepthwiseConv2dNative": (0, 1), "MatMul": (0,)}


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of an encoder.

    Attributes:
        parameters: number of trainable parameters.
        averages: number of moving averages of batch norm. SimCLR's table 6 counts only
            parameters. SimCLRv2's table 1 includes the averages (233M for a ResNet-152 of width 2).
        multiply_adds: number of multiply-adds of convolutions and matrix products in the forward
            pass of one image. Most papers call this number FLOPs, although each multiply-add is two
            floating-point operations.
        features: f, the width of the features.
    """

    parameters: int
    averages: int
    multiply_adds: int
    features: int


def of_encoder(architecture: simclr.Architecture) -> Size:
    """Returns the size of the encoder of an architecture, for images of its size.

    The encoder is only traced, in a graph that never runs, so its weights take no memory.

    Args:
        architecture: of the encoder; its heads are ignored.

    Raises:
        ArgumentError: if the encoder does not exist.
    """
    side = architecture.image_size
    with tf.Graph().as_default() as graph:
        encoder = simclr.make_encoder(architecture)
        first = len(graph.get_operations())  # Keras encoders have already been traced once.
        if not keras_encoders.is_users_own(architecture.encoder):
            # These encoders do not need AutoGraph, which would take half of the time.
            convert_nothing = tf.autograph.experimental.do_not_convert
            setattr(encoder, "call", convert_nothing(encoder.call))  # noqa: B010
        encoder(tf.zeros([1, side, side, 3]))
        operations = graph.get_operations()[first:]
    return Size(
        _num_elements(encoder.trainable_variables),
        _num_elements(encoder.non_trainable_variables),
        sum(_multiply_adds(operation) for operation in operations),
        encoder.num_features,
    )


def _num_elements(variables: list[tf.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _multiply_adds(operation: tf.Operation) -> int:
    if operation.type not in _SUMMED_AXES:
        return 0
    weights = operation.inputs[1].shape
    terms = math.prod(weights[axis] for axis in _SUMMED_AXES[operation.type])
    return math.prod(operation.outputs[0].shape) * terms
