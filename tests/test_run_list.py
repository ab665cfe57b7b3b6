"""The list of the runs below a folder."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

import pytest
import tensorflow as tf

import run
from simclr_tf import config, errors
from simclr_tf.runs import (
    bad_step,
    best,
    directory,
    holder,
    listing,
    lock,
    metrics_log,
    resuming,
    unreadable,
)
from simclr_tf.serving import export

# 50 images in batches of 10, for 4 epochs: 50 * 4 // 10 + 1 steps.
SETTINGS = {"dataset": "digits", "train_batch_size": 10, "train_epochs": 4, "resnet_depth": 18}
STEPS = 21


def write_run(
    folder: pathlib.Path,
    *,
    step: int | None = STEPS,
    accuracy: float | None = None,
    result: dict[str, Any] | None = None,
    **settings: Any,
) -> pathlib.Path:
    """Writes the files that describe a run, without weights."""
    folder.mkdir(parents=True)
    stored = config.Config(**{**SETTINGS, "model_dir": str(folder), **settings})
    (folder / "flags.txt").write_text(stored.to_flagfile())
    (folder / "data.json").write_text('{"images": 50}')
    if step is not None:
        (folder / f"ckpt-{step}.index").write_bytes(b"")
    if accuracy is not None:
        result = {"global_step": step, "linear_eval/top_1_accuracy": accuracy}
        result["linear_eval/top_1_accuracy_95"] = [accuracy - 0.1, accuracy + 0.1]
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def write_lock(folder: pathlib.Path, **changes: Any) -> None:
    own = dataclasses.replace(holder.this_process(), **changes)
    (folder / lock.LOCK).write_text(own.to_json())


def the_run(folder: pathlib.Path) -> listing.Run:
    (found,) = listing.find(str(folder))
    return found


def names(under: Any) -> list[str]:
    return [found.name for found in listing.find(str(under))]


def listed(capsys: pytest.CaptureFixture[str], under: Any, *flags: str) -> str:
    """Returns what the program prints."""
    capsys.readouterr()
    assert run.main(["run.py", "--mode=runs", f"--under={under}", *flags]) == 0
    return capsys.readouterr().out


def order(printed: str) -> list[str]:
    """Returns the names of the runs in the order of the table."""
    return re.findall(r"│ (?:\* )?(\w+) +│ \w", printed)


def refusal(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    capsys.readouterr()
    assert run.main(["run.py", "--mode=runs", *flags]) == 2
    return capsys.readouterr().err


def exported(capsys: pytest.CaptureFixture[str], under: pathlib.Path) -> dict[str, dict[str, str]]:
    """Returns the rows of the CSV file by the name of the run."""
    path = under / "list.csv"
    listed(capsys, under, f"--export_runs={path}")
    with path.open(newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_the_names_of_files_are_those_that_training_writes():
    assert (listing.FLAGS, listing.BAD_STEP) == (directory.FLAGS, directory.BAD_STEP)
    assert listing.ARCHITECTURE == directory._ARCHITECTURE
    assert (listing.LOCK, listing.BEST) == (lock.LOCK, best.FILE)
    assert (listing.METRICS, listing.DATA) == (metrics_log.METRICS, resuming.DATA)
    assert (listing.UNREADABLE_IMAGES, listing.SAVED_MODEL) == (unreadable.LIST, export.FOLDER)
    assert listing.BAD_STEP_FACTS == bad_step.FACTS


def test_a_run_of_the_program_is_read(pretrained, capsys):
    result = {"global_step": 4, "linear_eval/top_1_accuracy": 0.5}
    (pretrained / "result.json").write_text(json.dumps(result))
    found = the_run(pretrained.parent)
    assert (found.name, found.state, found.problems) == ("pretrained", "finished", ())
    assert (found.step, found.total_steps, found.images) == (4, 4, 36)
    assert found.epochs(4) == pytest.approx(4 * 8 / 36)
    assert found.config is not None and found.config.dataset == "image_folder"
    assert found.accuracy is not None and (found.accuracy.value, found.accuracy.low) == (0.5, None)
    newest = max(path.stat().st_mtime for path in pretrained.iterdir() if path.is_file())
    assert found.changed == newest
    assert "finished" in listed(capsys, pretrained.parent)


def test_tensorflow_is_not_imported(tmp_path):
    write_run(tmp_path / "a", accuracy=0.5)
    program = (
        "import sys; sys.modules['tensorflow'] = None; import run; sys.exit(run.main(sys.argv))"
    )
    flags = ["--mode=runs", f"--under={tmp_path}", f"--export_runs={tmp_path}/list.csv"]
    process = subprocess.run(
        [sys.executable, "-c", program, *flags], capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert "50.0%" in process.stdout


def test_runs_are_found_at_any_depth_and_also_inside_of_others(tmp_path):
    for name in ("b", "a/deep/er", "a/deep/er/tuned"):
        write_run(tmp_path / name)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "result.json").write_text("{}")
    assert names(tmp_path) == ["a/deep/er", "a/deep/er/tuned", "b"]
    assert names(tmp_path / "b") == ["."]


def test_the_settings_of_a_bad_step_and_the_saved_model_are_not_runs(tmp_path):
    folder = write_run(tmp_path / "a")
    for inside in ("bad_step", "saved_model/4"):
        (folder / inside).mkdir(parents=True)
        (folder / inside / "flags.txt").write_text("--dataset=digits\n")
    assert names(tmp_path) == ["a"]


def test_links_are_followed_and_each_folder_is_listed_once(tmp_path):
    under = tmp_path / "under"
    write_run(under / "z" / "a")
    write_run(tmp_path / "elsewhere")
    (under / "link").symlink_to(tmp_path / "elsewhere")
    (under / "zz").symlink_to(under / "z" / "a")
    (under / "z" / "a" / "circle").symlink_to(under)
    (under / "nothing").symlink_to(tmp_path / "missing")
    assert names(under) == ["link", "z/a"]


def test_a_remote_folder_is_searched(tmp_path):
    folder = write_run(tmp_path / "x" / "a", step=3)
    (folder / "metrics.jsonl").write_text('{"step": 2}\n{"step": 7}\n')
    for path, when in zip(sorted(folder.iterdir()), (1e9, 1.1e9, 1e9, 1e9), strict=True):
        os.utime(path, (when, when))
    # TensorFlow reads the scheme, as it does that of a bucket.
    under = f"file://{tmp_path}"
    (found,) = listing.find(under)
    assert (found.name, found.step, found.state) == ("x/a", 7, "stopped")
    assert found.changed == 1.1e9


def test_a_list_is_written_to_a_remote_file(tmp_path, capsys):
    write_run(tmp_path / "a")
    path = f"ram://list-{time.time_ns()}.csv"
    listed(capsys, tmp_path, f"--export_runs={path}")
    with tf.io.gfile.GFile(path) as file:
        assert file.read().startswith("run,cell,state,step,")


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, STEPS),
        ({"train_steps": 33}, 33),
        ({"eval_epochs": 1}, 45 * 4 // 10 + 1),  # A tenth of the images validates.
        ({"eval_epochs": 1, "validation_examples": 20}, 30 * 4 // 10 + 1),
        ({"max_bad_images": 9}, 41 * 4 // 10 + 1),
    ],
)
def test_a_run_is_finished_once_a_checkpoint_has_all_its_steps(tmp_path, settings, steps):
    for step in (steps, steps - 1):
        folder = write_run(tmp_path / str(step), step=step, **settings)
        left_out = {f"{number}.png": "truncated" for number in range(9)}
        (folder / "bad_images.json").write_text(
            json.dumps({"splits": {"train": {"left_out": left_out}}})
        )
    unfinished, finished = listing.find(str(tmp_path))
    assert (unfinished.state, unfinished.total_steps) == ("stopped", steps)
    assert (finished.state, finished.total_steps) == ("finished", steps)


def test_a_run_that_does_not_say_how_many_images_it_has_is_finished_if_it_was_exported(tmp_path):
    folder = write_run(tmp_path / "a", step=21)
    (folder / "data.json").unlink()
    (folder / "saved_model" / "20").mkdir(parents=True)
    assert (the_run(tmp_path).state, the_run(tmp_path).total_steps) == ("stopped", None)
    (folder / "saved_model" / "21").mkdir()
    assert (the_run(tmp_path).state, the_run(tmp_path).total_steps) == ("finished", 21)


def test_converted_weights_are_finished(tmp_path):
    write_run(tmp_path / "a", step=0, mode="convert")
    assert the_run(tmp_path).state == "finished"


ELSEWHERE = {"host": "another host", "beats": 3}


@pytest.mark.parametrize(
    ("lock_changes", "age", "state"),
    [
        ({}, 1000, "training"),  # This process: it runs, whenever it renewed the lock.
        ({"pid": 2**22 + 1}, 1, "stopped"),
        ({"since_boot": 1.0}, 1, "stopped"),  # Another process had this number.
        (ELSEWHERE, 1, "training"),
        (ELSEWHERE, 1000, "stopped"),
        ({**ELSEWHERE, "beats": None}, 1000, "training"),  # Earlier versions do not renew it.
    ],
)
def test_a_run_is_training_if_the_holder_of_its_lock_runs(tmp_path, lock_changes, age, state):
    folder = write_run(tmp_path / "a", step=5)
    write_lock(folder, **lock_changes)
    then = time.time() - age
    os.utime(folder / lock.LOCK, (then, then))
    assert the_run(tmp_path).state == state


def test_a_run_that_trains_is_at_the_last_complete_line_of_its_metrics(tmp_path):
    folder = write_run(tmp_path / "a", step=5)
    write_lock(folder)
    (folder / "metrics.jsonl").write_text('{"step": 5}\n{"step": 9}\n{"step": 1')
    assert (the_run(tmp_path).state, the_run(tmp_path).step) == ("training", 9)


def test_a_run_that_has_just_begun_is_training(tmp_path):
    (tmp_path / "a").mkdir()
    write_lock(tmp_path / "a")
    assert (the_run(tmp_path).state, the_run(tmp_path).problems) == ("training", ())


@pytest.mark.parametrize(("bad", "state"), [(6, "failed"), (5, "stopped"), (None, "failed")])
def test_a_run_failed_if_its_bad_step_is_after_its_last_checkpoint(tmp_path, bad, state):
    folder = write_run(tmp_path / "a", step=5)
    (folder / "bad_step").mkdir()
    if bad is not None:
        (folder / "bad_step" / "step.json").write_text(json.dumps({"step": bad}))
    assert the_run(tmp_path).state == state


def test_the_accuracy_of_a_classifier_is_its_own_and_that_of_an_encoder_is_linear(tmp_path):
    result = {
        "global_step": 21,
        "linear_eval/top_1_accuracy": 0.25,
        "eval/label_top_1_accuracy": 0.75,
        "eval/label_top_1_accuracy_95": [0.5, 0.875],
    }
    write_run(tmp_path / "classifier", result=result, objective="supervised")
    write_run(tmp_path / "encoder", result=result)
    classifier, encoder = (found.accuracy for found in listing.find(str(tmp_path)))
    assert (classifier.value, classifier.low, classifier.high) == (0.75, 0.5, 0.875)
    assert encoder.value == 0.25


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("flags.txt", "--colour=red\n", "flags.txt has the line '--colour=red'"),
        ("flags.txt", b"\xff", "flags.txt is damaged"),
        ("flags.txt", None, "it has no flags.txt, so its settings are unknown"),
        ("result.json", "{", "result.json is damaged"),
        ("result.json", '{"linear_eval/top_1_accuracy": 1}', "result.json is damaged"),
        ("data.json", "[]", "data.json is damaged"),
        ("best.json", "{}", "best.json is damaged"),
        ("cell_titles.json", "3", "cell_titles.json is damaged"),
        ("metrics.jsonl", "7\n", "metrics.jsonl is damaged"),
        ("training.lock", "{}", "training.lock is damaged"),
    ],
)
def test_what_cannot_be_read_is_listed_with_the_reason(tmp_path, capsys, file, content, reason):
    path = write_run(tmp_path / "a") / file
    write_run(tmp_path / "b")
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    printed = listed(
        capsys, tmp_path, "--filter=state=stopped" if file == "flags.txt" else "--sort=name"
    )
    assert re.search(
        rf"│ a +│ {'unreadable' if file == 'flags.txt' else 'finished|stopped'}", printed
    )
    assert f"warning: a: {reason}" in printed


def test_a_folder_that_cannot_be_listed_is_listed_with_the_reason(tmp_path, monkeypatch):
    write_run(tmp_path / "a")
    entries = listing.light_files.entries

    def refuse(folder: str) -> list[listing.light_files.Entry]:
        if folder.endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return entries(folder)

    monkeypatch.setattr(listing.light_files, "entries", refuse)
    found = the_run(tmp_path)
    assert (found.name, found.state) == ("a", "unreadable")
    assert found.problems == ("the folder cannot be listed (Permission denied)",)


@pytest.fixture
def three(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder of three runs: "a" has the lowest accuracy and "b" the highest."""
    write_run(tmp_path / "a", accuracy=0.3, objective="supcon", temperature=0.5)
    write_run(tmp_path / "b", accuracy=0.6123456789, resnet_depth=50)
    write_run(tmp_path / "c", accuracy=0.4, step=20)
    for number, name in enumerate("bca"):
        for path in (tmp_path / name).iterdir():
            os.utime(path, (time.time() - 7300 + number, time.time() - 7300 + number))
    return tmp_path


