"""Folders that are splits, whatever they are called, and the split to evaluate on."""

import collections

import pytest
import test_folder

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.data import labels, split_names
from simclr_tf.runs import dataset

CLASSES = ("cat", "dog")


def _labelled(*folders, count=10):
    return test_folder._classes(*(f"{s}/{c}" for s in folders for c in CLASSES), count=count)


def _unlabelled(*folders, count=3):
    return test_folder._classes(*folders, count=count)


def _config(root, **settings):
    return config_lib.Config(dataset="image_folder", data_dir=str(root), **settings)


def _data(root, given=False, **settings):
    settings = {"mode": "train_then_eval", **settings}
    return dataset.open_data(_config(root, **settings), eval_split_given=given)


PAIRS = [
    ("Train", "Test"),
    ("Training", "Testing"),
    ("train", "valid"),
    ("TRAIN", "VAL"),
    ("training_set", "test_set"),
    ("Training Set", "Test Set"),
    ("train2017", "val2017"),
]


@pytest.mark.parametrize("train, other", PAIRS)
@pytest.mark.parametrize("folders", [_labelled, _unlabelled])
def test_splits_of_any_case_and_form_are_found_by_the_default_settings(
    tmp_path, folders, train, other
):
    test_folder._fill(tmp_path, folders(train) + folders(other))
    data = _data(tmp_path)
    for split, folder in ((data.train_split, train), (data.eval_split, other)):
        found = test_folder._listed(data.source, split)
        assert set(found) == set(folders(folder))
    assert dict(data.source.splits).keys() == {data.train_split, data.eval_split}
    assert data.is_labelled(data.train_split) == (folders is _labelled)


def test_a_note_says_which_folder_became_which_split(tmp_path):
    test_folder._fill(tmp_path, _labelled("Training", "VAL", "test"))
    assert test_folder._open(tmp_path).notes == (
        "The folder Training is the split 'training', which is also found as 'train'.",
        "The folder VAL is the split 'val'.",
    )


@pytest.mark.parametrize("folders", [_labelled, _unlabelled])
def test_two_folders_that_are_the_same_split_are_refused(tmp_path, folders):
    test_folder._fill(tmp_path, folders("train", "Train", "test"))
    with pytest.raises(errors.UserError) as raised:
        test_folder._open(tmp_path)
    assert str(raised.value) == (
        f"The folder {str(tmp_path)!r} holds Train and train, which are both the split 'train'; "
        "merge them, or rename one."
    )


def test_a_labelled_and_an_unlabelled_folder_of_the_same_split_are_refused(tmp_path):
    test_folder._fill(tmp_path, _labelled("train", "test") + _unlabelled("Test"))
    with pytest.raises(errors.UserError, match="test and Test, which are both the split 'test'"):
        test_folder._open(tmp_path)


@pytest.mark.parametrize(
    "split, splits, want",
    [
        ("train", ["training", "test"], "training"),
        ("train[:10%]+Test", ["training", "test"], "training[:10%]+test"),
        ("validation", ["train", "val"], "val"),
        ("Val", ["train", "val"], "val"),
        ("train", ["Train"], "Train"),
        ("train", ["train", "training"], "train"),
        ("train", ["train2014", "train2017"], "train"),  # Either could be meant.
        ("test", ["train", "val"], "test"),
        ("all", ["train", "val"], "all"),
    ],
)
def test_a_name_means_the_only_split_that_it_can_mean(split, splits, want):
    assert split_names.resolve(split, splits) == want


def test_a_split_that_the_folder_does_not_have_is_refused_with_those_that_it_has(tmp_path):
    test_folder._fill(tmp_path, _labelled("indoors", "outdoors"))
    with pytest.raises(errors.UserError) as raised:
        _data(tmp_path)
    assert str(raised.value) == (
        "The data set 'image_folder' has no split 'train'; set --train_split to what it has, "
        "indoors (20), outdoors (20), or read all images without labels (--labels=none)."
    )
    assert _data(tmp_path, train_split="Indoors", eval_split="outdoors").train_split == "indoors"


