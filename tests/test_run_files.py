"""The checks with which the benchmark of kills judges a run directory."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import run_files


def test_a_finished_run_is_whole_and_equal_to_itself(pretrained, tmp_path):
    copy = pathlib.Path(shutil.copytree(pretrained, tmp_path / "copy"))
    (copy / "events.out.tfevents.5").write_text("")  # There is one for every start.
    for name in ("index", "data-00000-of-00001"):  # SIGTERM saves additional checkpoints.
        shutil.copy(copy / f"ckpt-2.{name}", copy / f"ckpt-3.{name}")
    assert run_files.inspect(copy) == (4, 4, [])
    assert run_files.differences(copy, pretrained) == []


def test_a_run_that_was_killed_before_it_wrote_anything_is_whole(tmp_path):
    assert run_files.inspect(tmp_path / "missing") == (0, 0, [])


def cut(path: pathlib.Path) -> None:
    """Keeps the first two fifths of a file, which do not end with one of four equal lines."""
    os.truncate(path, path.stat().st_size * 2 // 5)


@pytest.mark.parametrize(
    "name",
    [
        "ckpt-2.data-00000-of-00001",
        "ckpt-4.index",
        "architecture.json",
        "metrics.jsonl",
        "views.png",
        "saved_model/4/saved_model.pb",
        "saved_model/4/variables/variables.data-00000-of-00001",
    ],
)
def test_a_damaged_file_is_found(pretrained, name):
    cut(pretrained / name)
    _, _, (found,) = run_files.inspect(pretrained)
    assert found.startswith("saved_model/4: " if "saved" in name else name.split(".")[0])


@pytest.mark.parametrize("steps", [[1, 2, 4], [1, 2, 2, 3], [2, 3]])
def test_missing_and_repeated_steps_of_metrics_are_found(pretrained, steps):
    lines = (pretrained / "metrics.jsonl").read_text().splitlines(keepends=True)
    (pretrained / "metrics.jsonl").write_text("".join(lines[step - 1] for step in steps))
    assert run_files.inspect(pretrained)[2] == [f"metrics.jsonl: its steps are {steps}"]


def write_run(folder: pathlib.Path, **changes: float) -> pathlib.Path:
    """Writes the files of a run of one step, with some numbers changed."""
    numbers = {"weight": 1.0, "loss": 2.0, "accuracy": 0.5, "seconds": 3.0, **changes}
    folder.mkdir()
    weights = tf.train.Checkpoint(weight=tf.Variable(numbers["weight"]))
    weights.write(str(folder / "ckpt-1"))
    wait = numbers["seconds"] / 10
    (folder / "metrics.jsonl").write_text(
        json.dumps({"step": 1, "loss": numbers["loss"], "train/input_wait": wait}) + "\n"
    )
    result = {"accuracy": numbers["accuracy"], "eval/seconds": numbers["seconds"]}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("weight", np.nextafter(np.float32(1), np.float32(2)), "ckpt-1: weight/"),
        ("weight", -1.0, "ckpt-1: weight/"),
        ("loss", np.nextafter(2.0, 3.0), "metrics of step 1: loss: "),
        ("accuracy", np.nextafter(0.5, 1.0), "result.json: accuracy: "),
        ("seconds", 4.0, None),
    ],
)
def test_a_difference_in_the_last_bit_is_found_except_of_times(tmp_path, name, value, found):
    expected, other = write_run(tmp_path / "1"), write_run(tmp_path / "2", **{name: float(value)})
    differences = run_files.differences(other, expected)
    assert [one[: len(found or "")] for one in differences] == ([found] if found else [])


def test_a_difference_of_the_settings_is_found(pretrained, tmp_path):
    other = pathlib.Path(shutil.copytree(pretrained, tmp_path / "other"))
    flags = (other / "flags.txt").read_text()
    assert "--train_steps=4\n" in flags
    (other / "flags.txt").write_text(flags.replace("--train_steps=4\n", "--train_steps=5\n"))
    (difference,) = run_files.differences(other, pretrained)
    assert difference.startswith("flags: ")


def test_a_file_that_was_left_over_is_found(tmp_path):
    expected, other = write_run(tmp_path / "1"), write_run(tmp_path / "2")
    (other / "ckpt-1.data-00000-of-00001.tempstate3").write_text("")
    (difference,) = run_files.differences(other, expected)
    assert difference.startswith("files: ")
    assert "tempstate3" in difference
