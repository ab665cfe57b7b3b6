"""A full or read-only disk ends the program with one sentence; what was written stays usable."""

from __future__ import annotations

import errno
import os
import types
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import test_checkpoints
import tiny_runs

from simclr_tf import config as config_lib
from simclr_tf import errors, storage
from simclr_tf.commands import train
from simclr_tf.runs import diagnosis, directory, lock, metrics_log, resuming
from simclr_tf.serving import export

FULL = "/dev/full"  # Every write to it fails as on a full disk.
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason="the system has no /dev/full")


def check_message(message: str, path: Any) -> None:
    assert str(path) in message
    assert "No space left on device" in message
    assert "free some space" in message
    assert "\n" not in message.strip()


# What writes each file of a run directory: name of the file -> function of the directory.
WRITERS = {
    "result.json": lambda folder: directory.write_result(folder, {"global_step": 4}),
    "flags.txt": lambda folder: directory.write_config(folder, config_lib.Config()),
    "flags_history.jsonl": lambda folder: storage.append(f"{folder}/{resuming.HISTORY}", "{}\n"),
    "views.png": lambda folder: storage.write_png(
        f"{folder}/views.png", np.zeros([1, 1, 3], np.uint8)
    ),
    "training.lock": lambda folder: lock.hold(folder).__enter__(),
}


@needs_full
@pytest.mark.parametrize("name", WRITERS)
def test_each_writer_reports_a_full_disk_and_keeps_the_old_file(tmp_path, name):
    path = tmp_path / name
    path.write_text("" if name.endswith("lock") else "{}")
    if name.endswith("lock"):
        path.unlink()
    before = tiny_runs.snapshot(tmp_path)
    (tmp_path / f"{name}.partial").symlink_to(FULL)
    with pytest.raises(errors.UserError) as raised:
        WRITERS[name](str(tmp_path))
    check_message(str(raised.value), path)
    (tmp_path / f"{name}.partial").unlink()
    assert tiny_runs.snapshot(tmp_path) == before


@needs_full
def test_a_disk_that_is_full_when_metrics_are_written_is_explained(pretrained):
    metrics = pretrained / metrics_log.METRICS
    log = metrics_log.MetricsLog(str(pretrained), from_step=4)
    lines = metrics.read_text()
    metrics.unlink()
    metrics.symlink_to(FULL)
    with pytest.raises((OSError, tf.errors.OpError)) as raised:
        log.write(5, {"loss": 1.0})
    run: Any = types.SimpleNamespace(model_dir=str(pretrained))
    message = str(diagnosis.explain_training_error(run, raised.value))
    check_message(message, pretrained)
    assert f"the last complete checkpoint is {pretrained}/ckpt-4" in message
    metrics.unlink()
    metrics.write_text(lines + '{"step": 5, "lo')  # Half of the line had space.
    metrics_log.MetricsLog(str(pretrained), from_step=4).write(5, {"loss": 1.0})
    assert metrics.read_text() == lines + '{"step": 5, "loss": 1.0}\n'


def test_a_disk_that_is_full_while_exporting_leaves_the_export_before(tmp_path):
    module = tf.Module()
    module.weights = tf.Variable(tf.zeros([50_000]))
    parent = tmp_path / "saved_model"
    export.write(module, str(parent), 3, signatures={}, keep=1)
    before = tiny_runs.snapshot(parent)
    with (
        test_checkpoints.limited_file_size(100_000),
        pytest.raises(errors.UserError, match="free some space") as raised,
    ):
        export.write(module, str(parent), 3, signatures={}, keep=1)
    assert str(raised.value).startswith(f"The SavedModel could not be written to {parent}/3 (")
    assert tiny_runs.snapshot(parent) == before
    export.write(module, str(parent), 4, signatures={}, keep=1)
    assert [path.name for path in parent.iterdir()] == ["4"]


def test_a_read_only_run_directory_is_refused_before_anything_is_trained(
    photos, tmp_path, capsys, monkeypatch
):
    def refuse(path: str, *_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    write = tf.io.gfile.GFile

    def read_only(path: str, mode: str = "r") -> Any:
        return write(path, mode) if mode.startswith("r") else refuse(path)

    monkeypatch.setattr(tf.io.gfile, "GFile", read_only)
    monkeypatch.setattr(train, "_train", lambda *_: pytest.fail("it was trained"))
    assert tiny_runs.main("pretrain", tmp_path / "run", photos, **tiny_runs.NO_COLOR) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: --model_dir={tmp_path}/run cannot be written to (")
    assert "Read-only file system" in message
