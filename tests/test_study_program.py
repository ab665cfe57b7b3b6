"""The study command as a whole: lists, plans, trains, ends early, resumes and reports."""

from __future__ import annotations

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
import tiny_studies

import run
from simclr_tf.commands import study_plan
from simclr_tf.runs import dataset, listing
from simclr_tf.studies import attempts, data_checks

pytestmark = pytest.mark.usefixtures("in_folder")
ROOT = pathlib.Path(__file__).parents[1]
# Digits, 8 pixels, one epoch of 32 images, and one cell that starts from another run.
SMALL = """
[flags]
dataset = "digits"
image_size = 8
resnet_depth = 8
proj_out_dim = 8
train_split = "train[:32]"
eval_split = "test[:32]"
train_epochs = 1
train_batch_size = 32
optimizer = "momentum"
learning_rate = 0.1
warmup_epochs = 0.0
evaluations = "none"
use_blur = false
untrained_baselines = false
"""


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def study(*flags, name="tiny.toml"):
    """Runs the command in this process and returns its exit code."""
    return run.main(["run.py", "--mode=study", f"--study={name}", *flags])


def test_the_studies_are_listed(capsys):
    assert study(name="list") == 0
    printed = capsys.readouterr().out
    assert "batch_size" in printed
    assert "Do larger batches help" in printed


def test_a_plan_has_every_command_and_trains_nothing(tmp_path, capsys):
    one = tiny_studies.read(tmp_path)
    assert study("--dry_run", "--study_seeds=3", "--train_split=train[:50%]") == 0
    printed = capsys.readouterr().out
    assert printed.count("--mode=train_then_eval") == 6
    assert "tiny: 6 runs, 0 done, 6 to do with one job." in printed
    identity = tiny_studies.run(one, {"width": "8"}, 2, train_split="train[:50%]").identity
    assert f"--model_dir={tmp_path}/runs/studies/cells/{identity}" in printed
    assert "'--train_split=train[:50%]'" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.toml"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--study=batchsize"], "is not a study (did you mean batch_size?); --study=list prints"),
        (["--study=none.toml"], "none.toml does not exist"),
        ([], "--study is missing; name one of the studies that --study=list prints"),
        (["--study=tiny.toml", "--seed=3"], "--study_seeds sets their number"),
        (["--study=tiny.toml", "--proj_out_dim=3"], "--proj_out_dim is what the study tiny varies"),
        (["--study=tiny.toml", "--model_dir=ram://a"], "is remote; a study needs a folder"),
        (["--study=tiny.toml", "--jobs=999"], "give at most --jobs="),
        (
            ["--study=tiny.toml", "--study_results=tiny.toml/x"],
            "tiny.toml/x cannot be written",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, monkeypatch, capsys, flags, message):
    tiny_studies.write(tmp_path)
    monkeypatch.setattr(attempts, "train", None)  # Nothing is trained before.
    assert run.main(["run.py", "--mode=study", *flags]) == 2
    assert message in capsys.readouterr().err


def test_data_that_cannot_be_opened_is_refused_as_by_a_run_of_its_own(
    tmp_path, monkeypatch, capsys
):
    # Only the second cell lacks its split.
    text = tiny_studies.TEXT.replace("{ proj_out_dim = 16 }", '{ train_split = "trian" }')
    text = text.replace("{ proj_out_dim = 8 }", '{ train_split = "train" }')
    tiny_studies.write(tmp_path, text)
    monkeypatch.setattr(attempts, "train", None)
    assert study() == 2
    of_study = capsys.readouterr().err
    own = ["--dataset=digits", "--train_epochs=3", "--train_split=trian", "--model_dir=own"]
    assert run.main(["run.py", "--mode=train_then_eval", *own]) == 2
    assert of_study == capsys.readouterr().err
    assert "has no split 'trian' (did you mean train?)" in of_study
    assert not list(tmp_path.glob("runs/studies/cells/*"))


def test_a_study_whose_cells_would_have_no_predictions_is_refused(tmp_path, monkeypatch, capsys):
    tiny_studies.write(tmp_path)
    rng = np.random.default_rng(0)
    for index in range(4):
        tiny_runs.write_image(tmp_path / "unlabelled" / f"{index}.png", channel=0, rng=rng)
    monkeypatch.setattr(attempts, "train", None)
    assert study("--nolinear_eval") == 2
    assert "--nolinear_eval leaves no predictions to compare" in capsys.readouterr().err
    assert study("--nolinear_eval", "--objective=supervised", "--dry_run") == 0
    capsys.readouterr()
    assert study("--dataset=image_folder", "--data_dir=unlabelled") == 2
    assert "has no labels, and a study compares accuracies; use" in capsys.readouterr().err


