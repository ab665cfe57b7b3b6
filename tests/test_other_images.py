"""Evaluations on other images than those of the two splits, and the images that they read."""

import dataclasses
import pathlib
import shutil
import types
from typing import Any

import numpy as np
import pytest
import replicas as testing_replicas
import tensorflow as tf
import tiny_runs

import run as program
from simclr_tf import config as config_lib
from simclr_tf import errors, storage
from simclr_tf.config import other_images as other_image_settings
from simclr_tf.data import corruption_names, corruptions, sources
from simclr_tf.evaluation import features, forward, in_memory, robustness
from simclr_tf.models import simclr
from simclr_tf.runs import dataset
from simclr_tf.scoring import corrupted, network, other_images
from simclr_tf.scoring import robustness as robustness_scoring


@pytest.fixture(scope="module")
def source(photos):
    return sources.open_source("image_folder", data_dir=str(photos), seed=0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return tiny_runs.photos(tmp_path_factory)


@pytest.fixture(scope="module")
def pixels(source):
    """The images of the training split as a network of 8 px sees them."""
    blocks = other_images.read(source, "train", 8, wanted=None, limit=100)
    return np.concatenate([images for images, _ in blocks])


@pytest.fixture(scope="module")
def model():
    return simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=0)


@pytest.fixture(scope="module")
def expected(model, source):
    """What is extracted from the training split itself."""
    return features.extract(forward.Forward(model), source, "train", batch_size=36)


@pytest.mark.parametrize(("replicas", "batch_size"), [(1, 5), (2, 7)])
def test_images_in_memory_give_the_features_of_the_split_they_are_from(
    expected, pixels, replicas, batch_size
):
    strategy = testing_replicas.strategy(replicas)
    with strategy.scope():
        model = simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=0)
    in_batches = in_memory.Network(model, batch_size=batch_size, strategy=strategy)
    found = in_batches(pixels)
    # The images were rounded to 8 bits.
    scale = np.abs(expected.features).max()
    np.testing.assert_allclose(found.features, expected.features, atol=0.01 * scale)
    assert found.logits.shape == expected.logits.shape
    np.testing.assert_allclose(in_batches(pixels[:3]).features, found.features[:3], atol=1e-5)


def test_images_are_read_by_their_positions_or_from_the_first_on(source, expected):
    def read(wanted, limit):
        blocks = list(other_images.read(source, "train", 20, wanted=wanted, limit=limit))
        return tuple(np.concatenate(parts) for parts in zip(*blocks))

    images, labels = read(None, 100)
    np.testing.assert_array_equal(labels, expected.labels)
    assert images.shape == (36, 20, 20, 3) and images.dtype == np.uint8
    for wanted, limit, rows in ((np.array([2, 9, 35]), 3, [2, 9, 35]), (None, 5, range(5))):
        some, some_labels = read(wanted, limit)
        np.testing.assert_array_equal(some, images[list(rows)])
        np.testing.assert_array_equal(some_labels, labels[list(rows)])


def test_an_image_of_the_right_size_is_read_without_a_change(tmp_path):
    expected = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    for name, image in zip("ab", expected):
        path = tmp_path / "train" / name / "1.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(tf.io.encode_png(image).numpy())
    source = sources.open_source("image_folder", data_dir=str(tmp_path), seed=0)
    ((images, labels),) = other_images.read(source, "train", 16, wanted=None, limit=9)
    np.testing.assert_array_equal(images, expected[labels])


def _config(**changes):
    return config_lib.Config(**{"dataset": "image_folder", **changes})


def _opened(name, labels="folders"):
    (found,) = other_images.open_sets(_config(), "shift_datasets", [str(name)], labels=labels)
    return found


def test_a_folder_is_read_by_its_test_split_or_as_a_whole(photos, tmp_path):
    assert _opened(photos).split == "test"
    for path in photos.glob("train/*/*.png"):
        copied = tmp_path / "photos" / path.parent.name / path.name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copied)
    whole = _opened(tmp_path / "photos")
    assert whole.source.num_examples(whole.split) == 36
    assert whole.short == "photos"


