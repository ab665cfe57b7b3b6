"""Tests of simclr_tf.data.digits: the embedded data set is as its docstring says."""

import collections

import numpy as np
import pytest
from sklearn import datasets
import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf.data import decode, digits, sources


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns the opened data set and the folder in which opening it has prepared it."""
    folder = str(tmp_path_factory.mktemp("tfds"))
    return sources.open_source("digits", data_dir=folder, seed=0), folder


@pytest.fixture(scope="module")
def examples(prepared):
    """Returns split -> {"image", "label", "digit_index"} as arrays."""
    builder = tfds.builder("digits", data_dir=prepared[1])
    return {
        split: next(builder.as_dataset(split, batch_size=9_000).as_numpy_iterator())
        for split in ("train", "test")
    }


def test_it_opens_with_its_counts_classes_and_size(prepared):
    source, _ = prepared
    assert dict(source.splits) == {"train": 6_000, "test": 1_500}
    assert source.class_names == tuple("0123456789")
    assert source.image_shape == (28, 28)
    assert "Prepared the data set 'digits' in" in source.notes[0]


def test_it_is_prepared_once_and_silently(prepared, capfd):
    again = sources.open_source("digits", data_dir=prepared[1], seed=1)
    assert again.notes == ()
    assert capfd.readouterr() == ("", "")


def test_no_digit_of_a_test_image_is_in_a_training_image(examples):
    train, test = (set(examples[split]["digit_index"]) for split in ("train", "test"))
    assert not train & test
    assert len(train | test) == 1_797
    assert len(test) / 1_797 == pytest.approx(0.2, abs=0.005)


def test_labels_are_those_of_the_digits_and_balanced(examples):
    target = datasets.load_digits().target
    for split in ("train", "test"):
        label = examples[split]["label"]
        np.testing.assert_array_equal(label, target[examples[split]["digit_index"]])
        frequency = np.bincount(label) / len(label)
        np.testing.assert_allclose(frequency, np.bincount(target) / len(target), atol=0.005)


def test_digits_are_used_about_equally_often(examples):
    for split in ("train", "test"):
        uses = collections.Counter(examples[split]["digit_index"]).values()
        assert set(uses) == {4, 5}


def test_stored_pictures_are_those_that_are_decoded(prepared, examples):
    first = next(iter(prepared[0].examples("test")))
    np.testing.assert_array_equal(decode.decode_image(first["image"]), examples["test"]["image"][0])


def test_the_digit_is_light_on_dark(examples):
    luma = examples["train"]["image"][:500] @ np.array([0.299, 0.587, 0.114])  # (b, h, w)
    brightest = np.sort(luma.reshape(500, -1), axis=1)
    paper, ink = brightest[:, :390].mean(axis=1), brightest[:, -20:].mean(axis=1)
    assert np.all(ink > paper + 15)


def test_the_picture_is_the_digit_moved_enlarged_and_turned():
    # A blob of ink off the digit's centre: where it is painted shows position, size and angle.
    y, x = np.mgrid[:8, :8] - 3.5
    turn, scale, centre = 0.2, 2.5, np.array([13.0, 15.0])
    pixel = np.arange(digits.SIDE) + 0.5
    for row, column in [(2.0, 0.0), (0.0, 2.0), (-1.5, 1.0)]:
        blob = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2)
        ink = digits._place(
            blob[None], scale=np.array([scale]), turn=np.array([turn]), centre=centre[None]
        )[0]
        got = np.array([ink.sum(axis=1) @ pixel, ink.sum(axis=0) @ pixel]) / ink.sum()
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        np.testing.assert_allclose(got, centre + scale * rotation @ [row, column], atol=0.15)
        assert ink.sum() == pytest.approx(scale**2 * blob.sum(), rel=0.03)


def test_widths_are_16_to_24_pixels_at_any_position():
    rng = np.random.default_rng(0)
    full = np.ones((400, 8, 8))
    images = digits.paint(full, rng).astype(float).mean(axis=3)  # (b, h, w)
    middle = (images.max(axis=(1, 2)) + images.min(axis=(1, 2))) / 2
    areas = np.sum(images > middle[:, None, None], axis=(1, 2))
    sides = np.sqrt(areas)
    assert 15 < sides.min() < 17
    assert 22 < sides.max() < 25
    centres = [np.argwhere(image > m).mean(axis=0) for image, m in zip(images, middle)]
    assert np.ptp(np.array(centres)[:, 0]) > 9
    assert np.ptp(np.array(centres)[:, 1]) > 9


def test_the_data_set_is_the_same_everywhere(examples):
    chosen = np.resize(digits._digits_of("train", datasets.load_digits().target), 6_000)
    ink = datasets.load_digits().images[chosen[: digits._CHUNK]] / 16
    images = digits.paint(ink, np.random.default_rng([1998, 0]))
    # The stored order is shuffled: look the first pictures up among all.
    stored = {image.tobytes() for image in examples["train"]["image"]}
    assert all(image.tobytes() in stored for image in images)
    assert images.sum(dtype=np.int64) == 13_895_879


def test_an_epoch_visits_every_example_once(prepared):
    source, _ = prepared
    names = [e["name"] for e in source.examples("test", order_seed=tf.constant([1, 2]))]
    assert len({name.numpy() for name in names}) == len(names) == 1_500
