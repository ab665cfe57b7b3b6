"""A strategy that lowers functions for one of several TPU replicas, without a TPU."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

import tensorflow as tf  # isort: skip
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.distribute import distribute_lib, one_device_strategy


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A function that a strategy was asked to run on every replica.

    Attributes:
        name: name of the function.
        function: the function, which XLA can compile.
        specs: the specifications of its arguments.
    """

    name: str
    function: Any
    specs: tuple[Any, ...]

    def hlo(self, stage: str = "hlo_serialized") -> Any:
        """Returns its HLO, serialized, or as a text with the stage "hlo"."""
        return self.function.experimental_get_compiler_ir(*self.specs)(stage=stage)


class TPUStrategyWithoutTPU(tf.distribute.TPUStrategy):
    """A `TPUStrategy` whose `run` lowers a function for one replica.

    Being a subclass, it takes the branches of the code for TPUs. Use `run` inside of a function
    that is only traced: what it returns cannot be computed on a CPU if there are several replicas.

    Attributes:
        lowered: what `run` was called with.
    """

    def __init__(self, replicas: int) -> None:
        """Creates the strategy. It does not connect to anything."""
        # The initializer of TPUStrategy connects to a TPU.
        tf.distribute.Strategy.__init__(self, _Extended(self, replicas))
        self.lowered: list[Lowered] = []

    def run(
        self,
        fn: Callable[..., Any],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
        options: Any = None,
    ) -> Any:
        """Lowers `fn`, and returns its results on one replica.

        Args:
            fn: the function.
            args: its arguments.
            kwargs: its other arguments.
            options: ignored.
        """
        # The index of the replica is an argument: all replicas of a TPU run the same program.
        arguments = (tf.constant(0), args, kwargs or {})

        def on_replica(*flat: tf.Tensor) -> Any:
            replica, args, kwargs = tf.nest.pack_sequence_as(arguments, flat)
            with _Context(self, replica_id_in_sync_group=replica):
                return fn(*args, **kwargs)

        function = tf.function(on_replica, jit_compile=True, autograph=False)
        flat = tf.nest.flatten(arguments)
        results = function(*flat)
        specs = tuple(tf.TensorSpec(x.shape, x.dtype) for x in flat)
        self.lowered.append(Lowered(_name(fn), function, specs))
        return results


def _name(function: Any) -> str:
    while not hasattr(function, "__name__"):  # functools.partial
        function = getattr(function, "func", None) or function.python_function
    return function.__name__.strip("_")


class _Extended(one_device_strategy.OneDeviceExtended):
    """Keeps variables on the CPU, and says that there are several replicas."""

    def __init__(self, strategy: tf.distribute.Strategy, replicas: int) -> None:
        super().__init__(strategy, "/cpu:0")
        self._replicas = replicas

    @property
    def _num_replicas_in_sync(self) -> int:
        return self._replicas

    def _use_merge_call(self) -> bool:
        return False


class _Context(distribute_lib.ReplicaContext):
    """What a function on one replica of a TPU communicates with."""

    def all_reduce(self, reduce_op: Any, value: Any, options: Any = None) -> Any:
        """Returns the sum over all replicas of each tensor, as the HLO that a TPU runs."""
        if reduce_op != tf.distribute.ReduceOp.SUM:
            raise NotImplementedError(f"{reduce_op} is not lowered.")
        groups = [list(range(self.num_replicas_in_sync))]
        # The kernel of TensorFlow's own operation is only in its build for TPUs.
        return tf.nest.map_structure(
            lambda x: gen_xla_ops.xla_all_reduce(x, groups, reduce_op="Add", mode="CrossReplica"),
            value,
        )
