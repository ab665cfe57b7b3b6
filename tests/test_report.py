"""report.html of a run: what it shows, and what it says of what is missing or damaged."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import shutil

import numpy as np
import page_reader
import pytest
import tiny_runs
import written_runs

from flags import command_line
import run
from simclr_tf import config, errors, pixel_format
from simclr_tf.commands import evaluate
from simclr_tf.commands import report as command
from simclr_tf.report import (
    curves,
    findings,
    metric_columns,
    result_numbers,
    run_files,
    run_page,
    settings,
)
from simclr_tf.runs import directory


def page_of(folder):
    return page_reader.Page(run_page.render(run_files.read(str(folder))))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A finished and evaluated run; copy it before changing it."""
    return written_runs.write(tmp_path_factory.mktemp("report") / "written")


@pytest.fixture(scope="module")
def page(written):
    return page_of(written)


def test_the_page_is_whole_and_reads_no_other_file(page):
    assert page.problems == []
    assert not page.attributes["script"] and not page.attributes["link"]
    assert len(page.attributes["img"]) == 3 and len(page.attributes["svg"]) > 5


def test_every_number_of_the_result_is_in_the_page_as_it_is(page):
    result = written_runs.RESULT
    numbers = {
        key: value
        for key, value in result.items()
        if isinstance(value, int | float) and key != "global_step"
    }
    assert {key: float(page.values[key][0]) for key in page.values} == numbers


def test_every_evaluation_has_a_title_in_the_page():
    assert set(config.EVALUATIONS) <= result_numbers.GROUPS.keys()


def test_accuracies_have_their_intervals_and_the_best_known_one_comes_first(page):
    text = " ".join(page.text.split())
    assert "83.5% 77.7–88.0% (95% interval)linear evaluation of the encoder" in text
    assert "70.0% (63.3–75.9)" in text and "step 40 is on 200 images of split test" in text


