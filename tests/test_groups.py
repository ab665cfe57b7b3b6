"""Images in groups: what the groups are, that none is divided, and the warnings."""

import collections
import itertools
import shutil

import numpy as np
import pytest
import test_folder
import test_label_file
import tiny_runs

import run
from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.data import group_names, grouped_draw, holdout, sources
from simclr_tf.evaluation import comparison, intervals, linear
from simclr_tf.runs import dataset, group_checks, predictions

PATIENTS = [
    f"{kind}/patient{patient:02d}_slice{index}.png"
    for kind in ("ill", "well")
    for patient in range(20)
    for index in range(3)
]


def _open(root, group, labels="folders", seed=0):
    return sources.open_source(
        "image_folder", data_dir=str(root), seed=seed, labels=str(labels), group=group
    )


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """A folder of 20 patients, each with three images of each of two classes."""
    return test_folder._fill(tmp_path_factory.mktemp("patients"), PATIENTS)


def _groups(source, split):
    return dict(zip(source.example_names(split), source.example_groups(split), strict=True))


# What the groups are.


def test_the_group_is_group_1_of_the_expression_or_else_the_match(patients):
    for expression, group in ((r"patient(\d+)", "07"), (r"patient\d+", "patient07")):
        source = _open(patients, expression)
        assert (_groups(source, "train") | _groups(source, "validation"))[
            "ill/patient07_slice1.png"
        ] == group


def test_the_group_may_be_a_column_of_the_file_of_labels(tmp_path):
    paths = [f"{index}.png" for index in range(40)]
    test_folder._fill(tmp_path, paths)
    rows = [(path, "ab"[i % 2], f"P{i // 4}") for i, path in enumerate(paths)]
    file = test_label_file._write(tmp_path / "labels.csv", ("file", "label", "Patient"), *rows)
    source = _open(tmp_path, "patient", labels=file)
    expected = {path: group for path, _, group in rows}
    found = [_groups(source, split) for split in ("train", "validation")]
    assert found[0] | found[1] == expected
    assert not set(found[0].values()) & set(found[1].values())
    # What is not a column is an expression.
    assert _open(tmp_path, r"\d", labels=file).example_groups("train")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(patient", r"'\(patient' is not a regular expression .*such as ill/patient00_slice0.png"),
        (r"ill/(pat\w+)_", r"the names of 60 of 120 images \(well/patient00_slice0.png"),
        (r"patient\d+(x)?", "the names of 120 of 120 images"),
    ],
)
def test_an_expression_that_finds_no_groups_is_refused(patients, expression, message):
    with pytest.raises(errors.ArgumentError, match=message) as raised:
        _open(patients, expression)
    assert raised.value.argument == "group" and "\n" not in str(raised.value)


def test_a_row_without_a_group_and_rows_that_contradict_each_other_are_refused(tmp_path):
    test_folder._fill(tmp_path, ["0.png", "1.png"])
    head, first = ("file", "label", "patient"), ("0.png", "a", "P1")
    file = test_label_file._write(tmp_path / "a.csv", head, first, ("1.png", "b", ""))
    with pytest.raises(errors.UserError, match=r"Line 3 of .* has no group for 1.png"):
        _open(tmp_path, "patient", labels=file)
    file = test_label_file._write(tmp_path / "b.csv", head, first, ("0.png", "a", "P2"))
    with pytest.raises(errors.UserError, match=r"the group 'P1' in line 2 and 'P2' in line 3"):
        _open(tmp_path, "patient", labels=file)


def test_images_without_file_names_have_no_groups():
    with pytest.raises(errors.ArgumentError, match="the images of digits have only numbers"):
        sources.open_source("digits", data_dir=None, seed=0, group=r"\d+")


def test_an_expression_survives_the_flagfile_of_a_run():
    config = config_lib.Config(group=r"^[^/]*/(patient \d+), '\"#")
    assert config_lib.Config.from_flagfile(config.to_flagfile()) == config


# What is held out.


@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_on_both_sides_of_the_held_out_split(patients, seed):
    source = _open(patients, r"patient\d+", seed=seed)
    train, held = _groups(source, "train"), _groups(source, "validation")
    assert len(train) + len(held) == 120 and not set(train.values()) & set(held.values())
    assert source.notes == (
        "Held out 12 of 120 images, 2 of 20 groups with about a tenth of each class, drawn with "
        f"seed {seed}, as the split 'validation'.",
    )


