"""The range of the output of every layer, in the forward pass of a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import distribute, keras_api
from simclr_tf.keras_api import keras
from simclr_tf.models import batch_norm
from simclr_tf.training import accumulation, tasks

VIEWS = "views"


@dataclasses.dataclass(frozen=True)
class Output:
    """The range of an output, over all replicas and chunks.

    Attributes:
        name: names of the layer and of those that contain it, joined by slashes; `VIEWS` for the
            images that the network is given.
        low: smallest finite value; NaN if there is none.
        high: largest finite value; NaN if there is none.
        bad: number of values that are not finite.
    """

    name: str
    low: float
    high: float
    bad: int


def measure(
    model: keras.Model,
    task: tasks.Task,
    strategy: tf.distribute.Strategy,
    batch: tasks.Batch,
    *,
    chunks: int,
) -> list[Output]:
    """Runs the forward pass of a step, without a graph and without changing any variable.

    Args:
        model: the network.
        task: the task, whose `forward` runs it.
        strategy: the strategy with the replicas.
        batch: the batches of the replicas.
        chunks: the number of chunks that the step processes a batch in.

    Returns:
        The views, and the outputs of the layers in the order in which they are complete: a layer
        comes before those that contain it.
    """
    recorder = _Recorder()

    def on_replica(batch: tasks.Batch) -> None:
        for index in range(chunks):
            recorder.begin(index)
            chunk = accumulation.slice_chunk(task, chunks, batch, tf.constant(index))
            recorder.add(VIEWS, chunk["views"])
            with batch_norm.moving_average_scale(0.0):
                task.forward(chunk)

    with recorder.watching(model):
        strategy.run(on_replica, (batch,))
    return [_combined(outputs) for outputs in zip(*recorder.passes.values())]


def first_bad(outputs: list[Output]) -> Output | None:
    """Returns the first output with a value that is not finite, or None."""
    return next((output for output in outputs if output.bad), None)


def _combined(outputs: tuple[Output, ...]) -> Output:
    """Returns the range over the forward passes of all replicas and chunks."""
    return Output(
        outputs[0].name,
        float(np.fmin.reduce([output.low for output in outputs])),
        float(np.fmax.reduce([output.high for output in outputs])),
        sum(output.bad for output in outputs),
    )


class _Recorder:
    """Records what layers return.

    Attributes:
        passes: the outputs of each forward pass, by replica and chunk.
    """

    def __init__(self) -> None:
        self.passes: dict[tuple[int, int], list[Output]] = {}
        # Replicas run in threads of their own, which take turns.
        self._chunk: dict[int, int] = {}
        self._names: dict[int, list[str]] = {}

    def begin(self, chunk: int) -> None:
        """Begins the forward pass of a chunk on this replica."""
        replica = int(distribute.replica_index())
        self._chunk[replica], self._names[replica] = chunk, []
        self.passes[replica, chunk] = []

    def add(self, name: str, outputs: Any) -> None:
        """Records the floating-point tensors among the outputs of a layer as one."""
        replica = int(distribute.replica_index())
        arrays = [
            np.ravel(tf.cast(x, tf.float32).numpy())
            for x in tf.nest.flatten(outputs)
            if tf.is_tensor(x) and x.dtype.is_floating
        ]
        if not arrays:
            return
        values = np.concatenate(arrays)
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if len(finite) else (np.nan, np.nan)
        output = Output(name, float(low), float(high), len(values) - len(finite))
        self.passes[replica, self._chunk[replica]].append(output)

    @contextlib.contextmanager
    def watching(self, model: keras.Model) -> Iterator[None]:
        """Records the outputs of all layers of a network within this context."""
        layers = keras_api.layers_in(model)
        for layer in layers:
            # Not by an ordinary assignment, in which Keras would look for variables.
            object.__setattr__(layer, "call", self._watched(layer.name, layer.call))
        try:
            yield
        finally:
            for layer in layers:
                object.__delattr__(layer, "call")

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            names = self._names[int(distribute.replica_index())]
            names.append(name)
            outputs = call(*args, **kwargs)
            self.add("/".join(names), outputs)
            names.pop()
            return outputs

        return watched
