"""The memory estimate of a step: correct on graphs counted by hand, and its suggestions."""

import types

import numpy as np
import psutil
import pynvml
import pytest
import replicas as replicas_lib
import tensorflow as tf
import tiny_runs

from simclr_tf import cgroup, config, distribute, errors
from simclr_tf.models import simclr
from simclr_tf.training import loop, memory, objectives, optimizers, schedules, steps, tasks

pytestmark = pytest.mark.usefixtures("with_memory_estimates")
_MIB = 2**20


def _peak(function, *shapes):
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    return memory._peak(tf.function(function).get_concrete_function(*specs).graph)


def test_a_tensor_lives_until_its_last_use():
    def chain(x):
        a = tf.exp(x)  # Alive together with b: two tensors at once, never three.
        b = tf.sin(a)
        return tf.reduce_sum(tf.cos(b))

    assert _peak(chain, [1000]) == 2 * 4000

    def kept(x):
        a = tf.exp(x)
        b = tf.sin(a)
        return tf.reduce_sum(tf.cos(b) * a)  # a, b and cos(b), then the product.

    assert _peak(kept, [1000]) == 3 * 4000


def test_a_reshaped_tensor_takes_no_memory_of_its_own():
    def function(x):
        a = tf.reshape(tf.exp(x), [10, 100])
        return tf.reduce_sum(tf.sin(tf.identity(a)))

    assert _peak(function, [1000]) == 2 * 4000


def _estimate(replicas=1, image_size=8, **settings):
    run = config.Config(image_size=image_size, resnet_depth=8, optimizer="momentum", **settings)
    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        strategy = distribute.virtual_cpu_strategy(replicas)
    with strategy.scope():
        model = simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=0)
        variables = model.trainable_variables
        optimizer = optimizers.make_optimizer(
            run, model, variables, schedules.WarmupCosine(1.0, 0, 10)
        )
    learner = steps.Learner(model, optimizer, variables, [], 0.0)
    task = tasks.contrastive_task(
        model,
        objectives.make_objective(run),
        temperature=0.1,
        hidden_norm=True,
        labelled=model.linear_head is not None,
    )
    return memory.estimate(learner, task, views=2, image_size=image_size), model


def test_activations_scale_with_the_pixels_and_gradients_with_the_weights():
    small, model = _estimate()
    large, _ = _estimate(image_size=16)
    assert large.per_image == pytest.approx(4 * small.per_image, rel=0.2)
    weights = 4 * sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert small.gradients == large.gradients == weights
    assert small.state >= 2 * weights  # Momentum has a slot for each.


def test_the_estimate_per_replica_does_not_depend_on_their_number():
    assert _estimate(replicas=2)[0].per_image == pytest.approx(_estimate()[0].per_image, rel=0.1)


def test_the_estimate_changes_no_variable():
    estimate, model = _estimate()
    before = [variable.numpy() for variable in model.variables]
    assert estimate.per_image > 0
    _, again = _estimate()
    for one, other in zip(before, [variable.numpy() for variable in again.variables]):
        np.testing.assert_array_equal(one, other)


NEEDED = memory.Estimate(state=100 * _MIB, gradients=50 * _MIB, per_image=10 * _MIB)


def test_chunks_divide_the_activations_and_double_the_gradients():
    whole, eighth = NEEDED.step(64), NEEDED.step(64, chunks=8)
    assert whole - eighth == (640 - 80 - 50) * _MIB


def test_there_is_no_suggestion_if_the_step_fits():
    assert memory.suggestion(NEEDED, 64, 1, 2 * NEEDED.step(64)) is None


def test_suggests_the_fewest_chunks_that_fit():
    free = 800 * _MIB
    assert memory.fitting_chunks(NEEDED, 64, free) == 4
    text = memory.suggestion(NEEDED, 64, 1, free)
    assert "A step needs about 1.02 GiB per replica, and 0.78 GiB are free" in text
    assert "--accum_chunks=4 would need 0.60 GiB" in text


def test_suggests_a_smaller_network_if_no_number_of_chunks_fits():
    assert "too little even for one image at a time" in memory.suggestion(NEEDED, 64, 1, 300 * _MIB)


def test_a_step_that_needs_much_more_than_the_machine_has_is_refused():
    step = NEEDED.step(64)
    memory.check_possible(NEEDED, 64, 1, int(step / 1.45))
    with pytest.raises(errors.UserError) as raised:
        memory.check_possible(NEEDED, 64, 1, int(step / 1.55))
    message = str(raised.value)
    assert "A step needs about 1.02 GiB per replica, and the memory of this machine" in message
    assert "--accum_chunks=8 would need 0.52 GiB; or use a smaller --train_batch_size" in message
    memory.check_possible(NEEDED, 64, 8, int(step / 1.55))  # With its own suggestion.