def test_channels_and_scale_of_other_images_are_in_the_page(written, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(written, folder)
    pixels = pixel_format.of_dtype(2, "uint16").with_names(("nir", "swir"))
    pixels = pixels.scaled((1.0, 2.0), (900.5, 800.0), "percentile")
    architecture = directory.read_architecture(str(folder))
    directory.write_architecture(str(folder), dataclasses.replace(architecture, pixels=pixels))
    text = " ".join(page_of(folder).text.split())
    assert "2 channels of uint16" in text
    assert "to [0, 1] by percentile: nir from 1 to 900.5, swir from 2 to 800" in text
    assert "channel nir as grey" in text


def test_the_page_says_what_a_run_started_from(page, written, tmp_path):
    assert "from runs/other; stem adapted" in " ".join(page.text.split())
    folder = tmp_path / "run"
    shutil.copytree(written, folder)
    (folder / "start.json").unlink()  # Older versions did not write it.
    assert "initial weights" not in page_of(folder).text


def test_names_that_are_code_are_shown_as_text(tmp_path):
    name = '<script>alert("1")</script>'
    result = {**written_runs.RESULT, f"shifts/{name}/accuracy": 0.5, "eval/skipped": name}
    found = page_of(
        written_runs.write(
            tmp_path / '"><img src=x onerror=alert(1)>', classes=(name, "b" * 400), result=result
        )
    )
    assert found.problems == [] and not found.attributes["script"]
    assert found.text.count(name) >= 3  # Classes, the table of classes, the reason.
    assert '"><img src=x onerror=alert(1)>' in found.text


@pytest.mark.parametrize("kept", ["flags.txt", "metrics.jsonl", "result.json", "architecture.json"])
def test_a_run_with_one_file_has_a_page_that_names_the_others(written, tmp_path, kept):
    (tmp_path / kept).write_bytes((written / kept).read_bytes())
    found = page_of(tmp_path)
    assert found.problems == []
    missing = found.text[found.text.index("Missing or damaged:") :]
    others = {"flags.txt", "metrics.jsonl", "result.json", "architecture.json", "views.png"}
    if kept == "flags.txt":  # They are of a run that is only trained.
        others.remove("result.json")
    for name in (others | {"environment.json", "data.json"}) - {kept}:
        assert f"({name})" in missing
    assert f"({kept})" not in missing


NUMBERS = {key: value for key, value in written_runs.RESULT.items() if key != "calibration/nll"}


@pytest.mark.parametrize(
    ("changes", "result", "listed"),
    [
        ({"mode": "train"}, None, []),
        ({"mode": "train_then_eval", "evaluations": "none"}, NUMBERS, []),
        ({"mode": "train_then_eval", "evaluations": "none"}, None, ["result.json"]),
        ({"mode": "train_then_eval"}, None, ["result.json", "evaluation/"]),
        # It was trained only, and evaluated later.
        ({"mode": "train"}, written_runs.RESULT, ["evaluation/"]),
    ],
)
def test_only_what_a_run_was_to_have_is_missing(tmp_path, changes, result, listed):
    folder = written_runs.write(
        tmp_path / "run",
        settings=dataclasses.replace(written_runs.CONFIG, **changes),
        result=result,
        evaluated=False,
    )
    found = run_page.missing(run_files.read(str(folder)))
    assert re.findall(r"\((.*?)\)", "; ".join(found)) == listed


def test_a_run_without_labels_has_the_number_that_needs_none_first(tmp_path):
    result = {
        "global_step": 40,
        "eval/skipped": "the images have no labels",
        "label_free/view_retrieval": 0.615,
        "label_free/view_retrieval_95": [0.58, 0.65],
        "label_free/lidar": 33.0,
    }
    folder = written_runs.write(tmp_path / "run", result=result, classes=None, evaluated=False)
    found = page_of(folder)
    text = " ".join(found.text.split())
    assert found.problems == [] and "No accuracy was measured: the images have no labels." in text
    what = "the other view of an image is the nearest one (no labels)"
    assert f"61.5% 58.0–65.0% (95% interval){what}" in text
    assert "classesnone" in text


JSON_FILES = (
    *("flags.txt", "metrics.jsonl", "flags_history.jsonl", "result.json", "data.json"),
    *("environment.json", "architecture.json", "best.json", "bad_step/step.json"),
    "bad_images.json",
)
DAMAGED = (b"\xff\xfe{", b"[1, 2]", b'{"step": [], "splits": 3')


@pytest.mark.parametrize("name", JSON_FILES)
def test_a_damaged_file_is_a_warning(written, tmp_path, name):
    copy_files(written, tmp_path)
    for content in DAMAGED:
        (tmp_path / name).write_bytes(content + b"\n")
        (found,) = findings.of_run(run_files.read(str(tmp_path)))
        assert name in found


@pytest.mark.parametrize("content", DAMAGED)
def test_a_run_whose_files_are_all_damaged_has_a_page(written, tmp_path, content):
    copy_files(written, tmp_path)
    for name in JSON_FILES:
        (tmp_path / name).write_bytes(content + b"\n")
    found = page_of(tmp_path)
    assert found.problems == [] and all(name in found.text for name in JSON_FILES)


def copy_files(written, folder):
    """Copies the files of a run without those of its evaluation."""
    for path in written.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "bad_step").mkdir()


def test_damaged_pictures_are_named_in_place_of_them(tmp_path):
    folder = written_runs.write(tmp_path / "run")
    for path in (folder / "views.png", *(folder / "evaluation" / "40").glob("*.[ps][nv]g")):
        path.write_bytes(path.read_bytes()[:40])
    assert page_of(folder).text.count("It cannot be shown: the file is damaged") == 3


def test_numbers_of_the_wrong_type_are_left_out(tmp_path):
    result = {"global_step": 40, "a/b": "x", "a/c": True, "a/d": 10**400, "a/e": None, "a/f": 2}
    folder = written_runs.write(tmp_path / "run", result={**result, "a/f_95": [1, "x"]})
    assert page_of(folder).values == {"a/f": ["2.0"]}


def test_the_level_of_chance_is_that_of_the_papers_loss(written):
    by_title = {drawn.panel.title: drawn for drawn in curves.of_run(run_files.read(str(written)))}
    assert by_title["Contrastive loss"].level == pytest.approx(math.log(2 * 64 - 1))
    assert by_title["Label loss"].level == pytest.approx(math.log(3))
    assert by_title["Label accuracy"].level == pytest.approx(1 / 3)
    assert by_title["Learning rate"].level is None