@pytest.mark.parametrize(
    ("key", "expected"), [("name", "abc"), ("accuracy", "bca"), ("age", "acb")]
)
def test_runs_are_sorted(three, capsys, key, expected):
    assert order(listed(capsys, three, f"--sort={key}")) == list(expected)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("objective=supcon", "a"),
        ("objective=nt_xent", "bc"),  # What auto means.
        ("objective=auto", "bc"),
        ("state=finished", "ab"),
        (" state = finished , resnet_depth=18 ", "a"),
        ("temperature=0.50", "a"),
        ("use_blur=true,checkpoint=", "abc"),
        ("accuracy>0.4", "b"),
        ("accuracy >= 40%", "bc"),
        ("accuracy<=0.4,accuracy>0.3", "c"),
        ("accuracy<0.4,state=finished", "a"),
    ],
)
def test_a_filter_keeps_the_runs_that_have_all_of_its_values(three, capsys, wanted, expected):
    assert order(listed(capsys, three, f"--filter={wanted}")) == list(expected)


def test_a_filter_takes_relative_paths(three, capsys, monkeypatch):
    monkeypatch.chdir(three)
    assert order(listed(capsys, three, "--filter=model_dir=b")) == ["b"]


@pytest.mark.parametrize(
    ("wanted", "phrases"),
    [
        ("objectiv=supcon", ["has the key 'objectiv' (did you mean objective", "nor state or acc"]),
        ("under=x", ["has the key 'under'"]),  # Not stored with a run.
        ("supcon", ["has 'supcon', which is not KEY=VALUE"]),
        ("state=stoped", ["state=stoped (did you mean stopped", "one of training, finished"]),
        ("seed=1,seed=2", ["the key 'seed' twice"]),
        ("seed=one", ["has seed=one, which --seed cannot be"]),
        ("accuracy=0.5", ["has 'accuracy=0.5'; give a bound, as in accuracy>0.5"]),
        ("acuracy=0.5", ["the key 'acuracy' (did you mean accuracy"]),
        ("accuracy>50", ["has 'accuracy>50'; a bound is between 0 and 1"]),
        ("accuracy>half", ["has 'accuracy>half'; a bound is between 0 and 1"]),
        ("seed=7", ["holds for none of the 3 runs", "leave it out"]),
    ],
)
def test_a_filter_that_cannot_hold_is_refused(three, capsys, wanted, phrases):
    message = refusal(capsys, f"--under={three}", f"--filter={wanted}")
    assert message.startswith(f"error: --filter={wanted} ") and message.count("\n") == 1
    assert all(phrase in message for phrase in phrases), message


