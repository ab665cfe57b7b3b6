"""Estimates how much memory a training step needs, before the first one runs."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
from typing import Any

import numpy as np
import pynvml
import tensorflow as tf

from simclr_tf import errors, host_memory, multi_worker, text
from simclr_tf.models import batch_norm
from simclr_tf.training import steps, tasks

# Operations whose output shares the memory of their input, or takes none.
_ALIASES = frozenset({"Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient"})
_FREE = frozenset({"ReadVariableOp", "Const", "Placeholder", "VariableShape", "Shape"})
# Graphs and kernels' buffers were measured to take 150 to 270 MiB.
_OVERHEAD_BYTES = 256 * 2**20
# Fraction of the free memory that a step may use.
_USABLE_FRACTION = 0.9
_TRACED_IMAGES = 2
# A step is refused if it needs so many times the memory of the machine. In float32, estimates were
# measured to be 0.8 to 1.0 times what a step took, also with --recompute and --jit_compile.
_IMPOSSIBLE = 1.5


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The memory of a step on one replica, in bytes.

    Attributes:
        state: weights and the optimizer's slots.
        gradients: one gradient of every trained variable.
        per_image: activations per image of the batch, all views together.
    """

    state: int
    gradients: int
    per_image: int

    def step(self, images: int, *, chunks: int = 1) -> int:
        """Returns the bytes of a step on `images` images, processed in `chunks` chunks."""
        copies = 1 if chunks == 1 else 2  # The gradients of a chunk, and their sum.
        activations = self.per_image * images // chunks
        return _OVERHEAD_BYTES + self.state + copies * self.gradients + activations


