"""The data sets, networks, grids and metrics of a transfer."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.models import simclr
from simclr_tf.runs import dataset, predictions
from simclr_tf.runs import weights as weights_lib
from simclr_tf.transfer import choice, grids, networks, results, targets


def test_the_papers_grids_have_the_values_of_its_appendix():
    trained, untrained = grids.TRAINED["paper"], grids.RANDOM["paper"]
    assert len(trained.cells) == 7 * 8 and len(untrained.cells) == 7 * 8
    tenths = [10 ** (-4 + k / 2) for k in range(7)]
    assert trained.rates == pytest.approx(tenths)
    assert trained.decays[0] == 0
    assert trained.decays[1:] == pytest.approx([10 ** (-6 + k / 2) for k in range(7)])
    assert untrained.rates == pytest.approx([10 ** (-3 + k / 2) for k in range(7)])
    assert untrained.decays == pytest.approx([10 ** (-5 + k / 2) for k in range(8)])
    assert (trained.batch_size, trained.steps) == (256, 20_000)
    assert (untrained.batch_size, untrained.steps) == (256, 40_000)
    assert grids.Cell(1e-4, 1e-3).weight_decay == pytest.approx(10)
    assert len({cell.name for cell in trained.cells}) == 56


def test_the_decay_of_batch_norm_depends_on_the_steps_of_an_epoch():
    assert grids.batch_norm_decay(256 * 200, 256) == pytest.approx(1 - 10 / 200)
    assert grids.batch_norm_decay(256 * 4, 256) == 0.9


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("cifar10", "top-1"),
        ("food101:2.0.0", "top-1"),
        ("oxford_flowers102", "mean per class"),
        ("caltech101:3.*.*", "mean per class"),
        ("oxford_iiit_pet/default", "mean per class"),
        ("/data/fgvc_aircraft/", "mean per class"),
        ("./caltech101/photos", "top-1"),
    ],
)
def test_the_metric_of_a_data_set_is_that_of_the_paper(name, metric):
    assert targets.metric_of(name) == metric


def test_the_mean_per_class_counts_a_rare_class_as_much_as_a_frequent_one():
    labels = np.array([0, 0, 0, 1])
    scores = np.eye(2)[[0, 0, 1, 0]]
    found = predictions.of_scores(0, list("abcd"), labels, scores, ("x", "y"))
    assert results.value(found, targets.TOP_1) == 2 / 4
    assert results.value(found, targets.MEAN_PER_CLASS) == pytest.approx((2 / 3 + 0) / 2)


def test_folders_of_cells_have_short_names_where_these_are_unique():
    assert targets.unique_folders(["cifar10", "/a/b c/", "voc/2007"]) == ["cifar10", "b_c", "2007"]
    assert targets.unique_folders(["/a/x", "/b/x"]) == ["a_x", "b_x"]


def test_a_split_of_its_own_is_chosen_on(photos, tmp_path):
    folder = pathlib.Path(shutil.copytree(photos, tmp_path / "own"))
    for name in tiny_runs.CLASSES:
        (folder / "validation" / name).mkdir(parents=True)
        (folder / "train" / name / "0.png").rename(folder / "validation" / name / "0.png")
    config = config_lib.Config(mode="transfer", transfer_to=str(folder))
    (target,) = targets.open_targets(config, eval_split_given=False)
    assert (target.validation_split, target.data.eval_split) == ("validation", "test")
    assert target.data.source.num_examples(target.all_split) == 36
    chosen = choice.settings(target, str(tmp_path))
    assert (chosen.train_split, chosen.eval_split) == ("train", "validation")
    assert (chosen.dataset, chosen.data_dir) == ("image_folder", str(folder))


def test_records_are_divided_into_a_stratified_fifth_and_the_rest(photos, tmp_path):
    images = sorted(photos.glob("train/*/*.png"))
    with tf.io.TFRecordWriter(str(tmp_path / "train.tfrecord")) as writer:
        for path in images:
            writer.write(_record(path.read_bytes(), tiny_runs.CLASSES.index(path.parent.name)))
    shutil.copy(tmp_path / "train.tfrecord", tmp_path / "test.tfrecord")
    config = config_lib.Config(transfer_to=f"tfrecord:{tmp_path}/*.tfrecord", mode="transfer")
    (target,) = targets.open_targets(config, eval_split_given=False)
    chosen = choice.settings(target, str(tmp_path / "cells"))
    source = dataset.open_source(chosen)
    held, rest = (
        [(example["image"].numpy(), int(example["label"])) for example in source.examples(split)]
        for split in (chosen.eval_split, chosen.train_split)
    )
    assert sorted(image for image, _ in held + rest) == sorted(p.read_bytes() for p in images)
    assert len(held) == 8  # A fifth of 36, rounded up.
    assert set(np.bincount([label for _, label in held])) == {2, 3}


def _record(image: bytes, label: int) -> bytes:
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


# name: (flags, phrases of the message).
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no data set": ({"transfer_to": None}, ["--transfer_to is missing"]),
    "no encoder": ({"checkpoint": None}, ["--checkpoint is missing"]),
    "groups": ({"group": "x"}, ["--group=x has no effect with --mode=transfer"]),
    "no folder": ({"model_dir": None}, ["--model_dir is missing"]),
    "a data set twice": ({"transfer_to": "a,b,a"}, ["--transfer_to=a,b,a names a twice"]),
    "a baseline twice": ({"baselines": "a,./a"}, ["--baselines=a,./a names a twice"]),
    "another mode": ({"mode": "train"}, ["applies only to --mode=transfer"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_cannot_work_are_refused(name):
    changes, phrases = REFUSED[name]
    config = config_lib.Config(
        mode="transfer", transfer_to="a", checkpoint="/run", model_dir="/output"
    )
    with pytest.raises(errors.UserError) as error:
        config_lib.validate(dataclasses.replace(config, **changes))
    assert all(phrase in str(error.value) for phrase in phrases)


def test_data_sets_that_cannot_be_transferred_to_are_refused(tmp_path_factory, tmp_path):
    unlabelled = tiny_runs.unlabelled_photos(tmp_path_factory)
    for name, phrases in {
        f"{unlabelled}": ["has no labels", "one folder of images per class"],
        f"{tmp_path}/none": [f"names {tmp_path}/none", "does not exist"],
        "cifar_ten": ["names cifar_ten", "unknown to tensorflow-datasets", "did you mean"],
    }.items():
        config = config_lib.Config(mode="transfer", transfer_to=name, data_dir=str(tmp_path))
        with pytest.raises(errors.UserError) as error:
            targets.open_targets(config, eval_split_given=False)
        assert all(phrase in str(error.value) for phrase in phrases), error.value


def test_each_network_sees_images_of_its_own_size(pretrained, tmp_path, capsys):
    larger = pathlib.Path(shutil.copytree(pretrained, tmp_path / "larger"))
    stored = tiny_runs.json_of(larger / "architecture.json")
    (larger / "architecture.json").write_text(json.dumps({**stored, "image_size": 12}))
    config = config_lib.Config(
        mode="transfer",
        baselines=str(larger),
        **{name: stored[name] for name in simclr.ARCHITECTURE_SETTINGS if name in stored},
    )
    opened = weights_lib.open_weights(str(pretrained))
    found = networks.open_networks(config, opened)
    assert [one.image_size for one in found] == [8, 8, 12]
    assert [one.name for one in found] == ["encoder", "random initial weights", "larger"]
    assert "larger 12 px" in capsys.readouterr().out