def test_an_order_that_does_not_exist_is_refused_with_a_similar_one(capsys):
    message = refusal(capsys, "--under=x", "--sort=acuracy")
    assert "--sort must be one of name, accuracy, age, got 'acuracy' (did you mean acc" in message


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    message = refusal(capsys, f"--under={tmp_path}")
    assert f"--under={tmp_path} contains no run directory; name a folder" in message
    message = refusal(capsys, f"--under={tmp_path}/missing")
    assert "missing cannot be listed (No such file or directory); name a folder of runs" in message
    assert "set --under to one with runs" in refusal(capsys)


def test_a_list_that_cannot_be_written_is_refused(three, capsys):
    message = refusal(capsys, f"--under={three}", f"--export_runs={three}/missing/list.csv")
    assert "list.csv could not be written (No such file or directory); name a file" in message


def test_the_best_run_is_marked_among_those_that_were_evaluated_on_its_images(three, capsys):
    write_run(three / "d", accuracy=0.9, dataset="cifar10")  # Alone with its images.
    printed = listed(capsys, three)
    assert re.findall(r"\* (\w)", printed.split("* has")[0]) == ["b"]
    assert "* has the highest accuracy" in printed
    assert "* has" not in listed(capsys, three, "--filter=dataset=cifar10")


def test_the_table_names_the_step_of_an_accuracy_that_is_not_the_last_one(three, capsys):
    (three / "a" / "metrics.jsonl").write_text('{"step": 22}\n')
    printed = listed(capsys, three)
    assert printed.count("step 21") == 1 and "22/21" in printed