def test_data_sets_of_one_name_have_different_short_names(photos, tmp_path):
    other = shutil.copytree(photos, tmp_path / "photos")
    names = [str(photos), str(other)]
    found = other_images.open_sets(_config(), "shift_datasets", names, labels="folders")
    assert len({one.short for one in found}) == 2 and "/" not in found[0].short


def test_classes_are_matched_by_name(photos):
    names = ("red", "yellow", "blue", "green")  # In another order, with one that is not there.
    numbers = other_images.class_numbers("shift_datasets", _opened(photos), names)
    assert [names[number] for number in numbers] == ["blue", "green", "red"]


def test_unknown_classes_and_missing_labels_are_sentences(photos):
    with pytest.raises(errors.UserError, match=r"1 of its 3 classes \(green\) are not among"):
        other_images.class_numbers("shift_datasets", _opened(photos), ("blue", "red"))
    with pytest.raises(errors.UserError, match="has no labels; name data sets with labels"):
        other_images.class_numbers("shift_datasets", _opened(photos, labels="none"), ("blue",))
    with pytest.raises(errors.UserError, match=r"--shift_datasets names \./nowhere, which"):
        _opened("./nowhere")
    with pytest.raises(errors.UserError, match="--shift_datasets names cifar10_2, which is unkn"):
        _opened("cifar10_2")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluations": "shifts"}, "asks for shifts, but no images are named; .*shift_datasets"),
        ({"evaluations": "knn,ood"}, "asks for ood, but no images are named; .*--ood_datasets"),
        ({"evaluations": "robustness", "image_size": 8}, "at least 32 px, and --image_size=8"),
        ({"evaluations": "robustness"}, "imagecorruptions-imaug, the extra .* run pip install"),
        (
            {"evaluations": "shifts", "shift_datasets": "a,/b/c,/b/c/"},
            "--shift_datasets names /b/c more than once; name it once",
        ),
        (
            {"evaluations": "ood", "ood_datasets": "/b/c/", "data_dir": "/b/c"},
            "--ood_datasets names /b/c/, which is the data set of the run",
        ),
        ({"corruptions": "fog,frots"}, "frots.*did you mean frost"),
        ({"corruption_severities": "1,6"}, "not a list of numbers from 1 to 5"),
    ],
)
def test_what_an_evaluation_lacks_is_said_before_any_work(settings, message, monkeypatch):
    monkeypatch.setattr(corruption_names, "is_installed", lambda: False)
    if settings.keys() & {"corruptions", "corruption_severities"}:
        settings = {"evaluations": "robustness", "corrupted_dataset": "x", **settings}
    settings = {"image_size": 32, **settings}
    with pytest.raises(errors.UserError, match=message):
        config_lib.validate(_config(**settings))


def test_settings_of_evaluations_that_are_not_run_are_reported():
    config = _config(evaluations="knn,ood", ood_datasets="x", shift_datasets="y")
    config_lib.validate(config)
    (sentence,) = other_image_settings.without_effect(config)
    assert "--shift_datasets=y has no effect without --evaluations=shifts" in sentence


def test_all_evaluations_leave_out_what_lacks_something(monkeypatch):
    monkeypatch.setattr(corruption_names, "is_installed", lambda: False)
    config = _config(evaluations="all", image_size=32, ood_datasets="svhn_cropped")
    config_lib.validate(config)
    left_out = [
        name
        for name in ("robustness", "shifts", "ood")
        if other_image_settings.why_left_out(config, name)
    ]
    assert left_out == ["robustness", "shifts"]


def test_a_data_set_that_cannot_be_opened_is_refused_before_the_network_is_trained(
    photos, tmp_path, capsys
):
    missing = tmp_path / "missing"
    flags = {"evaluations": "ood", "ood_datasets": missing, "linear_eval": True}
    assert tiny_runs.main("train_then_eval", tmp_path / "run", photos, **flags) == 2
    assert f"--ood_datasets names {missing}, which does not exist" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def _run(source, **changes):
    data = dataset.Data(source, "train", "test")
    settings = {"corruptions": "brightness,elastic_transform", **changes}
    return types.SimpleNamespace(config=_config(**settings), data=data, strategy=None)


