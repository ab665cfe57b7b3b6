"""Two processes with one or two replicas each train and evaluate as one process does."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import numpy as np
import program_server
import pytest
import tiny_runs

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

ROOT = pathlib.Path(__file__).parents[1]
# At a high rate, rounding decides which ReLUs are active, and weights diverge within two steps.
SETTINGS = {
    **tiny_runs.NO_COLOR,
    "train_steps": 3,
    "learning_rate": 0.02,
    "evaluations": "knn",
    "untrained_baselines": False,  # An evaluation alone has them, below.
}
# Of these, each replica measures its own images, or the machine decides.
NOT_COMPARED = ("feature_rank", "feature_spread", "images_per_second", "input_wait", "seconds")


def start(python, mode, model_dir, photos, *, exports=False, **settings):
    """Starts two workers in processes of their own."""
    paths = [str(ROOT), str(ROOT / "tests")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if not exports:
        environment[program_server.SETUP] = "only_training"
    program = [python, "-m", "simclr_tf.launch", "--workers=2", "--"]
    flags = tiny_runs.arguments(mode, model_dir, photos, **settings)[1:]
    return subprocess.Popen(
        [*program, *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, code=0):
    """Waits for workers, and returns what they printed."""
    out, err = process.communicate(timeout=1800)
    assert process.returncode == code, err
    return out + err


def numbers(path):
    """Returns the numbers of a JSON file or line that all workers measure together."""
    return {
        name: value
        for name, value in json.loads(path).items()
        if isinstance(value, float) and not name.endswith(NOT_COMPARED)
    }


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=2e-4, err_msg=name)


def assert_same_metrics(found, expected):
    """Checks the metrics of every step of two run directories."""
    lines = [(path / "metrics.jsonl").read_text().splitlines() for path in (found, expected)]
    assert len(lines[0]) == len(lines[1]) > 0
    for one, other in zip(*lines):
        assert_close(numbers(one), numbers(other))


def assert_same_result(found, expected):
    """Checks what an evaluation measured in two run directories."""
    one, other = (numbers((path / "result.json").read_text()) for path in (found, expected))
    assert len(other) > 2
    assert_close(one, other)


@pytest.fixture(scope="module")
def of_one(tmp_path_factory):
    """The run of one process with one replica."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    photos = tiny_runs.photos(tmp_path_factory)
    assert tiny_runs.main("train_then_eval", folder, photos, **SETTINGS) == 0
    return folder


@pytest.fixture(scope="module")
def of_two(python, tmp_path_factory):
    """The same run of two workers with two replicas each, and what was printed."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    photos = tiny_runs.photos(tmp_path_factory)
    settings = {**SETTINGS, "num_virtual_cpus": 2}
    return folder, finish(
        start(python, "train_then_eval", folder, photos, exports=True, **settings)
    )


def test_two_workers_train_and_evaluate_as_one_process_does(of_one, of_two):
    folder, printed = of_two
    assert printed.count("Exporting the SavedModel") == 1
    assert_close(
        tiny_runs.part(tiny_runs.weights(folder), "encoder"),
        tiny_runs.part(tiny_runs.weights(of_one), "encoder"),
    )
    assert_same_metrics(folder, of_one)
    assert_same_result(folder, of_one)


@pytest.mark.usefixtures("no_export")
def test_one_process_resumes_the_run_of_two_workers(photos, tmp_path, of_one, of_two):
    resumed = shutil.copytree(of_two[0], tmp_path / "resumed")
    for path in resumed.glob("ckpt-3.*"):
        path.unlink()
    assert tiny_runs.main("train", resumed, photos, **SETTINGS) == 0
    assert_close(
        tiny_runs.part(tiny_runs.weights(resumed), "encoder"),
        tiny_runs.part(tiny_runs.weights(of_one), "encoder"),
    )


def test_a_signal_to_one_worker_ends_both_at_a_step_from_which_they_resume_bit_equal(
    python, photos, tmp_path
):
    settings = {**SETTINGS, "train_steps": 100, "checkpoint_steps": 1000}
    settings |= {"encoder": "tiny_encoders:plain", "resnet_depth": None}
    ended, whole = tmp_path / "ended", tmp_path / "whole"
    process = start(python, "train", ended, photos, **settings)
    deadline = time.monotonic() + 1200
    while not (ended / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(workers_of(ended)[-1], signal.SIGTERM)
    assert "by SIGTERM after a checkpoint was saved" in finish(process, code=143)
    (checkpoint,) = ended.glob("ckpt-*.index")
    assert 0 < int(checkpoint.stem.removeprefix("ckpt-")) < 100
    assert not (ended / "training.lock").exists()
    assert "resumed from" in finish(start(python, "train", ended, photos, **settings))
    finish(start(python, "train", whole, photos, **settings))
    assert tiny_runs.equal(tiny_runs.weights(ended, 100), tiny_runs.weights(whole, 100))


def workers_of(model_dir):
    """Returns the processes that were started as workers of a run, oldest first."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # It has ended.
            arguments = path.read_bytes().decode(errors="replace").split("\0")
            if "simclr_tf" in arguments and f"--model_dir={model_dir}" in arguments:
                found.append(int(path.parent.name))
    return sorted(found)


@pytest.mark.usefixtures("no_export")
def test_chunks_views_of_the_device_and_validation_are_those_of_one_process(
    python, photos, tmp_path
):
    # Batch norm normalizes a chunk of all replicas, so there must be as many of them.
    settings = {**SETTINGS, "accum_chunks": 2, "augment_on": "device", "eval_epochs": 1}
    settings |= {"encoder": "tiny_encoders:plain", "resnet_depth": None}
    one, two = tmp_path / "one", tmp_path / "two"
    finish(start(python, "train", two, photos, **settings))
    assert tiny_runs.main("train", one, photos, **settings, num_virtual_cpus=2) == 0
    assert "validation/" in (two / "metrics.jsonl").read_text()
    assert_same_metrics(two, one)
    assert_close(
        tiny_runs.part(tiny_runs.weights(two), "encoder"),
        tiny_runs.part(tiny_runs.weights(one), "encoder"),
    )


def test_two_workers_evaluate_a_run_as_one_process_does(python, photos, tmp_path, pretrained):
    two = shutil.copytree(pretrained, tmp_path / "two")
    settings = {"evaluations": "knn,label_free,map", "train_steps": 4}
    finish(start(python, "eval", two, photos, **settings))
    assert tiny_runs.main("eval", pretrained, photos, **settings) == 0
    assert_same_result(two, pretrained)


@pytest.mark.usefixtures("no_export")
def test_two_workers_fine_tune_on_draws_of_labels_as_one_process_does(
    python, photos, tmp_path, pretrained
):
    settings = {
        **SETTINGS,
        "train_mode": "finetune",
        "checkpoint": pretrained,
        "labels_per_class": 4,
        "label_draws": 2,
    }
    one, two = tmp_path / "one", tmp_path / "two"
    finish(start(python, "train_then_eval", two, photos, **settings))
    assert tiny_runs.main("train_then_eval", one, photos, **settings) == 0
    for draw in ("draw-0", "draw-1"):
        assert_same_metrics(two / draw, one / draw)
        assert_close(*(tiny_runs.part(tiny_runs.weights(f / draw), "encoder") for f in (two, one)))
    assert "is finished" in finish(start(python, "train_then_eval", two, photos, **settings))
