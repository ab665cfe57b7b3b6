"""What a killed process leaves half written is never used, and is deleted by the next one."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any

import pytest
import tensorflow as tf

from simclr_tf.runs import checkpoints
from simclr_tf.serving import export


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_killed_processes_left_of_checkpoints_is_deleted_by_the_next_save(tmp_path):
    model: Any = tf.Module()
    model.weights = tf.Variable([1.0])
    saved = checkpoints.Checkpoints(str(tmp_path), model, None, keep=2)
    saved.step.assign(3)
    saved.save()
    whole = names(tmp_path)
    for left in (
        "ckpt-2.data-00000-of-00001",  # Its index was renamed last, or deleted first.
        "ckpt-2.index.tempstate123",
        "ckpt-3.data-00000-of-00001.tempstate7",
        "ckpt-4.data-00000-of-00001.tempstate7",
    ):
        (tmp_path / left).write_text("")
    (tmp_path / "ckpt-2_temp").mkdir()
    others = ["ckpt-2.txt", "ckpt-2-notes", "my-ckpt-2.index.tempstate1"]
    for other in others:
        (tmp_path / other).write_text("")
    saved.save()
    assert names(tmp_path) == sorted([*whole, *others])
    assert checkpoints.damage_of(f"{tmp_path}/ckpt-3") is None


class Killed(BaseException):
    """The process ends at this point."""


@pytest.mark.parametrize("function", ["save", "rename", "rmtree"])
@pytest.mark.parametrize("call", [1, 2])
def test_every_export_that_is_found_is_whole_wherever_the_process_is_killed(
    tmp_path, monkeypatch, function, call
):
    """Half of the work of a function is done when it is killed."""
    parent, module = tmp_path / "saved_model", tf.Module()
    module.weights = tf.Variable([1.0])
    export.write(module, str(parent), 3, signatures={}, keep=1)
    owner: Any = tf.saved_model if function == "save" else tf.io.gfile
    original, calls = getattr(owner, function), []

    def killed(path: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(path)
        if len(calls) < call:
            return original(path, *arguments, **options)
        if function == "rmtree":
            (pathlib.Path(path) / "saved_model.pb").unlink(missing_ok=True)
        if function == "save":
            (pathlib.Path(arguments[0]) / "variables").mkdir(parents=True)
        raise Killed

    for step in (3, 4):  # Replaced, and newer than another one.
        calls.clear()
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(owner, function, killed)
            export.write(module, str(parent), step, signatures={}, keep=1)
        for folder in parent.glob("*"):
            if folder.name.isdigit():
                assert tf.saved_model.load(str(folder)).weights.numpy() == [1.0]
    export.write(module, str(parent), 4, signatures={}, keep=1)
    assert names(parent) == ["4"]