def test_the_table_fits_a_terminal_of_80_columns(three, capsys, monkeypatch):
    name = "a_study_of_temperatures/" + "supcon_on_photos_of_flowers_" * 3
    folder = write_run(three / name, step=20_000, accuracy=0.5, dataset="oxford_flowers102")
    best_json = {"step": 18, "metric": "validation/knn_accuracy", "value": 0.7}
    (folder / "best.json").write_text(json.dumps(best_json))
    monkeypatch.setenv("COLUMNS", "80")
    lines = listed(capsys, three).split("* has")[0].splitlines()[1:]
    assert {len(line) for line in lines} <= {80, 79, 78}
    first_column = "".join(line[2:].split("│")[0].strip() for line in lines if "│" in line)
    assert name in first_column  # All of it, over several lines.
    printed = "\n".join(lines)
    for cell in (
        "20000/21",
        "epoch 4000/4.2",
        "nt_xent, resnet18",
        "50.0%",
        "40.0-60.0",
        "best: 18",
        "2 h",
    ):
        assert cell in printed, printed


def test_the_cell_of_a_study_is_named_below_the_name_of_its_run(tmp_path, capsys):
    (write_run(tmp_path / "a1b2") / "cell_titles.json").write_text(
        '["heads: none, 8, seed 0", "x"]'
    )
    write_run(tmp_path / "other")
    printed = listed(capsys, tmp_path)
    assert re.search(r"│ a1b2 .*\n│ heads: none, 8, seed 0 and 1 more +│", printed)
    rows = exported(capsys, tmp_path)
    assert (rows["a1b2"]["cell"], rows["other"]["cell"]) == ("heads: none, 8, seed 0; x", "")