def test_groups_that_are_folders_of_a_labelled_training_split_are_held_out_too():
    splits = {"train": [f"train/{path}" for path in PATIENTS], "test": ["test/0.png"]}
    labels = {path: path.split("/")[1] for path in splits["train"]}
    groups = {path: path.split("/")[-1][:9] for path in labels} | {"test/0.png": "patient99"}
    found, _ = holdout.ensure_evaluation(splits, labels, seed=0, groups=groups)
    sides = [{groups[path] for path in found[split]} for split in ("train", "validation")]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_about_a_tenth_of_each_class_is_drawn_where_groups_and_classes_are_uneven():
    rng = np.random.default_rng(0)
    groups = {f"{i}": f"g{g}" for i, g in enumerate(rng.integers(0, 150, 3000) ** 2 // 150)}
    labels = {path: f"c{min(int(group[1:]) % 7, 3)}" for path, group in groups.items()}
    drawn = grouped_draw.draw(
        list(groups), labels, groups, sorted(set(groups.values())), fraction=0.1
    )
    totals = collections.Counter(labels.values())
    held = collections.Counter(labels[path] for path in labels if groups[path] in drawn)
    assert all(0.05 < held[name] / totals[name] < 0.16 for name in totals)


def test_a_class_of_one_group_stays_and_one_of_two_large_groups_loses_the_smaller():
    sizes = {("one", "a"): 9, ("two", "b"): 8, ("two", "c"): 7}
    paths = [f"{n}/{g}/{i}" for (n, g), size in sizes.items() for i in range(size)]
    labels = {path: path.split("/")[0] for path in paths}
    groups = {path: path.split("/")[1] for path in paths}
    assert grouped_draw.draw(paths, labels, groups, "abc", fraction=0.1) == {"c"}
    one = [path for path in paths if labels[path] == "one"]
    split, note = holdout.hold_out(one, labels, seed=0, groups=groups)
    assert split == {"train": one}
    assert note.startswith("Held out no images of 'train', because all images of a class")


def test_near_copies_are_not_rewarded_where_their_group_is_held_out():
    # The class of a patient is random, so nothing but its other images predicts that of an image.
    rng = np.random.default_rng(0)
    names = [f"patient{patient}_{index}" for patient in range(300) for index in range(5)]
    group_of = {name: name.split("_")[0] for name in names}
    label_of_group = {group: str(rng.integers(2)) for group in sorted(set(group_of.values()))}
    centre = {group: rng.normal(size=8) for group in label_of_group}
    features = {name: centre[group_of[name]] + 0.01 * rng.normal(size=8) for name in names}
    labels = {name: label_of_group[group_of[name]] for name in names}

    def accuracy(groups):
        splits, _ = holdout.hold_out(names, labels, seed=0, groups=groups)
        train, held = (np.array([features[n] for n in splits[s]]) for s in ("train", "validation"))
        nearest = np.argmin(((held[:, None] - train) ** 2).sum(-1), 1)
        pairs = zip(splits["validation"], nearest, strict=True)
        return np.mean([labels[name] == labels[splits["train"][row]] for name, row in pairs])

    assert accuracy(None) > 0.95
    assert accuracy(group_of) < 0.7


# Warnings.


def _data(source, train="train", evaluated="validation"):
    return dataset.Data(source, train, evaluated)


def _warnings(source, capsys, **splits):
    group_checks.check(config_lib.Config(dataset="image_folder"), _data(source, **splits))
    return capsys.readouterr().out


def test_groups_in_both_splits_are_reported_with_a_number_and_an_example(patients, capsys):
    source = _open(patients, r"patient\d+")
    assert _warnings(source, capsys) == ""
    message = _warnings(source, capsys, train="train[:50%]", evaluated="train[50%:]")
    common = set(source.example_groups("train[:50%]")) & set(source.example_groups("train[50%:]"))
    assert f"{len(common)} of the" in message and repr(min(common)) in message


def test_names_that_suggest_groups_are_reported_unless_there_are_groups(patients, capsys):
    message = _warnings(_open(patients, None), capsys)
    assert r"--group='(patient\d+)'" in message
    assert _warnings(_open(patients, r"(patient\d+)"), capsys) == ""


def test_a_single_group_of_training_images_is_refused(patients):
    config = config_lib.Config(dataset="image_folder", mode="train_then_eval", group="patient")
    with pytest.raises(errors.UserError, match="all 120 images of 'train' into one group"):
        group_checks.check(config, _data(_open(patients, "patient")))


def _suggest(pattern, *, images=6, groups=8, labels=None):
    """Returns what names suggest whose last image of each group is evaluated."""
    names = [[pattern.format(g=g, i=i) for g in range(groups)] for i in range(images)]
    found = group_names.suggest(list(itertools.chain(*names[:-1])), names[-1], labels)
    return None if found is None else found.expression


@pytest.mark.parametrize(
    ("pattern", "expression"),
    [
        ("patient{g:03}_slice{i:02}.png", r"(patient\d+)"),
        ("test/ill/Patient-{g}-{i}.dcm.png", r"(Patient\-\d+)"),
        ("case_{g:02}_frame_{i}.jpg", r"(case_\d+)"),
        ("S{g}234-slide2-tile{i}.png", r"(\bS\d+)"),
        ("scene_{g:02}/frame_{i:04}.png", r"(scene_\d+)"),
        ("ct_subject{g}_z{i}_flair.png", r"(subject\d+)"),
    ],
)
def test_names_of_groups_suggest_an_expression(pattern, expression):
    assert _suggest(pattern) == expression


@pytest.mark.parametrize(
    "pattern",
    [
        *("n0144076{g}_{i}.JPEG", "n0144076{g}/n0144076{g}_{i}.JPEG", "IMG_{g}{i}34.jpg"),
        *("DSC_000{g}{i}.JPG", "IMG_20190{g}0{i}_123456.jpg", "class_{g}00{i}.jpg"),
        *("class_{g}_image_{i}.jpg", "{g}{i}.png", "{g}_{i}.png", "train/{g}/{i}.png"),
        "{g}f1b2c3d-4e5f-4a7b-8c9d-0e1f2a3b4c{i}d.png",
        "abcde{g}12-1234-4a7b-8c9d-0e1f2a3b4c{i}d.png",
        "cifar10-train.tfrecord-0000{g}-of-00008__{i}",
        *("ILSVRC2012_val_0000{g}{i}.JPEG", "cat{g}/img_{i}.jpg", "dog.{g}{i}.jpg"),
        *("patient_{g}{i}.jp2", "photo-{g}-{i}.webp", "Screenshot 2019-0{g}-1{i} at 10.11.12.png"),
    ],
)
def test_other_names_do_not(pattern):
    assert _suggest(pattern) is None


def test_names_do_not_suggest_groups_that_are_not_in_both_splits_or_are_the_classes():
    names = [f"case_{case}_frame_{i}.jpg" for case in range(8) for i in range(6)]
    assert group_names.suggest(names[:36], names[36:]) is None
    assert group_names.suggest(names[::6], names[::6]) is not None  # The same images.
    alone = [f"case_{case}_frame_0.jpg" for case in range(16)]
    assert group_names.suggest(alone[:8], alone[8:]) is None
    assert _suggest("dog_{g}_img_{i}.jpg") is not None
    assert _suggest("dog_{g}_img_{i}.jpg", labels=list(range(8))) is None


def test_no_groups_are_suggested_for_the_images_of_other_tests(photos, capsys):
    assert _warnings(_open(photos, None), capsys, evaluated="test") == ""


# The program.


@pytest.mark.exhaustive
def test_a_run_is_evaluated_and_compared_over_groups(
    pretrained, photos, tmp_path, capsys, monkeypatch
):
    held, fit = [], linear.fit
    monkeypatch.setattr(linear, "fit", lambda *a, **k: held.append(k["splits"]) or fit(*a, **k))
    assert tiny_runs.main("eval", pretrained, photos, group=r"(\d+)\.png", evaluations="knn") == 0
    printed = capsys.readouterr().out
    assert "The intervals are over 6 groups of images (--group)." in printed
    assert "6 of the 6 groups of 'test' are also in the training split" in printed
    trained = np.array(_open(photos, r"(\d+)\.png").example_groups("train"))
    (((fitted, chosen_on),),) = held
    assert len(chosen_on) and not set(trained[chosen_on]) & set(trained[fitted])
    found, result = predictions.read(str(pretrained)), tiny_runs.json_of(pretrained / "result.json")
    assert result["eval/groups"] == 6
    assert list(found.groups) == [name.split("/")[-1][:-4] for name in found.names]
    expected = intervals.accuracy(found.right, found.groups)
    assert result["linear_eval/top_1_accuracy_95"] == pytest.approx(expected[1:])
    of_images = intervals.wilson(result["knn/1/top_1_accuracy"], 18)
    assert result["knn/1/top_1_accuracy_95"] != pytest.approx(of_images[1:], abs=0.01)
    other = tmp_path / "other"
    shutil.copytree(pretrained, other)
    changed = np.where(found.groups == "2", "none", found.predicted)
    # Only one of the runs has groups, as after an evaluation by an older version.
    predictions.write(
        str(other),
        predictions.Predictions(4, found.names, found.labels, changed, found.probability),
    )
    flags = ["--mode=compare", f"--runs={other},{pretrained}", f"--model_dir={tmp_path}"]
    assert run.main(["run.py", *flags]) == 0
    assert "18 images, intervals over 6 groups" in capsys.readouterr().out
    compared = tiny_runs.json_of(tmp_path / "comparison.json")
    right = found.labels == changed
    direct = comparison.compare(
        right, found.right, seed=config_lib.Config.seed, groups=found.groups
    )
    assert compared["groups"] == 6 and compared["against_first"][0]["p"] == direct.p
    assert compared["against_first"][0]["difference_95"] == list(direct.difference[1:])
    predictions.write(
        str(other),
        predictions.Predictions(
            4,  # In another order.
            found.names[::-1],
            found.labels[::-1],
            changed[::-1],
            found.probability[::-1],
            groups=np.where(found.groups == "2", "two", found.groups)[::-1],
        ),
    )
    assert run.main(["run.py", *flags]) == 2
    assert "have different groups for 3 images" in capsys.readouterr().err
