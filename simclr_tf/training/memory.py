"""How much memory a training step needs, estimated before the first one is run."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
from typing import Any

import numpy as np
import psutil
import tensorflow as tf
from tensorflow.python.client import device_lib  # Only it tells a GPU's memory.

from simclr_tf.models import batch_norm
from simclr_tf.training import steps

# Operations whose outcome is their input's memory, or nobody's.
_ALIASES = frozenset({"Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient"})
_FREE = frozenset({"ReadVariableOp", "Const", "Placeholder", "VariableShape", "Shape"})
# What graphs and kernels' buffers were measured to take beside: 150 to 270 MiB.
_BESIDE = 256 * 2**20
# Of the memory that is free, what a step may take.
_SHARE = 0.9
_TRACED_IMAGES = 2


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a step needs on a replica, in bytes.

    Attributes:
        state: weights and the optimizer's slots.
        gradients: one set of them.
        per_image: activations per image of the batch, all views together.
    """

    state: int
    gradients: int
    per_image: int

    def step(self, images: int, *, chunks: int = 1) -> int:
        """Returns the bytes for so many images, taken in chunks."""
        sets = 1 if chunks == 1 else 2  # That of a chunk, and the sum of them.
        activations = self.per_image * images // chunks
        return _BESIDE + self.state + sets * self.gradients + activations


def needs_of(learner: steps.Learner, task: steps.Task, *, views: int, image_size: int) -> Needs:
    """Estimates what a step needs, from a trace of a small one that is never run.

    The trace's operations are gone through in their order, every tensor living from its own to
    the last that reads it. That is what TensorFlow's executor does, but for kernels' buffers and
    for the similarities of the loss.

    Args:
        learner: what trains.
        task: what it learns.
        views: v, per image.
        image_size: side of the images, in pixels.
    """
    n, side = _TRACED_IMAGES, image_size
    shapes = {
        "views": tf.TensorSpec([n, views, side, side, 3], tf.float32),
        "label": tf.TensorSpec([n], tf.int32),
    }
    trace = tf.function(lambda images: _gradients(learner, task, images))
    graph = trace.get_concrete_function(shapes).graph
    moved = sum(_bytes(variable) for variable in learner.variables)
    slots = sum(_bytes(variable) for variable in _slots(learner.optimizer))
    weights = sum(_bytes(variable) for variable in learner.model.variables)
    return Needs(weights + slots, moved, _peak(graph) // _TRACED_IMAGES)


def _gradients(learner: steps.Learner, task: steps.Task, batch: steps.Batch) -> list[tf.Tensor]:
    with tf.GradientTape() as tape, batch_norm.moving_average_scale(0.0):
        outputs = task.forward(batch)
        cost, _ = task.each(batch, outputs)
        if task.together is not None:
            cost += tf.reduce_sum(outputs["projection"])
    return tape.gradient(cost, learner.variables)


def _peak(graph: tf.Graph) -> int:
    """Returns the most bytes that live at once when a graph runs in the order of its making."""
    operations = graph.get_operations()
    returned = {_owner(tensor) for tensor in graph.outputs}
    last: dict[Any, int] = {}
    for place, operation in enumerate(operations):
        for tensor in operation.inputs:
            last[_owner(tensor)] = place
    ends: dict[int, list[Any]] = {}
    for tensor, place in last.items():
        ends.setdefault(place, []).append(tensor)
    alive = peak = 0
    counted = set()
    for place, operation in enumerate(operations):
        if operation.type not in _ALIASES | _FREE:
            made = [t.ref() for t in operation.outputs if t.ref() in last]
            counted.update(made)
            alive += sum(_bytes(ref.deref()) for ref in made if ref not in returned)
            peak = max(peak, alive)
        for ref in ends.get(place, []):
            if ref in counted and ref not in returned:
                alive -= _bytes(ref.deref())
    return peak


def _owner(tensor: tf.Tensor) -> Any:
    """Returns the reference of the tensor whose memory a tensor is."""
    while tensor.op.type in _ALIASES:
        tensor = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
    return tensor.ref()


def _bytes(tensor: Any) -> int:
    """Returns the bytes of a tensor of known shape, of a variable, or of a TensorSpec."""
    if not tensor.shape.is_fully_defined() or tensor.dtype.size is None:
        return 0
    return int(np.prod(tensor.shape, dtype=np.int64)) * tensor.dtype.size


def _slots(optimizer: Any) -> Iterable[tf.Variable]:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    variables = inner.variables
    return variables() if callable(variables) else variables


def free_bytes(strategy: tf.distribute.Strategy) -> int | None:
    """Returns the memory that each replica may take; None where it cannot be told, as on a TPU."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return None
    if tf.config.list_logical_devices("GPU"):
        limits = [d.memory_limit for d in device_lib.list_local_devices() if d.device_type == "GPU"]
        return min(limits, default=None)
    return psutil.virtual_memory().available // strategy.num_replicas_in_sync


def advice(needs: Needs, images: int, chunks: int, free: int) -> str | None:
    """Says what to do if a step does not fit.

    Args:
        needs: of the step.
        images: b, of one replica.
        chunks: k, that it is to be taken in.
        free: bytes of that replica.

    Returns:
        A sentence with the --accum_chunks that would fit, or None if it fits.
    """
    needed = needs.step(images, chunks=chunks)
    if needed <= _SHARE * free:
        return None
    told = f"A step needs about {gib(needed)} a replica, and {gib(free)} are free"
    fits = fitting_chunks(needs, images, free)
    if fits is not None:
        return f"{told}; --accum_chunks={fits} would need {gib(needs.step(images, chunks=fits))}."
    return (
        f"{told}, too little even image by image; take a smaller encoder, --image_size or "
        "--mixed_precision."
    )


def fitting_chunks(needs: Needs, images: int, free: int) -> int | None:
    """Returns the fewest chunks of `images` that fit, a divisor of them; None if none do."""
    fits = (k for k in range(1, images + 1) if images % k == 0)
    return next((k for k in fits if needs.step(images, chunks=k) <= _SHARE * free), None)


def gib(count: int) -> str:
    """Returns bytes as a person reads them."""
    return f"{count / 2**30:.2f} GiB"