def test_prepared_images_are_read_by_the_names_of_their_configurations(source, model, monkeypatch):
    opened = []

    def open_set(config, flag, name, labels):
        if "elastic_transform" in name:  # The data set calls it elastic.
            raise errors.UserError("There is no such configuration.")
        opened.append(name)
        return source

    monkeypatch.setattr(other_images, "open_set", open_set)
    scores = np.eye(3)
    context: Any = types.SimpleNamespace(
        run=_run(
            source, corrupted_dataset="mine", corruption_examples=7, corruption_severities="2"
        ),
        model=model,
        inputs=types.SimpleNamespace(
            test_scores=scores[[0, 1, 1]],
            test_labels=np.array([0, 1, 2]),
            class_names=tiny_runs.CLASSES[::-1],
        ),
        class_scores=lambda features, logits: logits,
    )
    clean, *cells = [found.cell for found in corrupted.prepared(context)]
    assert opened == ["mine/brightness_2", "mine/elastic_2"]
    assert clean.hits.tolist() == [True, True, False]
    assert [cell.corruption for cell in cells] == ["brightness", "elastic_transform"]
    ((images, labels),) = other_images.read(source, "test", 8, wanted=None, limit=7)
    predicted = np.argmax(model.infer(images.astype(np.float32) / 255)["logits"], 1)
    for cell in cells:
        np.testing.assert_array_equal(cell.labels, 2 - labels)
        np.testing.assert_array_equal(cell.hits, predicted == 2 - labels)


@pytest.mark.parametrize(("train_mode", "expected"), [("pretrain", "fit"), ("finetune", "logits")])
def test_the_classifier_is_that_of_the_other_evaluations(train_mode, expected):
    unused: Any = None
    run: Any = types.SimpleNamespace(config=_config(train_mode=train_mode))
    fit: Any = types.SimpleNamespace(scores=lambda features: "fit")
    context = network.Context(run, unused, unused, unused, fit, unused)
    logits: Any = "logits"
    assert context.class_scores(unused, logits) == expected
    assert context.class_scores(unused, None) == "fit"


def test_a_baseline_that_was_evaluated_otherwise_is_refused(source, tmp_path):
    run = _run(source, baseline_run=str(tmp_path), corruption_severities="2,4")
    path = str(tmp_path / "result.json")
    with pytest.raises(errors.UserError, match=r"result\.json cannot be read"):
        robustness_scoring.check(run)
    storage.write_json(path, {"linear_eval/top_1_accuracy": 0.5})
    with pytest.raises(errors.UserError, match="not evaluated on corrupted images; run --mode=eva"):
        robustness_scoring.check(run)
    levels = ["none/0", *(f"brightness/{level}" for level in (2, 4)), "elastic_transform/2"]
    cells = {level: [0.5, 0.1] for level in levels}
    storage.write_json(path, {robustness.CELLS: cells})
    with pytest.raises(errors.UserError, match="not evaluated with elastic_transform 4; evaluate"):
        robustness_scoring.check(run)
    cells["elastic_transform/4"] = [0.5, 0.1]
    images = {**robustness_scoring._images(run), "corruption_examples": 50}
    storage.write_json(path, {robustness.CELLS: cells, "robustness/images": images})
    with pytest.raises(errors.UserError, match="corruption_examples is 50 there and 1000 here"):
        robustness_scoring.check(run)
    images["corruption_examples"] = 1000
    storage.write_json(path, {robustness.CELLS: cells, "robustness/images": images})
    robustness_scoring.check(run)


@pytest.fixture(scope="module")
def small_corruptions():
    """Makes corruptions of images of any size, by darkening; the positions of those it makes."""
    made = []

    def darken(images, positions, name, severity, *, seed):
        made.append(tuple(positions))
        return images // (severity + 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corruption_names, "is_installed", lambda: True)
        patch.setattr(corruption_names, "MIN_SIDE", 1)
        patch.setattr(corruptions, "corrupt", darken)
        yield made