def test_each_data_of_cells_that_are_not_done_is_opened_once(tmp_path, monkeypatch, capsys):
    one = tiny_studies.read(tmp_path)
    root, opened = tmp_path / "runs" / "studies", []
    open_data = dataset.open_data

    def recorded(config, **given):
        opened.append(config.seed)
        return open_data(config, **given)

    monkeypatch.setattr(dataset, "open_data", recorded)
    runs = [tiny_studies.run(one, labels, s) for labels in one.all_labels() for s in one.seeds]
    assert study("--dry_run") == 0
    assert opened == []
    data_checks.check(study_plan.waiting(one, {}, str(root)), str(root))
    assert opened == [0]  # Of four cells.
    for each in runs:
        attempts.train(tiny_studies.python("pass"), each.folder(str(root)))
    assert study_plan.waiting(one, {}, str(root)) == []


def test_a_run_that_fails_is_on_the_page_with_its_command(tmp_path, monkeypatch, capsys):
    one = tiny_studies.read(tmp_path)
    fails = [sys.executable, "-c", "print('error: no.'); exit(2)"]
    monkeypatch.setattr("simclr_tf.studies.schedule.command", lambda *_: fails)
    assert study("--study_results=docs") == 2
    printed = capsys.readouterr()
    assert "4 runs failed or ended early (tiny: 8, seed 0; " in printed.err
    assert printed.out.count("failed: error: no. Its output is in ") == 4
    page = (tmp_path / "docs" / "tiny.md").read_text()
    identity = tiny_studies.run(one, {"width": "16"}, 1).identity
    assert "tiny: 16, seed 1:\n\n```text\nerror: no.\n```" in page
    assert f"--model_dir=runs/studies/cells/{identity}" in page
    assert json.loads((tmp_path / "docs" / "tiny.json").read_text())["cells"] == []