def test_class_folders_in_a_folder_of_their_own_are_explained(tmp_path):
    test_folder._fill(tmp_path, test_folder._classes("photos/cat", "photos/dog"))
    assert test_folder._open(tmp_path).notes == (
        "The folder photos is taken as a split, and the folders in it as classes. If it is not a "
        f"split, use --data_dir={tmp_path}/photos.",
    )


# A competition's folder: labelled training images, and a test set whose labels are secret.


@pytest.fixture
def competition(tmp_path):
    test_folder._fill(tmp_path, _labelled("train", count=20) + _unlabelled("test"))
    return tmp_path


def test_a_tenth_of_each_class_is_held_out_beside_an_unlabelled_test_split(competition):
    source = test_folder._open(competition, seed=3)
    assert dict(source.splits) == {"train": 36, "test": 3, "validation": 4}
    held_out = test_folder._listed(source, "validation")
    assert collections.Counter(held_out.values()) == {0: 2, 1: 2}
    assert not set(held_out) & set(test_folder._listed(source, "train"))
    assert set(test_folder._listed(source, "test").values()) == {-1}
    assert source.notes == (
        "The split 'test' has no class folders, so it is unlabelled.",
        "Held out 4 of 40 images, a tenth of each class drawn with seed 3, as the split "
        "'validation', because 'test' has no labels to evaluate on.",
    )