@pytest.fixture(scope="module")
def evaluated(photos, small_corruptions, tmp_path_factory):
    """The flags of the three evaluations, and a run directory with their results."""
    model_dir = tmp_path_factory.mktemp("other_images") / "run"
    shutil.copytree(tiny_runs.pretrained(tmp_path_factory), model_dir)
    flags = {
        "evaluations": "robustness,shifts,ood",
        "corruptions": "brightness,contrast",
        "corruption_severities": "1,5",
        "corruption_examples": 10,
        "shift_datasets": str(photos),
        "ood_datasets": str(tiny_runs.unlabelled_photos(tmp_path_factory)),
    }
    assert _evaluate(model_dir, flags) == 0
    return flags, model_dir


def _evaluate(model_dir, flags):
    given = [f"--{name}={value}" for name, value in flags.items()]
    return program.main(["run.py", "--mode=eval", f"--model_dir={model_dir}", *given])


@pytest.mark.exhaustive
def test_a_run_is_evaluated_on_corrupted_shifted_and_other_images(evaluated):
    flags, model_dir = evaluated
    shifted, other = (pathlib.Path(flags[f"{kind}_datasets"]).name for kind in ("shift", "ood"))
    result = tiny_runs.json_of(model_dir / "result.json")
    assert result["robustness/cells"].keys() == {
        *("none/0", "brightness/1", "brightness/5", "contrast/1", "contrast/5"),
    }
    # The same images as those of the evaluation split.
    assert result[f"shifts/{shifted}/accuracy"] == result["linear_eval/top_1_accuracy"]
    assert result[f"shifts/{shifted}/drop"] == 0
    assert 0 <= result[f"ood/{other}/mahalanobis/auroc"] <= 1
    names = {path.name for path in (model_dir / "evaluation" / "4").iterdir()}
    assert names == {
        *("robustness.csv", "robustness.svg", "corruptions.png"),
        *("shifts.csv", "shifts.svg", "ood.csv", "ood.svg"),
    }
    sheet = tf.io.decode_png((model_dir / "evaluation/4/corruptions.png").read_bytes()).numpy()
    assert sheet.shape == (6 + 3 * (18 + 96 + 6), 6 + 2 * (96 + 6), 3)


@pytest.mark.exhaustive
def test_labels_of_the_evaluation_split_choose_none_of_the_images(
    evaluated, small_corruptions, tmp_path, monkeypatch
):
    """Evaluates again with these labels permuted, and with a baseline."""
    flags, first = evaluated
    model_dir = pathlib.Path(shutil.copytree(first, tmp_path / "run"))
    extract = features.extract

    def permuted(network, source, split, **arguments):
        found = extract(network, source, split, **arguments)
        if split != "test":
            return found
        return dataclasses.replace(found, labels=np.roll(found.labels, 1))

    monkeypatch.setattr(features, "extract", permuted)
    baseline = tmp_path / "baseline"
    baseline.mkdir()
    numbers = tiny_runs.json_of(first / "result.json")
    cells = {name: [0.5, 0.1] for name in numbers["robustness/cells"]}
    storage.write_json(str(baseline / "result.json"), {**numbers, "robustness/cells": cells})
    changes = {"evaluations": "robustness,ood", "baseline_run": baseline}
    assert _evaluate(model_dir, {**flags, **changes}) == 0
    results = [tiny_runs.json_of(folder / "result.json") for folder in (first, model_dir)]
    for name in results[0]:
        if name.startswith("ood/"):
            assert results[1][name] == results[0][name]
    assert len(small_corruptions) == 2 * 4  # Of each severity of each corruption, twice.
    assert len(set(small_corruptions)) == 1 and len(set(small_corruptions[0])) == 10
    ours = results[1]["robustness/cells"]
    assert ours != numbers["robustness/cells"]
    errors_of_ours = [1 - accuracy for key, (accuracy, _) in ours.items() if key != "none/0"]
    assert results[1]["robustness/mce"] == pytest.approx(np.mean(errors_of_ours) / 0.5)
