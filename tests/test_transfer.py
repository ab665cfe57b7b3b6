"""How well encoders transfer to other data sets: --mode=transfer."""

from __future__ import annotations

import csv
import pathlib
import shutil
from typing import Any
import zlib

import numpy as np
from pyarrow import parquet
import pytest
from test_average_precision import by_loop
import tiny_runs
import tiny_scenes

import run
from simclr_tf import config as config_lib
from simclr_tf.commands import transfer as command
from simclr_tf.report import transfer as report
from simclr_tf.runs import dataset, predictions
from simclr_tf.transfer import cells, grids, networks

pytestmark = pytest.mark.exhaustive

# A grid of two cells of one step.
TINY = grids.Grid((0.1,), (0.0, 1e-3), batch_size=8, steps=1)


def transfer(pretrained: pathlib.Path, output: pathlib.Path, to: Any, **flags: Any) -> int:
    """Runs the program and returns its exit code."""
    given = {"checkpoint": pretrained, "transfer_to": to, "model_dir": output, **flags}
    return run.main(
        ["run.py", "--mode=transfer", *(f"--{name}={value}" for name, value in given.items())]
    )


@pytest.fixture
def computed(monkeypatch, no_export):
    """The names of the cells that are computed, of a grid of two cells of one step.

    To save time, only one cell of the encoder and its last run are trained; others guess.
    """
    for kinds in (grids.TRAINED, grids.RANDOM):
        monkeypatch.setitem(kinds, "small", TINY)
    names: list[str] = []
    train, evaluate = command._Work.train, command._Work.evaluate_linearly

    def train_or_guess(work, config, weights):
        names.append("/".join(config.model_dir.split("/")[-2:]))
        if weights is not None and not config.model_dir.endswith("_wd=0"):
            train(work, config, weights)
        else:
            guess(work, config, weights)

    def evaluate_linearly(work, pair):
        names.append(f"{pair.network.folder}/linear")
        evaluate(work, pair)

    monkeypatch.setattr(command._Work, "train", train_or_guess)
    monkeypatch.setattr(command._Work, "evaluate_linearly", evaluate_linearly)
    return names


def guess(work, config, weights):
    """Writes predictions that depend on the pixels of images, and on the settings of the cell."""
    del weights
    source, cell = dataset.open_source(config), f"{config.learning_rate} {config.weight_decay}"
    examples = list(source.examples(config.eval_split))
    names, labels, images = (
        [example[name].numpy() for example in examples] for name in ("name", "label", "image")
    )
    guessed = [zlib.crc32(cell.encode() + image) % 3 for image in images]
    with work._cell(config.model_dir):
        found = predictions.of_scores(
            *(1, [name.decode() for name in names], np.array(labels)),
            *(np.eye(3)[guessed], source.class_names),
        )
        predictions.write(config.model_dir, found)


