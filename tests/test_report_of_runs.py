"""The page of several runs side by side."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import page_reader
import pytest
import tensorflow as tf
import tiny_runs
import written_runs

import run
from simclr_tf import config, errors
from simclr_tf.commands import compare, report
from simclr_tf.report import run_files, side_by_side
from simclr_tf.runs import predictions

OTHER = dataclasses.replace(
    written_runs.CONFIG, temperature=0.5, seed=3, objective="nt_xent", use_blur=False
)
LESS = {
    **written_runs.RESULT,
    "linear_eval/top_1_accuracy": 0.75,
    "linear_eval/top_1_accuracy_95": [0.6855, 0.8049],
    "knn/20/top_1_accuracy": 0.5,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs of other settings and results; copy them before changing them."""
    root = tmp_path_factory.mktemp("runs")
    first = written_runs.write(root / "a" / "run")
    return [first, written_runs.write(root / "b" / "run", settings=OTHER, result=LESS)]


def page_of(folders, comparison=None, why_not="of no reason."):
    runs = [run_files.read(str(folder)) for folder in folders]
    return page_reader.Page(side_by_side.render(runs, comparison, why_not, None))


@pytest.fixture(scope="module")
def page(folders):
    return page_of(folders)


def test_the_page_is_whole_and_reads_no_other_file(page):
    assert page.problems == []
    assert not page.attributes["script"] and not page.attributes["link"]


def test_exactly_the_settings_that_differ_are_listed(page):
    assert page.settings == {
        "seed": ["0", "3"],
        "use_blur": ["true", "false"],
        "temperature": ["0.2", "0.5"],
    }


def test_numbers_are_beside_each_other_with_their_intervals(page):
    # The table of accuracies has them too.
    assert page.values["linear_eval/top_1_accuracy"][:2] == ["0.8350000000000001", "0.75"]
    assert page.values["knn/20/top_1_accuracy"] == ["0.5"]
    assert "75.0% (68.5–80.5)" in page.text


def test_runs_have_short_names_that_differ(page):
    assert "a/run, b/run" in page.text
    assert side_by_side.names_of(["/x/a", "/x/b"]) == ["a", "b"]
    assert side_by_side.names_of(["/a", "/a"]) == ["a (1)", "a (2)"]
    assert side_by_side.names_of(["/x/draw-0", "/y/draw-0"]) == ["x/draw-0", "y/draw-0"]


def test_the_paired_test_is_shown_with_its_direction(folders):
    comparison = {
        "images": 200,
        "runs": [
            {"accuracy": 0.835, "accuracy_95": [0.7773, 0.8801]},
            {"accuracy": 0.75, "accuracy_95": [0.6855, 0.8049]},
        ],
        "against_first": [
            {
                "difference": -0.085,
                "difference_95": [-0.15, -0.02],
                "p_adjusted": 0.0123,
                "only_first": 30,
                "only_this": 13,
            }
        ],
    }
    text = page_of(folders, comparison).text
    assert "-8.5 (-15.0 to -2.0)" in text and "13 : 30" in text and "0.012" in text
    assert "McNemar's exact test" in text


def test_a_run_without_any_evaluation_or_settings_can_be_beside_another(folders, tmp_path):
    shutil.copy(folders[0] / "metrics.jsonl", tmp_path)
    found = page_of([folders[0], tmp_path], why_not="it has <b>no</b> predictions.")
    assert found.problems == []
    assert "There is no paired test: it has <b>no</b> predictions." in found.text
    assert "The settings of fewer than two runs are known." in found.text


def test_the_program_writes_the_page_and_compares_predictions(
    folders, pretrained, photos, tmp_path, capsys
):
    names = sorted(f"test/{path.parent.name}/{path.name}" for path in photos.glob("test/*/*.png"))
    labels = np.array([tiny_runs.CLASSES.index(name.split("/")[1]) for name in names])
    other = shutil.copytree(pretrained, tmp_path / "other")
    for folder, wrong in ((pretrained, 1), (other, 3)):
        scores = np.eye(3)[(labels + (np.arange(18) < wrong)) % 3]
        found = predictions.of_scores(4, names, labels, scores, tiny_runs.CLASSES)
        predictions.write(str(folder), found)
    flags = ["run.py", "--mode=report", f"--runs={pretrained},{other}"]
    assert run.main([*flags, f"--model_dir={tmp_path / 'page'}"]) == 0
    path = tmp_path / "page" / "report.html"
    assert f"Report: {path}" in capsys.readouterr().out
    found = page_reader.Page(path.read_text(encoding="utf-8"))
    # Two more images are wrong in the second run: -2 of 18.
    assert found.problems == [] and "-11.1 (" in found.text and "0 : 2" in found.text
    assert found.attributes["img"][0]["alt"].startswith("Disagreements")


def test_the_picture_has_the_names_of_the_page(folders, tmp_path, monkeypatch):
    names = np.array(["a.png", "b.png"])
    labels, right, wrong = np.array([0, 1]), np.eye(2), np.eye(2)[::-1]
    for folder, scores in zip(folders, (right, wrong)):
        found = predictions.of_scores(40, names, labels, scores, ("x", "y"))
        predictions.write(str(folder), found)
    captions = []
    monkeypatch.setattr(
        compare, "_images", lambda _, names: dict.fromkeys(names, np.zeros((4, 4, 3)))
    )
    monkeypatch.setattr(
        compare.contact_sheet, "draw", lambda rows: captions.extend(c for c, _ in rows)
    )
    settings = config.Config(
        mode="report", runs=",".join(map(str, folders)), model_dir=str(tmp_path)
    )
    monkeypatch.setattr(tf.io, "encode_png", lambda _: tf.constant(written_runs.png()))
    report.write_side_by_side(settings)
    assert captions == ["only a/run is right"]
    page = page_reader.Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "a/run, b/run" in page.text
    for folder in folders:
        predictions.remove(str(folder))


def test_what_is_not_a_run_is_refused_with_what_to_give(folders, tmp_path, capsys):
    root = folders[0].parents[1]
    (tmp_path / "empty").mkdir()
    for given, words in (
        (folders[0] / "flags.txt", f"is a file; give its run directory, {folders[0]}."),
        (tmp_path / "empty", "has no run (flags.txt, "),
        (
            root,
            f"is a folder of runs and not a run directory; give some of its runs, such as "
            f"{folders[0]}, {folders[1]} (--mode=runs --under={root} lists them all).",
        ),
    ):
        assert run.main(["run.py", "--mode=report", f"--runs={given}"]) == 2
        assert f"error: {given} {words}" in capsys.readouterr().err
    (tmp_path / "a.txt").touch()
    with pytest.raises(errors.UserError, match="is a file; give a run directory"):
        run_files.check_is_run(str(tmp_path / "a.txt"))


def test_the_report_of_a_run_is_not_replaced(folders, capsys):
    flags = ["run.py", "--mode=report", f"--runs={folders[0]},{folders[1]}"]
    assert run.main([*flags, f"--model_dir={folders[0]}"]) == 2
    assert "is a run directory, whose report.html is that of the run" in capsys.readouterr().err
    assert not (folders[0] / "report.html").exists()


def test_a_missing_or_a_single_run_is_refused(folders, tmp_path, capsys):
    for runs in (f"{folders[0]}", f"{folders[0]},{tmp_path}/none"):
        flags = ["run.py", "--mode=report", f"--runs={runs}", f"--model_dir={tmp_path}/page"]
        assert run.main(flags) == 2
    printed = capsys.readouterr().err
    assert "must name at least two run directories" in printed
    assert f"The run directory {tmp_path}/none does not exist" in printed
