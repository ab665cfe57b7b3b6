"""The program on images that may have several labels: training, evaluation, report and export."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
from pyarrow import parquet
import pytest
import tensorflow as tf
import tiny_runs
import tiny_several

import run
from simclr_tf import errors
from simclr_tf.embeddings import reading
from simclr_tf.report import run_files, run_page
from simclr_tf.runs import checkpoints, class_scores, initialization, predictions, weights
from simclr_tf.serving import bundle, servable


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny_several.folder(tmp_path_factory)


@pytest.fixture(scope="module")
def pretrained(root, tmp_path_factory, no_export_in_file):
    """A run that was pretrained for four steps and evaluated."""
    model_dir = tmp_path_factory.mktemp("runs") / "pretrained"
    evaluations = {"evaluations": "knn,calibration,geometry"}
    assert tiny_several.main("train_then_eval", model_dir, root, **evaluations) == 0
    return model_dir


@pytest.fixture(scope="module")
def tuned(root, pretrained, tmp_path_factory, no_export_in_file):
    """The same, fine-tuned and evaluated during training."""
    model_dir = tmp_path_factory.mktemp("runs") / "tuned"
    settings = {"checkpoint": pretrained, "train_mode": "finetune", "eval_epochs": 1}
    settings |= {"train_steps": 12, "untrained_baselines": False}
    assert tiny_several.main("train_then_eval", model_dir, root, **settings) == 0
    return model_dir


def test_the_run_says_that_an_image_may_have_several_labels(pretrained, tuned):
    for model_dir in (pretrained, tuned):
        architecture = json.loads((model_dir / "architecture.json").read_text())
        assert architecture["several_labels"] is True
        assert tuple(architecture["class_names"]) == tiny_several.CLASSES


def test_linear_head_and_classifier_learn_from_every_label(pretrained, tuned):
    for model_dir in (pretrained, tuned):
        last = tiny_runs.lines_of(model_dir / "metrics.jsonl")
        losses = [one["train/supervised_loss"] for one in last if "train/supervised_loss" in one]
        assert losses[-1] < losses[0] and 0 < losses[-1] < 3 * np.log(2) * 2
        assert any("train/supervised_jaccard" in one for one in last)
    numbers = [one for one in last if "validation/label_mean_average_precision" in one]
    assert numbers and "validation/knn/20/mean_average_precision" in numbers[-1]
    best = json.loads((tuned / "best.json").read_text())
    assert best["metric"] == "validation/label_mean_average_precision"


def test_the_result_has_a_number_for_each_class_and_says_what_is_left_out(pretrained):
    result = json.loads((pretrained / "result.json").read_text())
    for prefix in ("linear_eval/", "eval/label_", "baseline/raw_pixels/"):
        for name in ("mean_average_precision", "mean_roc_auc"):
            low, high = result[f"{prefix}{name}_95"]
            assert 0 <= low <= result[f"{prefix}{name}"] <= high <= 1
    assert result["linear_eval/mean_average_precision"] > 0.7
    assert result["knn/20/mean_average_precision"] > 0.7
    assert set(result["eval/left_out"]) == {
        *("top_1_accuracy", "top_5_accuracy", "calibration", "cosines of classes")
    }
    assert not [name for name in result if "top_1" in name]
    table = pretrained / "evaluation" / "4" / "class_ranking.csv"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["class"] for row in rows] == list(tiny_several.CLASSES)
    shown = tiny_several.labels_of("test").sum(0)
    assert [int(row["examples"]) for row in rows] == shown.tolist()
    mean = np.mean([float(row["average_precision"]) for row in rows])
    assert mean == pytest.approx(result["linear_eval/mean_average_precision"], abs=1e-4)


def test_the_scores_of_every_image_are_stored_and_one_prediction_is_not(pretrained):
    found = class_scores.read(str(pretrained))
    by_name = dict(zip(found.names, found.labels.tolist(), strict=True))
    for index, labels in enumerate(tiny_several.labels_of("test")):
        assert by_name[f"test/{index}.png"] == labels.tolist()
    assert found.class_names == tiny_several.CLASSES
    with pytest.raises(errors.UserError, match=r"may have several labels.*class_ranking\.csv"):
        predictions.read(str(pretrained))


def test_the_report_shows_average_precision_and_what_is_left_out(pretrained, tuned):
    page = run_page.render(run_files.read(str(pretrained)))
    assert "mean average precision (95%)" in page and "mean ROC AUC" in page
    assert "Not measured, because images may have several labels" in page
    assert "Overlap of labels" in page
    context = run_page.context(run_files.read(str(tuned)))
    assert context["headline"].top_1.key == "eval/label_mean_average_precision"
    assert context["chance"] is None


def test_probabilities_are_sigmoids_and_the_description_says_so(pretrained, tmp_path):
    found = weights.open_weights(str(pretrained))
    model, _ = initialization.build(found)
    names = ("logits", "probabilities", "top_classes")
    served = servable.Servable(model, names)
    images = tf.constant(np.random.default_rng(0).random((4, 8, 8, 3)), tf.float32)
    values = served.of_prepared(images)
    np.testing.assert_allclose(values["probabilities"], tf.sigmoid(values["logits"]))
    np.testing.assert_array_equal(
        values["top_classes"], np.argsort(-values["logits"].numpy(), 1, kind="stable")
    )
    bundle.write(
        *(str(tmp_path), served, model.architecture, str(pretrained), 4), weights_license=None
    )
    described = json.loads((tmp_path / bundle.DESCRIPTION).read_text())
    assert described["several_labels"] is True
    assert "sigmoid" in described["outputs"]["probabilities"]
    assert "mean_average_precision" in " ".join(described["metrics"])
    card = (tmp_path / bundle.CARD).read_text()
    assert "of which an image may show several or none" in card
    assert "| what | mean average precision | 95% interval | mean ROC AUC |" in card


def test_what_is_left_out_is_said_without_a_linear_evaluation_too(root, pretrained, tmp_path):
    model_dir = shutil.copytree(pretrained, tmp_path / "copy")
    assert tiny_several.main("eval", model_dir, root, linear_eval=False) == 0
    result = json.loads((model_dir / "result.json").read_text())
    assert set(result["eval/left_out"]) == {"top_1_accuracy", "top_5_accuracy"}
    assert "eval/label_mean_average_precision" in result


def test_embeddings_have_the_labels_of_each_image_as_lists(root, pretrained, tmp_path):
    labels = tmp_path / "columns.csv"
    rows = ["test/0.png,test,1,0,1", "test/1.png,test,0,0,", "test/2.png,test,,1,"]
    labels.write_text("\n".join(["file,split,dog,cat,owl", *rows]) + "\n")
    flags = {"mode": "embed", "checkpoint": pretrained, "embeddings": tmp_path / "embeddings"}
    flags |= {"dataset": "image_folder", "data_dir": root, "labels": labels}
    assert run.main(["run.py", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    (file,) = (tmp_path / "embeddings").glob("*.parquet")
    table = parquet.read_table(file).to_pydict()
    by_name = dict(zip(table["name"], zip(table["labels"], table["labels_not_known"])))
    assert by_name == {
        "test/0.png": (["dog", "owl"], []),
        "test/1.png": ([], ["owl"]),
        "test/2.png": (["cat"], ["dog", "owl"]),
    }
    assert table["label"] == [None] * 3
    assert reading.open_folder(str(tmp_path / "embeddings")).labels.tolist() == [None] * 3


@pytest.fixture(scope="module")
def contrasted(root, tmp_path_factory, no_export_in_file):
    """A run of SupCon with the head beside it, on one replica."""
    model_dir = tmp_path_factory.mktemp("runs") / "contrasted"
    assert tiny_several.main("pretrain", model_dir, root, objective="supcon") == 0
    return model_dir


def test_supcon_pulls_images_together_that_share_classes(contrasted):
    first = tiny_runs.lines_of(contrasted / "metrics.jsonl")[0]
    assert 1 < first["train/contrast_loss"] < 20 and first["train/views_without_positive"] == 0


@pytest.mark.exhaustive
def test_two_replicas_learn_from_several_labels_as_one_does(
    root, contrasted, tmp_path, no_export_in_file
):
    settings = {"objective": "supcon", "num_virtual_cpus": 2}
    assert tiny_several.main("pretrain", tmp_path / "two", root, **settings) == 0
    of_one, of_two = (
        tiny_runs.lines_of(model_dir / "metrics.jsonl")
        for model_dir in (contrasted, tmp_path / "two")
    )
    for name in ("total_loss", "contrast_loss", "supervised_loss", "supervised_jaccard"):
        one, two = ([line[f"train/{name}"] for line in lines] for lines in (of_one, of_two))
        assert len(one) == 4
        np.testing.assert_allclose(two, one, rtol=1e-3, err_msg=name)


@pytest.mark.exhaustive
def test_a_resumed_run_of_several_labels_ends_as_one_that_was_not_interrupted(
    root, contrasted, tmp_path, monkeypatch, no_export_in_file
):
    save = checkpoints.Checkpoints.save

    def interrupted(self):
        if int(self.step) == 4:
            raise KeyboardInterrupt
        return save(self)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", interrupted)
        assert tiny_several.main("pretrain", tmp_path / "run", root, objective="supcon") == 130
    assert not (tmp_path / "run" / "ckpt-4.index").exists()
    assert tiny_several.main("pretrain", tmp_path / "run", root, objective="supcon") == 0
    of_both = [tiny_runs.weights(model_dir, 4) for model_dir in (contrasted, tmp_path / "run")]
    assert tiny_runs.equal(*of_both)


def test_a_head_for_one_label_is_not_taken_for_several(root, pretrained, tmp_path):
    one = tmp_path / "one"
    rows = (root / "labels.csv").read_text().splitlines()
    kept = [row.split(",") for row in rows[1:] if "|" not in row and ",," not in row]
    file = tmp_path / "one.csv"
    lines = ["file,label,split", *(",".join(row) for row in kept)]
    file.write_text("\n".join(lines) + "\n")
    assert tiny_several.main("pretrain", one, root, labels=file) == 0
    found = weights.open_weights(str(one))
    model, _ = initialization.build(weights.open_weights(str(pretrained)))
    report = initialization.start_from(found, model, zero_init_logits_layer=False)
    assert any("is for one, and the data has several labels per image" in line for line in report)