def test_a_long_curve_is_thinned_to_means_of_its_records():
    values = np.random.default_rng(0).normal(size=100_001)
    values[7] = math.inf
    column = metric_columns.Column(np.arange(1, 100_002), values)
    thin = metric_columns.thinned(column)
    assert (len(thin.steps), thin.per_point) == (300, 334)
    assert thin.values[0] == pytest.approx(np.delete(values[:334], 7).mean())
    assert thin.values[-1] == pytest.approx(values[299 * 334 :].mean())
    assert thin.steps[0] == 334 and thin.steps[-1] == 100_001


def test_metrics_of_a_run_that_is_still_training_are_read():
    content = b'{"step": 2, "a": 1.5}\n{"step": 1, "a": NaN, "b": "x"}\n[]\n{"step": 3, "a": 2'
    found = metric_columns.parse(content)
    assert (found.last_step, found.damaged, found.last("a")) == (2, 1, 1.5)
    assert found.columns["a"].steps.tolist() == [1, 2] and found.columns.keys() == {"a"}


FINE_TUNED = config.Config(
    mode="train_then_eval",
    train_mode="finetune",
    dataset="cifar10",
    data_dir="/my data/it's",
    warmup_epochs=2,
    use_blur=False,
    optimizer="momentum",
    learning_rate=0.05,
    train_epochs=60,
    weight_decay=0.0,
)


@pytest.mark.parametrize("wanted", [written_runs.CONFIG, FINE_TUNED])
def test_the_command_with_all_flags_gives_the_same_settings(wanted):
    full = settings.commands("/runs/a", wanted)[1].replace("\\\n", " ")
    python, program, *flags = shlex.split(full)
    assert (python, program) == ("python", "run.py")
    found = command_line.parse(["run.py", *flags]).config
    assert dataclasses.replace(found, model_dir=None) == wanted


def test_only_settings_that_differ_from_the_defaults_are_listed():
    wanted = {
        *("--dataset=cifar10", "--data_dir=/data", "--train_batch_size=64", "--train_epochs=4"),
        *("--warmup_epochs=0", "--temperature=0.2"),
    }
    assert {one.flag for one in settings.changed(written_runs.CONFIG)} == wanted
    # Fine-tuning has defaults of its own: of these, only the warm-up differs.
    names = {re.split("[=]", one.flag)[0] for one in settings.changed(FINE_TUNED)}
    assert {"--warmup_epochs", "--nouse_blur"} <= names
    assert not names & {"--optimizer", "--learning_rate", "--train_epochs", "--weight_decay"}


def test_the_program_writes_the_page_again(tmp_path, capsys):
    folder = written_runs.write(tmp_path / "run")
    assert run.main(["run.py", "--mode=report", f"--model_dir={folder}"]) == 0
    assert f"Report: {folder}/report.html" in capsys.readouterr().out
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "83.5%" in html and len(html) < 300_000


def test_what_is_not_a_run_is_refused(tmp_path, capsys):
    (tmp_path / "draw-0").mkdir()
    for flags in ([], [f"--model_dir={tmp_path}"], [f"--model_dir={tmp_path}/none"]):
        assert run.main(["run.py", "--mode=report", *flags]) == 2
    printed = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[-1] for line in printed] == ["several.", "directory.", "--runs."]
    (tmp_path / "result.json").write_text('{"draws": [0]}')
    with pytest.raises(errors.UserError, match=f"--runs={tmp_path}/draw-0 compares"):
        run_files.read(str(tmp_path))


def test_training_and_evaluation_write_the_page(
    pretrained, photos, no_export, with_reports, monkeypatch
):
    path = pretrained / "report.html"
    assert tiny_runs.main("train", pretrained, photos, **tiny_runs.NO_COLOR) == 0
    assert "Pretraining of ResNet-8" in path.read_text()
    path.unlink()
    monkeypatch.setattr(evaluate, "evaluate", lambda run, *_, **__: {})
    assert run.main(["run.py", "--mode=eval", f"--model_dir={pretrained}"]) == 0
    assert path.exists()


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path, with_reports, capsys):
    folder = written_runs.write(tmp_path / "run")
    (folder / "report.html").mkdir()
    command.write_after_run(str(folder))
    printed = capsys.readouterr().out
    assert printed.startswith("warning: The report could not be written")
    assert f"--mode=report --model_dir={folder} tries again" in printed