def test_a_transfer_is_measured_and_resumes_cell_by_cell(
    pretrained, photos, computed, tmp_path, capsys
):
    output, flags = tmp_path / "output", {"transfer_grid": "small"}
    assert transfer(pretrained, output, photos, **flags) == 0
    printed = capsys.readouterr().out
    assert "cells 8/8" in printed and "fine-tuned (95%)" in printed and "[bold]" not in printed
    of_network = ["lr=0.1_wd=0", "lr=0.1_wd=0.001", "best"]
    assert computed == [
        *("encoder/linear", *(f"encoder/{name}" for name in of_network)),
        *("random/linear", *(f"random/{name}" for name in of_network)),
    ]
    result = tiny_runs.json_of(output / "transfer.json")
    assert [(one["network"], one["column"]) for one in result["scores"]] == [
        ("encoder", "linear"),
        ("encoder", "finetune"),
        ("random initial weights", "linear"),
        ("random initial weights", "finetune"),
    ]
    for one in result["scores"]:
        table = parquet.read_table(pathlib.Path(one["folder"]) / "predictions.parquet").to_pydict()
        right = [a == b for a, b in zip(table["label"], table["prediction"])]
        assert len(right) == one["images"] == 18
        assert one["value"] == one["top_1_accuracy"] == pytest.approx(np.mean(right))
    with (output / "transfer.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    assert "<svg" in (output / "transfer.svg").read_text()
    # Again: nothing is computed. Without two of its cells: those are.
    computed.clear()
    assert transfer(pretrained, output, photos, **flags) == 0
    assert computed == []
    for name in ("encoder/best", "random/linear"):
        (output / "cells" / photos.name / name / cells.FILE).unlink()
    assert transfer(pretrained, output, photos, **flags) == 0
    assert computed == ["encoder/best", "random/linear"]
    assert tiny_runs.json_of(output / "transfer.json") == result
    _check_runs(output / "cells" / photos.name, pretrained, photos)
    capsys.readouterr()
    assert transfer(pretrained, output, photos, **flags, linear_eval_examples=20) == 2
    assert "linear_eval_examples is 100000 there and 20 here" in capsys.readouterr().err


def _check_runs(folder, pretrained, photos):
    """Checks that the cells are runs, which their flagfiles repeat."""
    cell, best = (
        config_lib.Config.from_flagfile((folder / "encoder" / name / "flags.txt").read_text())
        for name in ("lr=0.1_wd=0.001", "best")
    )
    assert (cell.train_split, cell.eval_split) == ("train", "validation")
    assert (best.train_split, best.eval_split) == ("train", "test")
    assert cell.labels == str(folder / "choice.csv") and best.labels == "folders"
    for config in (cell, best):
        assert config.checkpoint == f"{pretrained}/ckpt-4" and config.data_dir == str(photos)
        assert (config.train_mode, config.optimizer, config.momentum) == (
            *("finetune", "momentum", 0.9),
        )
        assert (config.resolved_augmentation, config.warmup_epochs) == ("supervised", 0)
        assert (config.train_steps, config.batch_norm_decay) == (1, 0.9)
    assert (cell.learning_rate, cell.weight_decay) == (0.1, pytest.approx(1e-3 / 0.1))
    assert (folder / "encoder/best/checkpoint").exists()
    assert not list((folder / "encoder/lr=0.1_wd=0.001").glob("ckpt*"))
    with (folder / "choice.csv").open() as file:
        rows = list(csv.DictReader(file))
    held = [row["label"] for row in rows if row["split"] == "validation"]
    assert len(rows) == 36 and len(held) == 8 and set(map(held.count, tiny_runs.CLASSES)) == {2, 3}


def test_the_labels_that_are_scored_on_choose_nothing(
    pretrained, photos, computed, tmp_path, monkeypatch
):
    permuted = pathlib.Path(shutil.copytree(photos, tmp_path / "permuted"))
    red, green, blue = (permuted / "test" / name for name in ("red", "green", "blue"))
    for number in range(4):  # Most of three classes change places.
        for one, other in ((red, green), (green, blue)):
            one, other = one / f"{number}.png", other / f"{number}.png"
            content = one.read_bytes()
            one.write_bytes(other.read_bytes())
            other.write_bytes(content)
    monkeypatch.setattr(command._Work, "train", guess)
    chosen, right = [], []
    for folder in (photos, permuted):
        output = tmp_path / f"of {folder.name}"
        assert transfer(pretrained, output, folder, transfer_grid="small") == 0
        found = {
            str(path.parent.relative_to(output / "cells" / folder.name)): tiny_runs.json_of(path)
            for path in output.rglob(cells.FILE)
        }
        for one in found.values():
            one.pop("inputs")
        chosen.append(found)
        right.append(
            [one["value"] for one in tiny_runs.json_of(output / "transfer.json")["scores"]]
        )
    assert chosen[0] == chosen[1]
    assert right[0] != right[1]


class Permuted(tiny_scenes.Scenes, skip_registration=True):  # type: ignore[call-arg]
    """The images of `Scenes`; labels of test images are stored with others."""

    def labels(self, split):
        return np.roll(super().labels(split), 1 if split == "test" else 0, axis=0)


def test_images_with_several_labels_are_scored_by_their_mean_average_precision(
    pretrained, computed, tmp_path, monkeypatch, capsys
):
    name = tiny_scenes.prepare(tiny_scenes.Scenes, tmp_path)
    output, flags = tmp_path / "output", {"data_dir": tmp_path, "max_bad_images": 1}
    assert transfer(pretrained, output, name, **flags) == 0
    assert "scenes (11-point mAP)" in capsys.readouterr().out
    result = tiny_runs.json_of(output / "transfer.json")["scores"]
    assert [one["network"] for one in result] == ["encoder", "random initial weights"]
    for one in result:
        labels, scores = _class_scores(one)
        assert sorted(labels.tolist()) == sorted(tiny_scenes.labels_of("test").tolist())
        by_class = [by_loop(*columns) for columns in zip(scores.T, labels.T)]
        assert list(one["average_precision_11"].values()) == pytest.approx(by_class)
        assert one["value"] == one["mean_average_precision_11"] == pytest.approx(np.mean(by_class))
        assert one["value_95"][0] <= one["value"] <= one["value_95"][1]
        areas = [_area_by_pairs(*columns) for columns in zip(scores.T, labels.T)]
        assert list(one["roc_auc"].values()) == pytest.approx(areas)
        assert one["mean_roc_auc"] == pytest.approx(np.mean(areas))
    assert max(one["value"] for one in result) > 0.8  # The classes are bright channels.
    # Again: nothing is computed.
    computed.clear()
    assert transfer(pretrained, output, name, **flags) == 0
    assert computed == [] and tiny_runs.json_of(output / "transfer.json")["scores"] == result
    # The encoder on other labels of the test images: the same is chosen, and the score is another.
    opened = networks.open_networks
    monkeypatch.setattr(networks, "open_networks", lambda *args: opened(*args)[:1])
    permuted = tiny_scenes.prepare(Permuted, tmp_path)
    assert transfer(pretrained, tmp_path / "other", permuted, data_dir=tmp_path) == 0
    (other,) = tiny_runs.json_of(tmp_path / "other" / "transfer.json")["scores"]
    assert other["chosen"] == result[0]["chosen"] and other["value"] != result[0]["value"]
    np.testing.assert_allclose(_class_scores(other)[1], _class_scores(result[0])[1], atol=1e-4)


def _area_by_pairs(scores, labels):
    """Returns the ROC AUC of a class from its definition."""
    shown, others = scores[labels == 1], scores[labels == 0]
    return np.mean([(one > other) + (one == other) / 2 for one in shown for other in others])


def _class_scores(score):
    """Returns the stored labels and scores of the evaluated images."""
    table = parquet.read_table(f"{score['folder']}/class_scores.parquet")
    return [np.array(table[name].to_pylist()) for name in ("labels", "scores")]


def test_the_table_has_columns_for_all_that_is_measured_of_some_data_sets():
    entries: list[dict[str, Any]] = [
        {"dataset": "a", "accuracy": 0.5},
        {"dataset": "b", "mAP_95": [0.1, 0.2], "p": None},
    ]
    assert report._table(entries) == [
        ["dataset", "accuracy", "mAP_95_low", "mAP_95_high", "p"],
        ["a", "0.5", "", "", ""],
        ["b", "", "0.1", "0.2", ""],
    ]


def test_a_folder_that_has_a_training_run_is_refused(pretrained, photos, capsys):
    assert transfer(pretrained, pretrained, photos) == 2
    assert "contains a training run" in capsys.readouterr().err
