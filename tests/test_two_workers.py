"""Two processes with two replicas each train and evaluate as one process does."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_runs

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
# At a high rate, rounding decides which ReLUs are active, and weights diverge within two steps.
SETTINGS = {**tiny_runs.NO_COLOR, "train_steps": 3, "learning_rate": 0.02, "evaluations": "knn"}
# Of these, each replica measures its own images, or the machine decides.
NOT_COMPARED = ("feature_rank", "feature_spread", "images_per_second", "input_wait", "seconds")


def start(mode, model_dir, photos, *, workers=2, **settings):
    """Starts workers in processes of their own."""
    program = [sys.executable, "-m", "simclr_tf.launch", f"--workers={workers}", "--"]
    flags = tiny_runs.arguments(mode, model_dir, photos, **settings)[1:]
    return subprocess.Popen(
        [*program, *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, code=0):
    """Waits for workers, and returns what they printed."""
    out, err = process.communicate(timeout=600)
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


def test_two_workers_train_and_evaluate_as_one_process_does(photos, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    printed = finish(start("train_then_eval", two, photos, **SETTINGS, num_virtual_cpus=2))
    assert printed.count("Exporting the SavedModel") == 1
    assert tiny_runs.main("train_then_eval", one, photos, **SETTINGS) == 0
    assert_close(
        tiny_runs.part(tiny_runs.weights(two), "encoder"),
        tiny_runs.part(tiny_runs.weights(one), "encoder"),
    )
    lines = [(path / "metrics.jsonl").read_text().splitlines() for path in (two, one)]
    assert len(lines[0]) == len(lines[1]) == 3
    for found, expected in zip(*lines):
        assert_close(numbers(found), numbers(expected))
    found, expected = (numbers((path / "result.json").read_text()) for path in (two, one))
    assert any(name.startswith("eval/") for name in expected)
    assert_close(found, expected)


def test_a_signal_to_one_worker_ends_both_at_a_step_from_which_they_resume_bit_equal(
    photos, tmp_path
):
    settings = {**SETTINGS, "train_steps": 60, "checkpoint_steps": 1000}
    ended, whole = tmp_path / "ended", tmp_path / "whole"
    process = start("pretrain", ended, photos, **settings)
    deadline = time.monotonic() + 400
    while not (ended / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    last = children(process.pid)[-1]
    os.kill(last, signal.SIGTERM)
    assert "by SIGTERM after a checkpoint was saved" in finish(process, code=143)
    (checkpoint,) = ended.glob("ckpt-*.index")
    assert 0 < int(checkpoint.stem.removeprefix("ckpt-")) < 60
    assert not (ended / "training.lock").exists()
    assert "resumed from" in finish(start("pretrain", ended, photos, **settings))
    finish(start("pretrain", whole, photos, **settings))
    assert tiny_runs.equal(tiny_runs.weights(ended, 60), tiny_runs.weights(whole, 60))


def children(parent):
    """Returns the processes that a process started, oldest first."""
    found = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in found]
