"""A run resumes to the same weights after an interruption, a kill or a full disk."""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf
import tiny_runs

import run
from simclr_tf.runs import checkpoints

TESTS = pathlib.Path(__file__).parent
PATHS = (str(TESTS.parent), str(TESTS))

pytestmark = pytest.mark.usefixtures("no_export")


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run without an interruption: four steps, and a checkpoint every two."""
    return tiny_runs.pretrained(tmp_path_factory)


@pytest.fixture
def copied(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


def resume(model_dir: pathlib.Path, photos: pathlib.Path, **changes: object) -> int:
    return tiny_runs.main("pretrain", model_dir, photos, **{**tiny_runs.NO_COLOR, **changes})


def check_same_outcome(model_dir: pathlib.Path, finished: pathlib.Path) -> None:
    """Asserts that a run has the weights and losses of the run without an interruption."""
    assert tiny_runs.equal(tiny_runs.weights(model_dir, 4), tiny_runs.weights(finished, 4))
    lines = tiny_runs.lines_of(model_dir / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line, want in zip(lines, tiny_runs.lines_of(finished / "metrics.jsonl")):
        assert line["train/total_loss"] == want["train/total_loss"]


def truncate(path: pathlib.Path) -> None:
    """Truncates a file to half of its size."""
    os.truncate(path, path.stat().st_size // 2)


def test_an_interrupted_run_resumes(tmp_path, finished, photos, capsys, monkeypatch):
    save = checkpoints.Checkpoints.save

    def interrupted(self):
        if int(self.step) == 3:  # Its metrics are written already.
            raise KeyboardInterrupt
        return save(self)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", interrupted)
        assert resume(tmp_path / "run", photos, checkpoint_steps=1) == 130
    assert "Run the same command again to resume" in capsys.readouterr().err
    changes = {"checkpoint_steps": 1, "keep_checkpoint_max": 2}
    assert resume(tmp_path / "run", photos, **changes) == 0
    assert f"resumed from {tmp_path}/run/ckpt-2" in capsys.readouterr().out
    check_same_outcome(tmp_path / "run", finished)
    assert "from scratch" in (tmp_path / "run" / "start.json").read_text()
    # Of the four checkpoints, the newest two are left.
    left = {path.stem for path in (tmp_path / "run").glob("ckpt-*")}
    assert left == {"ckpt-3", "ckpt-4"}


def program(folder: pathlib.Path, text: str) -> str:
    """Writes a program and returns its path."""
    path = folder / "program.py"
    path.write_text(text)
    return str(path)


# Kills the process between the data and the index of the checkpoint of step 4.
KILLED = """
import os, signal, sys
import conftest  # The same devices as here, because rounding depends on the number of threads.
import run
import only_training
from simclr_tf.runs import checkpoints

save = checkpoints.Checkpoints.save