def test_the_draw_of_what_is_held_out_depends_on_the_seed_alone(competition):
    draws = [
        set(test_folder._listed(test_folder._open(competition, seed), "validation"))
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_the_default_evaluation_split_is_one_with_labels(competition):
    assert _data(competition).eval_split == "validation"
    assert _data(competition, mode="train").eval_split == "validation"


def test_nothing_is_held_out_of_a_single_class(tmp_path):
    test_folder._fill(tmp_path, test_folder._classes("train/holiday", "test"))
    assert dict(test_folder._open(tmp_path).splits) == {"train": 10, "test": 10}


def test_a_labelled_split_is_evaluated_rather_than_an_unlabelled_one_of_a_better_name(tmp_path):
    test_folder._fill(tmp_path, _labelled("train", "val") + _unlabelled("test"))
    data = _data(tmp_path)
    assert data.eval_split == "val"
    assert data.source.num_examples("train") == 20  # Nothing is held out.


def test_an_unlabelled_validation_split_keeps_its_name(tmp_path):
    test_folder._fill(tmp_path, _labelled("train") + _unlabelled("validation", "test"))
    data = _data(tmp_path)
    assert dict(data.source.splits) == {"train": 18, "validation": 3, "test": 3, "held_out": 2}
    assert data.eval_split == "held_out"
    assert "because 'validation' and 'test' have no labels to evaluate on." in data.source.notes[2]


@pytest.mark.parametrize("settings", [{}, {"train_mode": "finetune"}, {"mode": "eval"}])
def test_an_unlabelled_evaluation_split_given_explicitly_is_refused_at_the_start(
    competition, settings
):
    with pytest.raises(errors.UserError, match="'test' of 'image_folder' has no labels") as raised:
        _data(competition, given=True, eval_split="test", **settings)
    assert "which evaluation needs; set --eval_split to validation" in str(raised.value)


def test_unlabelled_images_are_said_not_to_be_evaluated_at_the_start(tmp_path):
    test_folder._fill(tmp_path, _unlabelled("train", "test"))
    note = "The data set 'image_folder' has no labels, so no accuracy will be measured."
    assert note in _data(tmp_path).source.notes
    assert note not in _data(tmp_path, mode="train").source.notes


def test_unlabelled_training_images_need_no_evaluation_split(tmp_path):
    test_folder._fill(tmp_path, _labelled("train") + _unlabelled("unlabeled"))
    data = _data(tmp_path, train_split="unlabeled")
    assert "no accuracy will be measured" in data.source.notes[-1]


def test_the_remedy_for_a_missing_evaluation_split_names_the_training_split(tmp_path):
    test_folder._fill(tmp_path, _labelled("Training"))
    with pytest.raises(errors.UserError) as raised:
        _data(tmp_path, train_split="train[:50%]")
    assert "--train_split=training[:90%] and --eval_split=training[90%:]" in str(raised.value)


def test_a_sum_of_a_labelled_and_an_unlabelled_split_has_some_labels(tmp_path):
    test_folder._fill(tmp_path, _labelled("train", "test") + _unlabelled("unlabeled"))
    source = test_folder._open(tmp_path)
    for split in ("train+unlabeled", "unlabeled+train"):
        assert labels.is_labelled(source, split)
        assert "have no labels" in str(labels.why_partly_unlabelled(source, split))
    assert labels.why_partly_unlabelled(source, "train+test") is None


# Classes with few images.


def test_classes_of_one_image_each_are_not_said_to_be_held_out(tmp_path):
    test_folder._fill(tmp_path, [f"c{i}/0.png" for i in range(40)])
    source = test_folder._open(tmp_path)
    assert dict(source.splits) == {"train": 40}
    assert source.notes == (
        "Held out no images of 'train', because each of the 40 classes has only one.",
        "The folders, which have one image each, are taken as classes. If they are not, use "
        "--labels=none, which reads all images without labels.",
    )
    with pytest.raises(errors.UserError) as raised:
        _data(tmp_path)
    assert str(raised.value) == (
        "The data set 'image_folder' has no split to evaluate on, only train (40), and each class "
        "of 'train' has only one image; use --mode=train, or --labels=none if they are not classes."
    )


def test_the_note_on_small_classes_says_that_at_least_one_image_is_held_out(tmp_path):
    paths = [f"c{i}/{j}.png" for i in range(4) for j in range(1 + (i > 1))]
    source = test_folder._open(test_folder._fill(tmp_path, paths))
    assert dict(source.splits) == {"train": 4, "validation": 2}
    assert source.notes == (
        "Held out 2 of 6 images, a tenth (at least one) of each class with several images, drawn "
        "with seed 0, as the split 'validation'.",
        "The split 'validation' has no images of 2 of 4 classes: c0, c1.",
    )


# Folders that are dates.


@pytest.mark.parametrize("inner", [("01", "05"), ("2019-05-01", "2019-06-02"), ("5", "6")])
def test_years_of_months_are_not_taken_for_splits_of_classes(tmp_path, inner):
    paths = test_folder._classes(*(f"{year}/{name}" for year in (2018, 2019) for name in inner))
    test_folder._fill(tmp_path, paths)
    with pytest.raises(errors.UserError, match=r"numbers, as of years .*; .*\(--labels=none\)"):
        test_folder._open(tmp_path)


@pytest.mark.parametrize(
    "names, noted",
    [
        (("2018", "2019"), True),
        (("2019-05", "2019-06"), True),
        (("0", "1", "2"), False),  # Handwritten digits.
        (("00000", "00001"), False),
        (("2018", "other"), False),
    ],
)
def test_class_folders_that_look_like_dates_are_noted(tmp_path, names, noted):
    source = test_folder._open(test_folder._fill(tmp_path, test_folder._classes(*names)))
    assert source.class_names == names
    assert any("look like dates" in note for note in source.notes) == noted
    assert any("--labels=none" in note for note in source.notes) == noted


def test_numbered_classes_in_splits_are_classes(tmp_path):
    test_folder._fill(tmp_path, test_folder._classes("train/0", "train/1", "test/0", "test/1"))
    assert test_folder._open(tmp_path).class_names == ("0", "1")


def test_a_class_that_is_named_like_a_split_is_reported(tmp_path):
    """An archive whose unlabelled images are in test/test/."""
    test_folder._fill(tmp_path, [*_labelled("train"), "test/test/0.png", "test/test/1.png"])
    notes = test_folder._open(tmp_path).notes
    assert any("The class 'test' is named like a split; if its images" in note for note in notes)