def test_brackets_in_the_name_of_a_run_are_printed(tmp_path, capsys):
    write_run(tmp_path / "[bold]lr")
    assert "[bold]lr" in listed(capsys, tmp_path)


def test_the_csv_file_has_numbers_that_are_not_rounded_and_the_settings_that_differ(three, capsys):
    (three / "b" / "best.json").write_text('{"step": 18, "metric": "m", "value": 0.123456789}')
    (three / "broken").mkdir()
    (three / "broken" / "architecture.json").write_text("{}")
    rows = exported(capsys, three)
    assert list(rows) == ["a", "b", "broken", "c"]
    b, a = rows["b"], rows["a"]
    assert (float(b["accuracy"]), float(b["accuracy_low"])) == (0.6123456789, 0.6123456789 - 0.1)
    assert (b["is_best"], a["is_best"]) == ("True", "False")
    assert (b["best_step"], b["best_metric"], b["best_value"]) == ("18", "m", "0.123456789")
    assert (b["step"], b["total_steps"], b["total_epochs"]) == ("21", "21", "4.2")
    assert (b["state"], b["objective"], b["network"]) == ("finished", "nt_xent", "resnet50")
    assert (a["temperature"], b["temperature"]) == ("0.5", str(config.Config.temperature))
    assert (a["resnet_depth"], b["resnet_depth"]) == ("18", "50")
    assert not {"seed", "model_dir"} & a.keys()  # The same in all; in the first column.
    assert (rows["broken"]["state"], rows["broken"]["temperature"]) == ("unreadable", "")
    assert "it has no flags.txt" in rows["broken"]["problems"]


def test_a_file_that_is_deleted_while_it_is_read_is_not_a_problem(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "a", accuracy=0.5)
    read_text = listing.light_files.read_text

    def read(path: str) -> str:
        if path.endswith("result.json"):
            (folder / "result.json").unlink()
        return read_text(path)

    monkeypatch.setattr(listing.light_files, "read_text", read)
    found = the_run(tmp_path)
    assert (found.accuracy, found.problems) == (None, ())


def test_errors_of_remote_files_are_those_of_the_system():
    with pytest.raises(FileNotFoundError):
        listing.light_files.read_text("ram://no/such/file")
    with pytest.raises(errors.UserError, match="ram://no_runs cannot be listed"):
        listing.find("ram://no_runs")
