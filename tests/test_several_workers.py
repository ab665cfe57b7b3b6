"""What the workers of a cluster agree on before they train; they are threads here."""

import contextlib
import dataclasses
import pathlib
import socket
import threading

import pytest
import tensorflow as tf

from simclr_tf import cluster, config, console, errors, preemption, workers
from simclr_tf.commands import control as control_lib
from simclr_tf.commands import several_workers


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(console, "silence", lambda: None)  # It would last for all tests.
    monkeypatch.setattr(several_workers, "_abort_collectives", lambda: None)
    monkeypatch.setattr(workers, "_LEAVING_SECONDS", 0.2)


def together(*configs, work=lambda joined: joined):
    """Joins workers with these settings; returns the results or errors of all."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in configs]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    results = {}

    def run(index):
        environment = {"TF_CONFIG": cluster.to_variable(addresses, index)}
        try:
            with several_workers.joined(configs[index], environment) as joined:
                results[index] = work(joined)
        except errors.UserError as error:
            results[index] = str(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(configs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return [results[index] for index in range(len(configs))]


@pytest.fixture
def settings(tmp_path):
    return config.Config(mode="train", model_dir=str(tmp_path / "run"))


def test_without_a_cluster_the_settings_are_as_they_are(settings):
    with several_workers.joined(settings, {}) as joined:
        assert joined.config is settings
        assert joined.cluster is None


def test_the_chief_alone_works_in_the_run_directory(settings, tmp_path):
    def work(joined):
        folder = joined.config.model_dir
        with open(f"{folder}/written", "w") as file:
            file.write("x")
        return folder

    chief, other = together(settings, settings, work=work)
    assert chief == settings.model_dir
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["written"]
    assert not tf.io.gfile.exists(other)  # It was temporary.


def test_another_worker_begins_with_a_copy_and_does_not_change_the_original(settings, tmp_path):
    run = tmp_path / "run"
    (run / "draw-1").mkdir(parents=True)
    (run / "saved_model").mkdir()
    kept = {
        "flags.txt": "--seed=1\n",
        "best.json": "{}",
        "draw-1/result.json": "{}",
        "ckpt-2.index": "index",
        "ckpt-2.data-00000-of-00001": "data",
    }
    left_out = {"events.out.tfevents.1": "e", "metrics.jsonl": "m", "saved_model/x.txt": "s"}
    for name, content in {**kept, **left_out}.items():
        (run / name).write_text(content)

    def work(joined):
        if joined.cluster.is_chief:
            return None
        folder = joined.config.model_dir
        found = {name: pathlib.Path(folder, name).read_text() for name in kept}
        assert not any(tf.io.gfile.exists(f"{folder}/{name}") for name in left_out)
        with open(f"{folder}/flags.txt", "w") as file:
            file.write("changed")
        tf.io.gfile.remove(f"{folder}/ckpt-2.index")
        return found

    _, found = together(settings, settings, work=work)
    assert found == kept
    assert {name: (run / name).read_text() for name in kept} == kept


def test_other_flags_on_a_worker_are_named_by_all(settings):
    other = dataclasses.replace(settings, train_batch_size=8)
    for message in together(settings, settings, other):
        assert "worker 2 (127.0.0.1:" in message
        assert "--train_batch_size: 8 there, 512 on the chief" in message


def test_a_run_directory_that_is_not_shared_is_refused_by_all(settings, monkeypatch):
    monkeypatch.setattr(several_workers, "_appears", lambda path: False)
    for message in together(settings, settings):
        assert "worker 1 (127.0.0.1:" in message
        assert f"does not see what the chief writes to --model_dir={settings.model_dir}" in message
    assert not tf.io.gfile.exists(settings.model_dir)


@pytest.mark.parametrize("existed", ["runs", "runs/a", "runs/a/b"])
def test_a_refused_run_leaves_the_file_system_as_it_was(settings, tmp_path, existed):
    def refuse(joined):
        raise errors.UserError("This plan is impossible.")

    (tmp_path / existed).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    changed = dataclasses.replace(settings, model_dir=str(tmp_path / "runs/a/b"))
    assert "This plan is impossible." in together(changed, changed, work=refuse)[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_the_chief_alone_prints(monkeypatch):
    silenced = []
    monkeypatch.setattr(console, "silence", lambda: silenced.append(True))
    several_workers.silence_others({})
    several_workers.silence_others({"TF_CONFIG": cluster.to_variable(["a:1", "b:1"], 0)})
    assert not silenced
    several_workers.silence_others({"TF_CONFIG": cluster.to_variable(["a:1", "b:1"], 1)})
    assert silenced


@pytest.mark.parametrize("mode", ["embed", "study", "export"])
def test_modes_of_one_process_refuse_a_cluster(mode):
    several = {"TF_CONFIG": cluster.to_variable(["a:1", "b:1"], 0)}
    with pytest.raises(errors.UserError, match=f"--mode={mode} runs in one process, and TF_CONFIG"):
        several_workers.check_alone(mode, several)
    several_workers.check_alone("train", several)
    several_workers.check_alone(mode, {"TF_CONFIG": cluster.to_variable(["a:1"], 0)})
    several_workers.check_alone(mode, {})


def test_an_error_of_another_worker_names_it_and_the_run_directory(settings):
    def work(joined):
        if not joined.cluster.is_chief:
            raise errors.UserError(f"{joined.config.model_dir}/x is damaged.")

    chief, other = together(settings, settings, work=work)
    assert f"{settings.model_dir}/x is damaged." in chief
    assert other.startswith("On worker 1 (127.0.0.1:")
    assert f": {settings.model_dir}/x is damaged." in other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_tpu": True}, "--use_tpu does not work with the 2 workers of TF_CONFIG"),
        ({"mode": "transfer"}, "--mode=transfer runs in one process, and TF_CONFIG names 2"),
    ],
)
def test_what_several_workers_cannot_do_is_refused(settings, changes, message):
    changed = dataclasses.replace(settings, **changes)
    for found in together(changed, changed):
        assert message in found


def test_workers_stop_after_the_same_step_and_at_the_pace_of_the_slowest():
    class Connection:
        count = 2

        def exchange(self, value):
            return [value, [True, 0.3]]

    several = control_lib.Control(preemption.Preemption(), None, Connection())
    assert several.agree(False, 0.1) == (True, 0.3)
    alone = control_lib.Control(preemption.Preemption(), None, workers.Alone())
    assert alone.agree(False, 0.1) == (False, 0.1)
