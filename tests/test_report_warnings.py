"""The warnings of a report: what of a run is worth one, and what is not."""

from __future__ import annotations

import dataclasses
import json

import page_reader
import pytest
import written_runs

from simclr_tf.report import findings, run_files, run_page


def page_of(folder):
    return page_reader.Page(run_page.render(run_files.read(str(folder))))


def test_a_healthy_run_has_no_warnings(tmp_path):
    folder = written_runs.write(tmp_path / "run")
    assert findings.of_run(run_files.read(str(folder))) == []
    assert "warning" not in page_of(folder).text


LOW = {"linear_eval/top_1_accuracy": 0.45, "linear_eval/top_1_accuracy_95": [0.42, 0.48]}
LOWER = {"linear_eval/top_1_accuracy": 0.4, "linear_eval/top_1_accuracy_95": [0.37, 0.43]}
LOWEST = {"linear_eval/top_1_accuracy": 0.34, "linear_eval/top_1_accuracy_95": [0.339, 0.341]}
BELOW = {"eval/label_top_1_accuracy": 0.2, "eval/label_top_1_accuracy_95": [0.15, 0.3]}


VIEWS = dataclasses.replace(written_runs.CONFIG, train_batch_size=8, train_steps=40, num_views=4)
SUPERVISED = dataclasses.replace(written_runs.CONFIG, objective="supervised")
# Supervised training records no contrastive metrics.
NO_CONTRAST = {"train/contrast_loss": None, "train/contrast_acc": None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"result": {**written_runs.RESULT, **LOW}},
            "45.0% (42.0–48.0), is not clearly different from the linear evaluation, raw pixels, "
            "41.0% (34.4–47.9): it is higher, but the intervals overlap.",
        ),
        ({"result": {**written_runs.RESULT, **LOWER}}, "it is lower, but the intervals overlap"),
        (
            {"result": {**written_runs.RESULT, **LOWEST}},
            "34.0% (33.9–34.1), is clearly worse than the linear evaluation, raw pixels, 41.0% "
            "(34.4–47.9).",
        ),
        ({"result": {**written_runs.RESULT, **BELOW}}, "less than always giving the most frequent"),
        ({"result": {**written_runs.RESULT, "global_step": 20}}, "is of step 20"),
        ({"metrics": {"train/contrast_loss": 4.84, "train/contrast_acc": 0.02}}, "near that of"),
        # Chance is ln(2 * 64 - 1) = 4.844.
        (
            {"metrics": {"train/contrast_loss": 5.5, "train/contrast_acc": 0.02}},
            "5.500, is above that of equal projections, 4.844, and views are recognised in 2.0%",
        ),
        (
            {"metrics": {"train/contrast_loss": 4.85, "train/contrast_acc": 0.5}},
            "4.850, is above that of equal projections, 4.844, although views are recognised in",
        ),
        # One of 8 views is recognised by chance, however many an image has.
        (
            {
                "settings": VIEWS,
                "metrics": {"train/contrast_loss": 3.44, "train/contrast_acc": 0.14},
            },
            "3.434, and views are recognised in 14.0% of the cases: the network has hardly learned",
        ),
        (
            {"settings": SUPERVISED, "metrics": {**NO_CONTRAST, "train/supervised_loss": 1.2}},
            "The last label loss, 1.200, is above that of equal probabilities, 1.099",
        ),
        ({"metrics": {"train/input_wait": 0.5}}, "waited for images during 50%"),
        ({"metrics": {"train/feature_spread": 0.001}}, "may have collapsed"),
        ({"metrics": {"train/negative_cosine": 0.99999}}, "may have collapsed"),
        (
            {"settings": dataclasses.replace(written_runs.CONFIG, train_epochs=8)},
            "40 of 80 steps are recorded",
        ),
    ],
)
def test_what_is_wrong_is_a_warning(tmp_path, changes, words):
    (found,) = findings.of_run(run_files.read(str(written_runs.write(tmp_path / "r", **changes))))
    assert words in found


AROUND = {"eval/label_top_1_accuracy": 0.3, "eval/label_top_1_accuracy_95": [0.24, 0.37]}


@pytest.mark.parametrize(
    "changes",
    [
        {"result": {**written_runs.RESULT, **AROUND}},  # Chance is a third.
        {"metrics": {"train/contrast_loss": 4.84, "train/contrast_acc": 0.5}},
        {"settings": SUPERVISED, "metrics": {**NO_CONTRAST, "train/supervised_loss": 1.09}},
        {"metrics": {"train/input_wait": 0.15}},
    ],
)
def test_what_may_be_well_is_no_warning(tmp_path, changes):
    assert findings.of_run(run_files.read(str(written_runs.write(tmp_path / "r", **changes)))) == []


def test_a_step_that_was_not_finite_and_excluded_images_are_warnings(tmp_path):
    folder = written_runs.write(tmp_path / "run")
    written_runs.write_json(folder / "bad_step/step.json", {"step": 7, "finding": "conv1 is NaN"})
    splits = {"train": {"images": 9, "left_out": {"a.png": "is empty"}}}
    written_runs.write_json(folder / "bad_images.json", {"data": {}, "splits": splits})
    text = page_of(folder).text
    assert "not finite at step 7: conv1 is NaN." in text
    assert "1 unreadable image was excluded: a.png is empty." in text


def test_changes_of_the_settings_are_listed(tmp_path):
    folder = written_runs.write(tmp_path / "run")
    entry = {"step": 8, "time": "now", "changes": {"train_epochs": {"stored": 2, "given": 4}}}
    (folder / "flags_history.jsonl").write_text(json.dumps(entry) + "\n")
    text = page_of(folder).text
    assert "Settings were changed during training, at step 8" in text
    assert "Changed at step 8, now: train_epochs: 2 → 4" in text


def test_the_best_step_is_named_if_another_one_was_evaluated(tmp_path):
    folder = written_runs.write(tmp_path / "run")
    best = {"metric": "validation/knn/20/top_1_accuracy", "images": "x", "step": 12}
    candidates = [{"step": 12, "value": 0.8125}, {"step": 40, "value": 0.75}]
    written_runs.write_json(folder / "best.json", {**best, "candidates": candidates})
    text = page_of(folder).text
    assert "The best step during training was 12" in text
    assert "12 (validation/knn/20/top_1_accuracy 0.8125)" in text
