"""The training loop under TPUStrategy: traced only, with CPUs in place of the cores of a TPU."""

import types

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.tpu import tpu_system_metadata

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.models import simclr
from simclr_tf.runs import builders
from simclr_tf.training import loop, schedules, setup

CORES = 2


def _device(kind, index):
    return f"/job:localhost/replica:0/task:0/device:{kind}:{index}"


@pytest.fixture(scope="module")
def strategy():
    """A TPUStrategy that keeps its variables on CPUs; nothing can run under it."""
    metadata = tpu_system_metadata.TPUSystemMetadata(
        num_cores=CORES,
        num_hosts=1,
        num_of_cores_per_host=CORES,
        topology=None,
        devices=[types.SimpleNamespace(name=_device("TPU", core)) for core in range(CORES)],
    )
    resolver = types.SimpleNamespace(get_tpu_system_metadata=lambda: metadata)
    strategy = tf.distribute.TPUStrategy(resolver)
    cpus = [_device("CPU", core) for core in range(CORES)]
    strategy.extended._tpu_devices = np.array([[cpu] for cpu in cpus], dtype=object)
    for devices in (
        strategy.extended._device_input_worker_devices,
        strategy.extended._host_input_worker_devices,
    ):
        devices.clear()
        devices[cpus[0]] = cpus
    return strategy


@pytest.mark.slow
def test_a_core_takes_its_variables_and_its_batch_and_nothing_else_from_the_host(
    strategy, monkeypatch
):
    config = config_lib.Config(
        image_size=8, train_batch_size=8, encoder="tiny_encoders:plain", mixed_precision="bfloat16"
    )
    with strategy.scope():
        model = simclr.SimCLR(
            builders.architecture_of(config, ("a", "b")), seed=0, mixed_precision="bfloat16"
        )
        schedule = schedules.make_schedule(config, schedules.make_plan(config, 80))
        learner = setup.make_learner(config, model, schedule)
    task = setup.make_task(config, strategy, learner, None)
    step = setup.make_step(config, strategy, learner, task)
    batch = {"views": tf.zeros([4, 2, 8, 8, 3]), "label": tf.zeros([4], tf.int32)}
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    iterator = iter(strategy.distribute_datasets_from_function(lambda _: batches))
    traced = []
    original = tf.function

    def recorded(function, **options):
        traced.append(original(function, **options))
        return traced[-1]

    with monkeypatch.context() as patch:
        patch.setattr(tf, "function", recorded)
        loop.compile_steps(step)
    graph = traced[-1].get_concrete_function(iterator, tf.constant(2)).graph.as_graph_def()
    bodies = [f.node_def for f in graph.library.function if "while_body" in f.signature.name]
    (body,) = [nodes for nodes in bodies if any(n.op == "TPUReplicateMetadata" for n in nodes)]
    on_tpu = {node.name for node in body if "_tpu_replicate" in node.attr}
    inputs = {node.name: node.attr["T"].type for node in body if node.op == "TPUReplicatedInput"}
    from_host = {
        source
        for node in body
        if node.name in on_tpu
        for source in (name.split(":")[0] for name in node.input if name[0] != "^")
        if source not in on_tpu
    }
    assert from_host <= inputs.keys()
    values = sorted(tf.dtypes.as_dtype(x).name for x in inputs.values() if x != tf.resource)
    assert values == ["float32", "int32", "int32"]  # Views, labels, and the index of the core.


def test_float16_is_refused_on_a_tpu():
    with pytest.raises(errors.UserError, match="--mixed_precision=bfloat16"):
        config_lib.validate(config_lib.Config(use_tpu=True, mixed_precision="float16"))