def estimate(learner: steps.Learner, task: tasks.Task, *, views: int, image_size: int) -> Estimate:
    """Estimates what a step needs, from the trace of a small one that is never run.

    Walks through the trace's operations in order, and counts every tensor from its creation to its
    last use. That is what TensorFlow's executor does, except for the kernels' buffers. Memory that
    grows with the square of the batch, as the similarities of the loss, is not counted.

    Args:
        learner: what to train.
        task: the loss to minimize.
        views: v, the number of views of an image.
        image_size: side of the images, in pixels.
    """
    n, side = _TRACED_IMAGES, image_size
    architecture = learner.model.architecture
    several = [architecture.num_classes] if architecture.several_labels else []
    batch = {
        "views": tf.TensorSpec([n, views, side, side, architecture.pixels.channels], tf.float32),
        "label": tf.TensorSpec([n, *several], tf.int32),
    }
    # The gradient of weight decay is as large as the weights, however many images there are.
    without_decay = dataclasses.replace(learner, decayed=[])

    def gradients(batch: tasks.Batch) -> list[tf.Tensor | None]:
        with batch_norm.moving_average_scale(0.0):
            return steps.compute_gradients(without_decay, task, batch)[0]

    trace = tf.function(gradients, autograph=task.autograph)
    graph = trace.get_concrete_function(batch).graph
    trained = sum(_bytes(variable) for variable in learner.variables)
    slots = sum(_bytes(variable) for variable in _slots(learner.optimizer))
    weights = sum(_bytes(variable) for variable in learner.model.variables)
    return Estimate(weights + slots, trained, _peak(graph) // _TRACED_IMAGES)


def _peak(graph: tf.Graph) -> int:
    """Returns the most bytes alive at once if a graph runs in the order of its operations."""
    operations = graph.get_operations()
    returned = {_owner(tensor) for tensor in graph.outputs}
    last_use: dict[Any, int] = {}
    for position, operation in enumerate(operations):
        for tensor in operation.inputs:
            last_use[_owner(tensor)] = position
    expiring: dict[int, list[Any]] = {}
    for ref, position in last_use.items():
        expiring.setdefault(position, []).append(ref)
    alive = peak = 0
    counted = set()
    for position, operation in enumerate(operations):
        if operation.type not in _ALIASES | _FREE:
            outputs = [t.ref() for t in operation.outputs if t.ref() in last_use]
            counted.update(outputs)
            alive += sum(_bytes(ref.deref()) for ref in outputs if ref not in returned)
            peak = max(peak, alive)
        for ref in expiring.get(position, []):
            if ref in counted and ref not in returned:
                alive -= _bytes(ref.deref())
    return peak


def _owner(tensor: tf.Tensor) -> Any:
    """Returns the reference of the tensor that owns the memory of a tensor."""
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
    """Returns the memory available to each replica; None where it is unknown, as on a TPU."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return None
    if tf.config.list_logical_devices("GPU"):
        return _free_gpu_bytes()
    return host_memory.free() // multi_worker.replicas_of_worker(strategy)


def total_bytes(strategy: tf.distribute.Strategy) -> int | None:
    """Returns the memory of the machine for each replica; None if that is not what limits a step.

    It includes the swap space, and what other programs use now.
    """
    on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    if on_tpu or tf.config.list_logical_devices("GPU"):
        return None  # Their allocators report that memory ran out; a system kills the process.
    return host_memory.total() // multi_worker.replicas_of_worker(strategy)


def _free_gpu_bytes() -> int | None:
    """Returns the free memory of the GPU that has the least of it; None without NVIDIA's driver.

    TensorFlow has no public function for the memory of a GPU, and NVIDIA's library does not know
    which of the GPUs TensorFlow was restricted to. So GPUs that this program does not use count.
    """
    try:
        pynvml.nvmlInit()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return min((pynvml.nvmlDeviceGetMemoryInfo(gpu).free for gpu in handles), default=None)
    except pynvml.NVMLError:
        return None


def suggestion(needed: Estimate, images: int, chunks: int, free: int) -> str | None:
    """Returns how to change a step that does not fit into memory.

    Args:
        needed: estimate of the step.
        images: b, of one replica.
        chunks: k, the number of chunks it is processed in.
        free: bytes available to that replica.

    Returns:
        A sentence with the --accum_chunks that would fit, or None if the step fits.
    """
    step = needed.step(images, chunks=chunks)
    if step <= _USABLE_FRACTION * free:
        return None
    problem = f"A step needs about {text.gib(step)} per replica, and {text.gib(free)} are free"
    fitting = fitting_chunks(needed, images, free)
    if fitting is not None:
        return f"{problem}; {_with_chunks(needed, images, fitting)}."
    return (
        f"{problem}, too little even for one image at a time; use a smaller encoder, a smaller "
        "--image_size, or --mixed_precision."
    )


def check_possible(needed: Estimate, images: int, chunks: int, total: int) -> None:
    """Refuses a step that needs much more memory than there is, before the system kills it.

    Args:
        needed: estimate of the step.
        images: b, of one replica.
        chunks: k, the number of chunks it is processed in.
        total: bytes that the machine has for that replica.

    Raises:
        UserError: with the numbers and the remedies.
    """
    step = needed.step(images, chunks=chunks)
    if step <= _IMPOSSIBLE * total:
        return
    fitting = fitting_chunks(needed, images, total)
    chunked = "" if fitting is None else f"{_with_chunks(needed, images, fitting)}; or "
    raise errors.UserError(
        f"A step needs about {text.gib(step)} per replica, and the memory of this machine is "
        f"{text.gib(total)} per replica; {chunked}use a smaller --train_batch_size, a smaller "
        "--image_size, or a smaller encoder."
    )


def _with_chunks(needed: Estimate, images: int, chunks: int) -> str:
    step = needed.step(images, chunks=chunks)
    return f"--accum_chunks={chunks} would need {text.gib(step)}"


def fitting_chunks(needed: Estimate, images: int, free: int) -> int | None:
    """Returns the fewest chunks that fit, a divisor of `images`; None if none do."""
    divisors = (k for k in range(1, images + 1) if images % k == 0)
    usable = _USABLE_FRACTION * free
    return next((k for k in divisors if needed.step(images, chunks=k) <= usable), None)
