"""Data sets whose images may have several labels: how they are read, and which are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tiny_scenes

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.data import (
    evaluation_images,
    indicators,
    inspection,
    labels,
    pipeline,
    policies,
    sources,
    subsets,
)
from simclr_tf.runs import dataset
from simclr_tf.transfer import several_labels, targets


class Plain(tiny_scenes.Scenes, skip_registration=True):  # type: ignore[call-arg]
    """Without difficult objects and without a validation split; test images have no labels."""

    MARKS_DIFFICULT = False
    SPLITS = ("train", "test")

    def labels(self, split):
        return np.abs(tiny_scenes.labels_of(split)) * (split == "train")


class Single(tiny_scenes.Scenes, skip_registration=True):  # type: ignore[call-arg]
    """One class."""

    CLASSES = ("red",)

    def labels(self, split):
        return np.abs(tiny_scenes.labels_of(split)[:, :1])


class Tagged(tiny_scenes.Scenes, skip_registration=True):  # type: ignore[call-arg]
    """Lists of classes under another key."""

    KEY = "tags"
    MARKS_DIFFICULT = False

    def labels(self, split):
        return np.abs(tiny_scenes.labels_of(split))


class Objects(Tagged, skip_registration=True):  # type: ignore[call-arg]
    """Lists of objects, of which each has a class; those of the first class are there twice."""

    KEY = "objects"

    def entry(self):
        label = tfds.features.ClassLabel(names=self.CLASSES)
        return {"area": tf.int64, "label": label, "is_crowd": tf.bool}

    def entries(self, shown):
        objects = [{"area": 7, "label": int(one), "is_crowd": False} for one in shown]
        return [*objects, *objects[:1]]


class Parts(Objects, skip_registration=True):  # type: ignore[call-arg]
    """Objects that have two classes."""

    def entry(self):
        label = tfds.features.ClassLabel(names=self.CLASSES)
        return {"area": tf.int64, "label": label, "is_crowd": label}

    def entries(self, shown):
        return [{"area": 7, "label": int(one), "is_crowd": 0} for one in shown]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for builder in (tiny_scenes.Scenes, Plain, Single, Tagged, Objects, Parts):
        tiny_scenes.prepare(builder, folder)
    return str(folder)


def opened(name, data_dir, **changes):
    return sources.open_source(
        name, data_dir=data_dir, seed=0, **{"several_labels": True, **changes}
    )


@pytest.mark.parametrize(
    ("given", "clear", "want"),
    [
        ([2, 0], [0, 2], [1, 0, 1]),
        ([0, 1, 1], [1], [-1, 1, 0]),
        ([], [], [0, 0, 0]),
        ([1], None, [0, 1, 0]),
        ([1], [], [0, -1, 0]),
    ],
)
def test_a_class_with_difficult_objects_only_counts_as_neither(given, clear, want):
    labels_clear = None if clear is None else tf.constant(clear, tf.int64)
    found = indicators.of_lists(tf.constant(given, tf.int64), labels_clear, 3)
    assert found.numpy().tolist() == want


def test_the_labels_of_a_data_set_are_read_for_every_class(data_dir):
    source = opened("scenes", data_dir)
    assert source.several_labels and source.class_names == tiny_scenes.CLASSES
    for split in tiny_scenes.COUNTS:
        _, found = subsets.read_names_and_labels(source, split)
        stored = [int(name.split("[")[1][:-1]) for name in source.example_names(split)]
        assert sorted(found.tolist()) == sorted(tiny_scenes.labels_of(split).tolist())
        assert stored == list(range(len(found)))
    assert -1 in found


def test_without_a_mark_of_difficult_objects_all_count(data_dir):
    _, found = subsets.read_names_and_labels(opened("plain", data_dir), "train")
    want = np.abs(tiny_scenes.labels_of("train"))
    assert sorted(found.tolist()) == sorted(want.tolist())


@pytest.mark.parametrize("name", ["tagged", "objects"])
def test_the_only_list_of_classes_or_of_objects_will_do_whatever_its_key(data_dir, name):
    source = opened(name, data_dir)
    assert source.several_labels and source.class_names == tiny_scenes.CLASSES
    _, found = subsets.read_names_and_labels(source, "train")
    want = np.abs(tiny_scenes.labels_of("train"))
    assert sorted(found.tolist()) == sorted(want.tolist())


def test_objects_of_two_classes_are_no_labels(data_dir):
    source = opened("parts", data_dir)
    assert source.class_names is None and not source.several_labels


def test_a_run_reads_the_labels_of_every_class_of_a_stream(data_dir):
    config = dataclasses.replace(
        config_lib.Config(), dataset="scenes", data_dir=data_dir, mode="train_then_eval"
    )
    data = dataset.open_data(config, eval_split_given=False, several_labels=True)
    assert data.class_names == tiny_scenes.CLASSES and data.source.several_labels
    policy = policies.Policy(8, ops=("crop",))
    batches = pipeline.train_batches(
        data.source, "train", policy, batch_size=20, num_views=1, seed=0
    )
    found = next(iter(batches))["label"].numpy()
    assert sorted(found.tolist()) == sorted(tiny_scenes.labels_of("train").tolist())


def test_a_data_set_is_unlabelled_where_several_labels_cannot_be_used(data_dir):
    source = opened("scenes", data_dir, several_labels=False)
    assert source.class_names is None and not source.several_labels
    assert [int(example["label"]) for example in source.examples("test")] == [-1] * 16


def test_a_split_in_which_no_image_has_a_class_is_unlabelled(data_dir):
    source = opened("plain", data_dir)
    assert labels.is_labelled(source, "train") and not labels.is_labelled(source, "test")


def test_batches_have_the_labels_of_all_classes_and_padding_has_none(data_dir):
    source = opened("scenes", data_dir)
    batches = list(
        evaluation_images.batches(
            source, "validation", batch_size=8, image_size=8, labelled_only=True
        )
    )
    assert [batch["label"].shape for batch in batches] == [(8, 3), (8, 3)]
    mask, found = (np.concatenate([batch[name] for batch in batches]) for name in ("mask", "label"))
    assert mask.sum() == 10 and np.all(found[~mask] == -1)
    want = subsets.read_names_and_labels(source, "validation")[1]
    np.testing.assert_array_equal(found[mask], want)


def test_images_are_checked_whatever_their_labels(data_dir):
    found = list(inspection.inspect(opened("scenes", data_dir), "test"))
    assert [(one.label, one.unreadable) for one in found] == [(-1, None)] * 16


def test_what_is_not_for_several_labels_is_refused(data_dir):
    cases: tuple[tuple[str, dict[str, Any], list[str]], ...] = (
        ("scenes", {"transfer_grid": "small"}, ["--transfer_grid=small", "--transfer_grid=none"]),
        ("scenes", {"labels_per_class": 1}, ["--labels_per_class=1", "leave it out"]),
        ("plain", {}, ["no split to evaluate on that has labels", "test (16)"]),
        ("single", {}, ["has only one class, 'red'"]),
    )
    for name, flags, phrases in cases:
        config = config_lib.Config(mode="transfer", transfer_to=name, data_dir=data_dir, **flags)
        with pytest.raises(errors.UserError) as error:
            targets.open_targets(config, eval_split_given=False)
        assert all(phrase in str(error.value) for phrase in phrases), error.value


@pytest.mark.parametrize(
    ("learned", "scored", "phrases"),
    [
        (
            [[1, 0], [0, -1]],
            [[1, 1]],
            ["none of the 2", "learn from shows the class 'b'; set --tr"],
        ),
        (
            [[1, 1], [1, 0]],
            [[1, 1]],
            ["all of the 2", "learn from show the class 'a'; set --train"],
        ),
        ([[1, 0], [0, 1]], [[0, -1]], ["none of the 1", "score shows", "(2 of 2", "--eval_split"]),
    ],
)
def test_a_class_that_cannot_be_learned_or_scored_is_refused(learned, scored, phrases):
    with pytest.raises(errors.UserError) as error:
        several_labels.check("scenes", ("a", "b"), np.array(learned), np.array(scored))
    assert all(phrase in str(error.value) for phrase in phrases), error.value


def test_the_classes_are_checked_before_anything_is_computed(data_dir):
    config = config_lib.Config(mode="transfer", transfer_to="scenes", data_dir=data_dir)
    config = dataclasses.replace(config, train_split="train[:1]", eval_split="test")
    with pytest.raises(errors.UserError, match=r"of the 1 images to learn from.*--train_split"):
        targets.open_targets(config, eval_split_given=True)


def test_a_validation_split_of_its_own_is_chosen_on(data_dir):
    config = config_lib.Config(mode="transfer", transfer_to="scenes", data_dir=data_dir)
    (target,) = targets.open_targets(config, eval_split_given=False)
    assert (target.data.train_split, target.validation_split) == ("train", "validation")
    assert (target.data.eval_split, target.metric) == ("test", "11-point mAP")
