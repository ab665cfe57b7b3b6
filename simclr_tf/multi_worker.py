"""Several processes that train together, each with its own devices: MultiWorkerMirroredStrategy."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy

from simclr_tf import cluster as cluster_lib
from simclr_tf import distribute

# The name that TensorFlow has for the processes that train together.
_JOB = "worker"
# Types without collective operations, and those to use instead.
_WIDER = {tf.bool: tf.int32, tf.uint8: tf.int32}


def num_workers(strategy: tf.distribute.Strategy | None = None) -> int:
    """Returns the number of processes that train together; 1 for all strategies of one process."""
    strategy = strategy or tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    return strategy.cluster_resolver.cluster_spec().num_tasks(_JOB)


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Returns the index of this process among those that train together."""
    return strategy.cluster_resolver.task_id if num_workers(strategy) > 1 else 0


def num_input_hosts(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of hosts that make input; above 1 for several workers and TPU pods."""
    return max(num_workers(strategy), getattr(strategy.extended, "num_hosts", 1))


def replicas_of_worker(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of replicas of this process."""
    return strategy.num_replicas_in_sync // num_workers(strategy)


def gather(values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns tensors (b, ...) as they are in one process, else those of all replicas (B, ...).

    Then each process has what those of the others returned. Tensors may be of any type that
    collective operations have, of bool and of uint8.

    Raises:
        RuntimeError: outside `strategy.run`.
    """
    if num_workers() == 1:
        return values
    return {
        name: tf.cast(distribute.gather(tf.cast(x, _WIDER.get(x.dtype, x.dtype))), x.dtype)
        for name, x in values.items()
    }


def distributed(batches: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Iterator[Any]:
    """Yields each batch of this worker, split among its replicas.

    Args:
        batches: data set of dictionaries; in each worker, of its own rows of every batch. The
            replicas of a worker divide the rows.
        strategy: the strategy with the replicas.
    """
    if num_workers(strategy) == 1:
        several = strategy.num_replicas_in_sync > 1
        yield from strategy.experimental_distribute_dataset(batches) if several else batches
        return
    # As a data set, TensorFlow would split batches that are split already.
    replicas = replicas_of_worker(strategy)
    for batch in batches:
        rows = {name: tf.split(x, replicas) for name, x in batch.items()}
        yield strategy.experimental_distribute_values_from_function(
            lambda context, rows=rows: {
                name: of_replica[context.replica_id_in_sync_group % replicas]
                for name, of_replica in rows.items()
            }
        )


def local_rows(strategy: tf.distribute.Strategy, values: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns the rows of all replicas, in their order.

    Args:
        strategy: the strategy.
        values: what `strategy.run` returned, passed through `gather` there.
    """
    several = num_workers(strategy) > 1
    rows = {}
    for name, value in values.items():
        parts = strategy.experimental_local_results(value)
        rows[name] = np.concatenate([part.numpy() for part in (parts[:1] if several else parts)])
    return rows


def make_strategy(
    cluster: cluster_lib.Cluster, *, num_virtual_cpus: int = 1
) -> tf.distribute.Strategy:
    """Returns the strategy for the devices of all workers: their GPUs, else their CPUs.

    Call it on all of them, before any other TensorFlow operation.

    Args:
        cluster: the workers.
        num_virtual_cpus: splits the CPU of each into this many replicas.
    """
    gpus = [] if num_virtual_cpus > 1 else tf.config.list_physical_devices("GPU")
    distribute.configure_devices(num_virtual_cpus)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({_JOB: list(cluster.addresses)}),
        task_type=_JOB,
        task_id=cluster.index,
        num_accelerators={"GPU": len(gpus)},
        rpc_layer="grpc",
    )
    with _cpus_per_worker(num_virtual_cpus):
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)


@contextlib.contextmanager
def _cpus_per_worker(count: int) -> Iterator[None]:
    """Lets strategies of several workers use this many virtual CPUs of each.

    Without GPUs, TensorFlow uses one CPU of each worker, and has no setting for that.
    """
    if count == 1:
        yield
        return
    extended = collective_all_reduce_strategy.CollectiveAllReduceExtended
    original = extended._initialize_local_devices

    def cpus(_: Any, cluster_resolver: Any, worker_device: str) -> tuple[tuple[str, ...], str]:
        return tuple(f"{worker_device}/device:CPU:{i}" for i in range(count)), "CPU"

    extended._initialize_local_devices = cpus
    try:
        yield
    finally:
        extended._initialize_local_devices = original