def killed(self):
    if int(self.step) == 4:
        with open(os.path.join(self.model_dir, "ckpt-4.data-00000-of-00001"), "wb") as file:
            file.write(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    return save(self)

checkpoints.Checkpoints.save = killed
sys.exit(run.main(sys.argv))
"""


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_run_that_was_killed_while_saving_resumes(python, tmp_path, finished, photos, capsys):
    changes = {**tiny_runs.NO_COLOR, "checkpoint_steps": 3}
    arguments = tiny_runs.arguments("pretrain", tmp_path / "run", photos, **changes)
    process = subprocess.run(
        [python, program(tmp_path, KILLED), *arguments[1:]],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*PATHS, *sys.path])},
        capture_output=True,
        timeout=300,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    lines = tiny_runs.lines_of(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert resume(tmp_path / "run", photos, checkpoint_steps=3) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path}/run/training.lock was left by process" in printed
    assert f"resumed from {tmp_path}/run/ckpt-3" in printed
    check_same_outcome(tmp_path / "run", finished)


# Trains slowly, one step per call, so that a signal arrives between two steps.
SLOWLY = """
import sys, time
import conftest  # The same devices as here, because rounding depends on the number of threads.
import run
import only_training
from simclr_tf.training import loop

def compile_steps(step, **settings):
    train_steps = compiled(step, **settings)

    def slowly(iterator, count):
        sums = train_steps(iterator, count)
        time.sleep(2)
        return sums

    return slowly

compiled, loop.compile_steps = loop.compile_steps, compile_steps
sys.exit(run.main(sys.argv))
"""


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_run_saves_a_checkpoint_on_sigterm_and_resumes(
    python, tmp_path, finished, photos, capsys
):
    changes = {**tiny_runs.NO_COLOR, "checkpoint_steps": 100}
    arguments = tiny_runs.arguments("pretrain", tmp_path / "run", photos, **changes)
    process = subprocess.Popen(
        [python, program(tmp_path, SLOWLY), *arguments[1:]],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*PATHS, *sys.path])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate(timeout=300)
    assert process.returncode == 143, printed
    assert printed.count("Ended ") == 1
    assert printed.endswith(
        "Ended by SIGTERM after a checkpoint was saved. Run the same command again to resume.\n"
    )
    (left,) = (tmp_path / "run").glob("ckpt-*.index")
    assert left.stem in ("ckpt-2", "ckpt-3")  # The step in progress was finished.
    last = tiny_runs.lines_of(metrics)[-1]["step"]
    assert left.stem == f"ckpt-{last}"
    assert resume(tmp_path / "run", photos, checkpoint_steps=100) == 0
    assert f"resumed from {tmp_path}/run/{left.stem}" in capsys.readouterr().out
    check_same_outcome(tmp_path / "run", finished)


@pytest.mark.exhaustive
@pytest.mark.parametrize("file", ["ckpt-4.data-00000-of-00001", "ckpt-4.index"])
def test_evaluation_skips_a_truncated_checkpoint_with_a_warning(copied, capsys, file):
    truncate(copied / file)
    assert run.main(["run.py", "--mode=eval", f"--model_dir={copied}", "--nolinear_eval"]) == 0
    printed = capsys.readouterr().out
    assert f"warning: The checkpoint {copied}/ckpt-4 is damaged" in printed
    assert tiny_runs.json_of(copied / "result.json")["global_step"] == 2


def test_training_resumes_from_the_checkpoint_before_a_truncated_one(
    copied, finished, photos, capsys
):
    truncate(copied / "ckpt-4.data-00000-of-00001")
    assert resume(copied, photos) == 0
    printed = capsys.readouterr().out
    assert f"The checkpoint {copied}/ckpt-4 is damaged" in printed
    assert f"resumed from {copied}/ckpt-2" in printed
    check_same_outcome(copied, finished)


@pytest.mark.exhaustive
def test_fine_tuning_starts_from_the_checkpoint_before_a_truncated_one(
    copied, tmp_path, photos, capsys
):
    truncate(copied / "ckpt-4.index")
    changes = {"checkpoint": copied, "train_steps": 0, "train_epochs": 0}
    assert tiny_runs.main("finetune", tmp_path / "tuned", photos, **changes) == 0
    printed = capsys.readouterr().out
    assert f"The checkpoint {copied}/ckpt-4 is damaged" in printed
    assert f"weights of {copied}/ckpt-2" in printed
    # If the checkpoint itself is given, no other one is used.
    changes["checkpoint"] = f"{copied}/ckpt-4"
    assert tiny_runs.main("finetune", tmp_path / "tuned_2", photos, **changes) == 2
    assert f"--checkpoint={copied}/ckpt-4 is damaged" in capsys.readouterr().err


def test_a_run_with_only_truncated_checkpoints_is_refused(copied, photos, capsys):
    for path in copied.glob("ckpt-*.data*"):
        truncate(path)
    before = tiny_runs.snapshot(copied)
    assert resume(copied, photos) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: None of the checkpoints in {copied} can be read")
    assert "ckpt-2, ckpt-4" in message
    assert "train again in another --model_dir" in message
    assert message.count("\n") == 1
    assert tiny_runs.snapshot(copied) == before


@contextlib.contextmanager
def limited_file_size(size: int):
    """Makes writing fail beyond a file size, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_stops_the_run_and_leaves_the_last_complete_checkpoint(
    copied, photos, capsys, monkeypatch
):
    def on_a_full_disk(self):
        with limited_file_size(100_000):
            return save(self)

    save = checkpoints.Checkpoints.save
    for path in copied.glob("ckpt-4.*"):
        path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", on_a_full_disk)
        assert resume(copied, photos) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: The checkpoint of step 4 could not be written")
    assert "{{" not in message
    assert "[Op:" not in message
    assert f"the last complete checkpoint is {copied}/ckpt-2" in message
    assert "free some space and run the same command again" in message
    assert message.count("\n") == 1
    left = {path.name for path in copied.iterdir() if "ckpt" in path.name}
    assert left == {"ckpt-2.index", "ckpt-2.data-00000-of-00001"}
    assert run.main(["run.py", "--mode=eval", f"--model_dir={copied}", "--nolinear_eval"]) == 0
    assert tiny_runs.json_of(copied / "result.json")["global_step"] == 2


def test_a_full_disk_is_reported_before_the_first_step(tmp_path, photos, capsys):
    tf.summary.create_file_writer(str(tmp_path)).close()  # Loads what it needs before the limit.
    with limited_file_size(4_000):
        assert resume(tmp_path / "run", photos) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: The ")
    assert "free some space and run the same command again" in message
    assert message.count("\n") == 1


def test_a_finished_run_is_not_trained_further_by_the_same_command(copied, photos):
    before = tiny_runs.snapshot(copied, ["ckpt*", "metrics.jsonl", "architecture.json"])
    assert resume(copied, photos) == 0
    assert tiny_runs.snapshot(copied, ["ckpt*", "metrics.jsonl", "architecture.json"]) == before


@pytest.mark.exhaustive
def test_rmsprop_and_step_decay_resume_to_the_same_weights(tmp_path, photos):
    decay = {"learning_rate_decay": "step", "decay_epochs": "0.3,0.6", "decay_factor": 0.2}
    changes = {"optimizer": "rmsprop", "learning_rate": 0.05, **decay}
    assert resume(tmp_path / "uninterrupted", photos, **changes) == 0
    shutil.copytree(tmp_path / "uninterrupted", tmp_path / "resumed")
    for path in (tmp_path / "resumed").glob("ckpt-4*"):
        path.unlink()
    assert resume(tmp_path / "resumed", photos, **changes) == 0
    expected, resumed = (
        tiny_runs.weights(tmp_path / name, 4) for name in ("uninterrupted", "resumed")
    )
    assert tiny_runs.equal(expected, resumed)
    rates = [
        line["learning_rate"] for line in tiny_runs.lines_of(tmp_path / "resumed/metrics.jsonl")
    ]
    # An epoch of 36 images is 4.5 steps, so the rate drops at steps 1.35 and 2.7.
    want = [0.05 * 8 / 256 * 0.2**drops for drops in (0, 0, 1, 2)]
    assert rates == pytest.approx(want, rel=1e-5)