def test_without_jobs_the_results_of_what_is_done_are_written(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("a", "b"):
        one = tiny_studies.read(folder, name=name)
    monkeypatch.setattr("flags.flagfiles.STUDIES", folder)
    monkeypatch.setattr(attempts, "train", None)
    assert study("--jobs=0", name="all") == 0
    assert "a: no cell is done." in capsys.readouterr().out
    index = (tmp_path / "runs" / "studies" / "README.md").read_text()
    assert "Of 2 studies, 2 not run." in index
    assert "| Width of the head | 16 above 8 |  |  |  |  | not run |" in index
    assert not list(tmp_path.glob("runs/studies/*/*.md"))
    done = tiny_studies.outcomes_of(one, {"8": 0.5, "16": 0.6})
    monkeypatch.setattr(
        "simclr_tf.commands.study._run", lambda one, *_: tiny_studies.results_of(one, done)
    )
    assert study("--jobs=0", name="all") == 0
    assert "[Width of the head](a/a.md)" in (tmp_path / "runs/studies/README.md").read_text()


def test_results_of_more_cells_are_kept_and_listed(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "some"
    folder.mkdir()
    one = tiny_studies.read(folder)
    monkeypatch.setattr("flags.flagfiles.STUDIES", folder)
    cells = tiny_studies.outcomes_of(one, {"8": 0.5, "16": 0.6})
    (tmp_path / "runs" / "studies" / "tiny").mkdir(parents=True)
    texts = []
    for done in (cells, [], cells[:2]):
        monkeypatch.setattr(
            "simclr_tf.commands.study._run",
            lambda one, *_, done=done: tiny_studies.results_of(one, done),
        )
        assert study("--jobs=0", "--study_results=docs", name="all") == 0
        files = ("README.md", "tiny.md", "tiny.json", "tiny.svg")
        texts.append([(tmp_path / "docs" / name).read_text() for name in files])
    assert texts[0] == texts[1] == texts[2]
    assert "| **shown** |" in texts[0][0] and "[Width of the head](tiny.md)" in texts[0][0]
    printed = capsys.readouterr().out
    assert "docs/tiny.json has the results of 4 cells, of which 0 are done in" in printed
    assert "of which 2 are done in" in printed and "delete it" in printed


def test_results_of_all_studies_are_linked_from_one_page(tmp_path, monkeypatch):
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("a", "b"):
        tiny_studies.write(folder, name=name)
    monkeypatch.setattr("flags.flagfiles.STUDIES", folder)
    monkeypatch.setattr("simclr_tf.studies.schedule.command", lambda *_: ["false"])
    assert study("--study_seeds=1", name="all") == 2
    root = tmp_path / "runs" / "studies"
    for link in ("a/a.md", "b/b.md"):
        assert f"[Width of the head]({link})" in (root / "README.md").read_text()
        assert (root / link).exists()
    assert study("--study_seeds=1", "--study_results=docs", name="all") == 2
    assert "[Width of the head](b.md)" in (tmp_path / "docs" / "README.md").read_text()


def stages(name: str) -> str:
    """Returns a study of two cells, each of which fine-tunes the same pretrained network."""
    text = tiny_studies.TEXT.replace('title = "Width', f'title = "{name}').replace("[0, 1]", "[0]")
    begin, end = text.index("[flags]"), text.index("[axes")
    tuned = 'train_mode = "finetune"\nobjective = "supervised"\n'
    text = f"{text[:begin]}{SMALL.replace('[flags]', '[first_stage]')}{SMALL}{tuned}{text[end:]}"
    text = text.replace("{ proj_out_dim = 8 }", "{ learning_rate = 0.2 }")
    return text.replace("{ proj_out_dim = 16 }", "{ learning_rate = 0.4 }")


def modified(folder: pathlib.Path) -> dict[str, int]:
    """Returns when the files of a run were changed, without the list of its names in studies."""
    files = (path for path in folder.iterdir() if path.is_file())
    return {
        path.name: path.stat().st_mtime_ns for path in files if path.name != listing.CELL_TITLES
    }


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_study_that_is_ended_resumes_without_repeating_a_cell(
    python, tmp_path, monkeypatch, capsys
):
    one = tiny_studies.read(tmp_path, stages("One"))
    root = tmp_path / "root"
    first, second = (tiny_studies.run(one, {"width": label}) for label in ("8", "16"))
    folders = [pathlib.Path(each.folder(str(root))) for each in (first.parent, first, second)]
    command = [python, str(ROOT / "run.py"), "--mode=study", "--study=tiny.toml"]
    process = subprocess.Popen(
        [*command, f"--model_dir={root}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={key: one for key, one in os.environ.items() if key != "PYTHONPATH"},
    )
    while process.poll() is None and not (folders[2] / "output.log").exists():
        time.sleep(0.2)
    time.sleep(2)  # The second cell has begun.
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 143, printed
    assert "Run the same command again to resume" in printed
    assert not list(root.glob("tiny/*.md"))

    # As a user does, from another folder than the program's.
    monkeypatch.setattr(sys, "executable", python)  # Runs the cells.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    before = [modified(folder) for folder in folders[:2]]
    assert json.loads((folders[2] / "cell.json").read_text())["status"] == "interrupted"
    assert study("--model_dir=root", "--study_results=docs") == 0
    assert [modified(folder) for folder in folders[:2]] == before
    results = json.loads((tmp_path / "docs" / "tiny.json").read_text())
    assert [cell["seed"] for cell in results["cells"]] == [0, 0]
    assert json.loads((folders[2] / "cell.json").read_text())["attempts"] == 2
    for cell, folder in zip(results["cells"], folders[1:], strict=True):
        stored = json.loads((folder / "result.json").read_text())
        assert cell["accuracy"] == pytest.approx(stored["eval/label_top_1_accuracy"])
        assert cell["images"] == 32 * stored["global_step"]
    assert "3 runs, whose times add up to" in (tmp_path / "docs" / "tiny.md").read_text()

    # Another study with the same cells trains nothing.
    after = [modified(folder) for folder in folders]
    tiny_studies.write(tmp_path, stages("Other"), name="other")
    capsys.readouterr()
    assert study("--model_dir=root", "--dry_run", name="other.toml") == 0
    assert "other: 3 runs, 3 done, 0 to do" in capsys.readouterr().out
    assert study("--model_dir=root", name="other.toml") == 0
    assert [modified(folder) for folder in folders] == after
    assert (root / "other" / "other.md").read_text().startswith("# Other of the head")