def test_a_refusal_suggests_no_chunks_if_no_number_of_them_fits():
    with pytest.raises(errors.UserError, match="per replica; use a smaller --train_batch_size"):
        memory.check_possible(NEEDED, 64, 1, 300 * _MIB)


def test_a_run_that_would_be_killed_for_its_memory_is_refused_before_it_writes(
    photos, tmp_path, capsys, monkeypatch
):
    machine = types.SimpleNamespace(total=100 * _MIB, available=90 * _MIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(psutil, "swap_memory", lambda: types.SimpleNamespace(total=0))
    assert tiny_runs.main("pretrain", tmp_path / "run", photos, **tiny_runs.NO_COLOR) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: A step needs about 0.2")
    assert "the memory of this machine is 0.10 GiB per replica; use a smaller" in message
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("changes", [{}, {"mixed_precision": "bfloat16"}])
def test_neither_a_finished_run_nor_an_inaccurate_estimate_is_refused(
    pretrained, photos, tmp_path, monkeypatch, no_export, changes
):
    monkeypatch.setattr(memory, "total_bytes", lambda _: 1)
    monkeypatch.setattr(loop, "fit", lambda *_, **__: None)
    changes = {**tiny_runs.NO_COLOR, **changes}
    model_dir = tmp_path / "new" if "mixed_precision" in changes else pretrained
    assert tiny_runs.main("pretrain", model_dir, photos, **changes) == 0


def _use_gpus(monkeypatch, free):
    """Makes TensorFlow and NVIDIA's library report GPUs with these free bytes."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: list(free))
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(free))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda gpu: types.SimpleNamespace(free=free[gpu])
    )


def test_the_gpu_with_the_least_free_memory_counts(monkeypatch):
    _use_gpus(monkeypatch, [3 * _MIB, 2 * _MIB, 5 * _MIB])
    assert memory.free_bytes(tf.distribute.get_strategy()) == 2 * _MIB


def test_the_free_memory_of_a_gpu_without_nvidias_driver_is_unknown(monkeypatch):
    def fail():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    _use_gpus(monkeypatch, [_MIB])
    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert memory.free_bytes(tf.distribute.get_strategy()) is None


def _use_machine(monkeypatch, *, limit):
    machine = types.SimpleNamespace(total=10 * 2**30, available=8 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(psutil, "swap_memory", lambda: types.SimpleNamespace(total=2 * 2**30))
    monkeypatch.setattr(cgroup, "memory_limit", lambda: limit)


def test_the_memory_of_a_cpu_is_split_among_its_replicas(monkeypatch):
    _use_machine(monkeypatch, limit=None)
    assert memory.free_bytes(replicas_lib.strategy(2)) == 4 * 2**30
    assert memory.total_bytes(replicas_lib.strategy(2)) == 6 * 2**30


def test_the_limit_of_a_container_counts_if_it_is_lower(monkeypatch):
    strategy = tf.distribute.get_strategy()
    _use_machine(monkeypatch, limit=5 * 2**30)
    assert memory.total_bytes(strategy) == 5 * 2**30
    used = 5 * 2**30 - memory.free_bytes(strategy)
    assert used == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    _use_machine(monkeypatch, limit=2**62)
    assert memory.total_bytes(strategy) == 12 * 2**30
    assert memory.free_bytes(strategy) == 8 * 2**30


def test_the_memory_of_a_machine_with_gpus_is_not_what_limits_a_step(monkeypatch):
    _use_gpus(monkeypatch, [_MIB])
    assert memory.total_bytes(tf.distribute.get_strategy()) is None


CGROUPS: dict[str, tuple[str, dict[str, object]]] = {
    "version 2": ("0::/jobs/7", {"cgroup/jobs/7/memory.max": "max", "cgroup/jobs/memory.max": 5}),
    "a container": ("0::/outside/7", {"cgroup/memory.max": 5}),
    "version 1": (
        "9:cpu:/other\n4:memory:/jobs/7",
        {
            "cgroup/memory/jobs/7/memory.limit_in_bytes": 5,
            "cgroup/memory/memory.limit_in_bytes": 2**63 - 4096,
            "cgroup/memory/other/memory.limit_in_bytes": 3,
        },
    ),
    "without a limit": ("0::/", {"cgroup/memory.max": "max"}),
}


@pytest.mark.parametrize("name", CGROUPS)
def test_the_lowest_limit_of_the_groups_of_a_process_is_found(tmp_path, name):
    groups, files = CGROUPS[name]
    for file, content in {"proc/self/cgroup": groups, **files}.items():
        path = tmp_path / (file if file.startswith("proc") else f"sys/fs/{file}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    assert cgroup.memory_limit(tmp_path) == (None if name == "without a limit" else 5)


def test_a_system_without_groups_has_no_limit(tmp_path):
    assert cgroup.memory_limit(tmp_path) is None
