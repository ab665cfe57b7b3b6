"""Trains with the `run.py` of the current folder and records every step at full precision.

    python benchmarks/record_training.py OUTPUT MODEL_DIR FLAGS...

`loss_compare.py` starts this program once for each training run. It imports no module inside of
`simclr_tf`, so that it can also record commits whose modules have other names. OUTPUT is a pickle
of {"series": {name: {step: value}}, "variables": {name: array}}. It holds the scalars that the run
wrote for TensorBoard, the norm of the gradients that each replica passed to the optimizer, and the
variables of the last checkpoint.
"""

# ruff: noqa: I001  (simclr_tf chooses Keras 2, so it is imported before TensorFlow)

from __future__ import annotations

import os
import pathlib
import pickle
import runpy
import sys
from typing import Any

sys.path.insert(0, os.getcwd())

import numpy as np
import simclr_tf  # noqa: F401
import tensorflow as tf

# Scalars that depend on the machine.
_TIMINGS = ("train/images_per_second", "train/input_wait")
_NOT_COMPARED = ("_CHECKPOINTABLE_OBJECT_GRAPH", "train_seconds", "save_counter")
_MAX_STEPS = 10_000
_NOT_APPLIED = -1.0


class GradientNorms:
    """Records the norm of the gradients in every call of `apply_gradients`.

    The norms are stored in a variable on each replica, because graphs compiled with XLA cannot call
    Python. The variables are not attributes of the optimizers, because they would then be saved in
    checkpoints.
    """

    def __init__(self) -> None:
        self._recorded: dict[int, tuple[Any, tf.Variable, tf.distribute.Strategy]] = {}

    def install(self, optimizer_class: Any) -> None:
        """Wraps two methods of a base class of optimizers; call it before creating optimizers."""
        initialize, apply_gradients = optimizer_class.__init__, optimizer_class.apply_gradients

        def initialize_recorded(optimizer: Any, *args: Any, **kwargs: Any) -> None:
            initialize(optimizer, *args, **kwargs)
            self._add(optimizer)

        def apply_recorded(optimizer: Any, pairs: Any, *args: Any, **kwargs: Any) -> Any:
            pairs = list(pairs)
            self._record(optimizer, [gradient for gradient, _ in pairs if gradient is not None])
            return apply_gradients(optimizer, pairs, *args, **kwargs)

        optimizer_class.__init__ = initialize_recorded
        optimizer_class.apply_gradients = apply_recorded

    def _add(self, optimizer: Any) -> None:
        norms = tf.Variable(
            tf.fill([_MAX_STEPS], tf.constant(_NOT_APPLIED, tf.float64)),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
        )
        self._recorded[id(optimizer)] = (optimizer, norms, tf.distribute.get_strategy())

    def _record(self, optimizer: Any, gradients: list[Any]) -> None:
        norms = self._recorded[id(optimizer)][1]
        squares = [
            tf.reduce_sum(tf.cast(tf.convert_to_tensor(g), tf.float64) ** 2) for g in gradients
        ]
        norm = tf.sqrt(tf.add_n(squares))
        step = tf.cast(optimizer.iterations, tf.int32)
        norms.assign(tf.tensor_scatter_nd_update(norms.read_value(), [[step]], [norm]))

    def series(self) -> dict[str, dict[int, np.float64]]:
        """Returns the norms of each replica by step; the first step is 1."""
        used = [one for one in self._recorded.values() if one[0].iterations.numpy() > 0]
        if len(used) != 1:
            raise SystemExit(
                f"The run trained with {len(used)} optimizers; only 1 can be compared."
            )
        optimizer, norms, strategy = used[0]
        if optimizer.iterations.numpy() > _MAX_STEPS:
            raise SystemExit(f"The run has more than {_MAX_STEPS:,} steps; compare fewer.")
        series = {
            f"gradient_norm/replica_{replica}": _by_step(variable.numpy())
            for replica, variable in enumerate(strategy.experimental_local_results(norms))
        }
        if not all(series.values()):
            raise SystemExit(
                "No step applied its gradients. This happens in float16 until the loss scale is "
                "small enough; compare more steps."
            )
        return series


def _by_step(norms: np.ndarray) -> dict[int, np.float64]:
    return {step: norm for step, norm in enumerate(norms, start=1) if norm != _NOT_APPLIED}


def scalars(model_dir: pathlib.Path) -> dict[str, dict[int, np.float32]]:
    """Returns the scalars of a run's TensorBoard files, by name and step."""
    series: dict[str, dict[int, np.float32]] = {}
    for path in sorted(model_dir.glob("events.out.tfevents.*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                kind = value.metadata.plugin_data.plugin_name
                if kind == "scalars" and value.tag not in _TIMINGS:
                    number = tf.make_ndarray(value.tensor)[()]
                    series.setdefault(value.tag, {})[event.step] = number
    return series


def checkpoint(model_dir: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the variables of a run's last checkpoint, by their names in it."""
    reader = tf.train.load_checkpoint(str(model_dir))
    return {
        name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): np.asarray(reader.get_tensor(name))
        for name in sorted(reader.get_variable_to_shape_map())
        if not name.startswith(_NOT_COMPARED)
    }


def main(output: str, model_dir: str, *flags: str) -> None:
    """Trains and writes the record."""
    tf.keras.utils.set_random_seed(0)
    norms = GradientNorms()
    norms.install(tf.keras.optimizers.Optimizer)
    norms.install(tf.keras.optimizers.legacy.Optimizer)  # The base class of LAMB.
    sys.argv = ["run.py", *flags, f"--model_dir={model_dir}", "--train_summary_steps=1"]
    try:
        runpy.run_path("run.py", run_name="__main__")
    except SystemExit as error:
        if error.code:
            raise
    folder = pathlib.Path(model_dir)
    series = {**scalars(folder), **norms.series()}
    record = {"series": series, "variables": checkpoint(folder)}
    pathlib.Path(output).write_bytes(pickle.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
