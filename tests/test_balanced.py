"""Class-balanced batches: the same number of images of each class, a function of (seed, step)."""

import collections
import dataclasses

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from simclr_tf import errors
from simclr_tf.data import balanced, pipeline, policies, sources

_COUNTS = (7, 6, 2, 9)  # of four classes


def _images(counts=_COUNTS):
    """Returns images whose indices encode the class: 100 * class + index in the class."""
    indices = [100 * label + i for label, count in enumerate(counts) for i in range(count)]
    starts = np.cumsum([0, *counts[:-1]])
    return balanced.ByClass(
        np.array(indices, np.int64), starts.astype(np.int32), np.array(counts, np.int32), None
    )


def _draw(step, *, batch_size=6, m=3, images=None):
    images = images or _images()
    seed = tf.constant([3, step])
    return balanced.batch_of(images, seed, batch_size=batch_size, samples_per_class=m).numpy()


def test_a_batch_holds_m_different_images_of_each_of_its_classes():
    for step in range(50):
        numbers = _draw(step, images=_images((7, 6, 3, 9)))
        assert sorted(collections.Counter(numbers // 100).values()) == [3, 3]
        assert len(set(numbers)) == 6


def test_a_small_class_gives_all_its_images_before_any_is_repeated():
    seen = 0
    for step in range(60):
        numbers = _draw(step, batch_size=5, m=5)
        if numbers[0] // 100 == 2:
            seen += 1
            assert sorted(collections.Counter(numbers).values()) == [2, 3]
    assert seen > 5


def test_classes_and_images_of_a_class_are_equally_likely():
    steps = 3000
    draw = tf.function(
        lambda step: balanced.batch_of(
            _images(), tf.stack([1, step]), batch_size=4, samples_per_class=2
        )
    )
    drawn = np.concatenate([draw(tf.constant(step)).numpy() for step in range(steps)])
    classes = np.bincount(drawn // 100, minlength=4) / (4 * steps)
    np.testing.assert_allclose(classes, 0.25, atol=0.015)  # More than three deviations.
    for label, count in enumerate(_COUNTS):
        places = drawn[drawn // 100 == label] % 100
        frequency = np.bincount(places, minlength=count) / len(places)
        np.testing.assert_allclose(frequency, 1 / count, atol=4 * (1 / count / len(places)) ** 0.5)


def test_pairs_of_a_class_are_equally_likely():
    counts = tf.fill([6000], 4)
    places = balanced._distinct(counts, 2, tf.constant([5, 6])).numpy()
    pairs = collections.Counter(map(tuple, np.sort(places, 1)))
    assert len(pairs) == 6
    assert max(pairs.values()) / min(pairs.values()) < 1.25


def _folder(root):
    for label, (name, count) in enumerate({"blue": 7, "red": 6, "odd": 2}.items()):
        for number in range(count):
            path = root / "train" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (40 * label + 10 + number,) * 3).save(path)
    return sources.open_source("image_folder", data_dir=str(root), seed=0)


@pytest.fixture(scope="module", params=["folder", "digits"])
def source(request, tmp_path_factory):
    if request.param == "folder":
        return _folder(tmp_path_factory.mktemp("balanced"))
    return sources.open_source("digits", data_dir=None, seed=0)


def _batches(source, count, **settings):
    images = balanced.open_by_class(source, "train")
    batches = pipeline.train_batches(
        source,
        "train",
        policies.Policy(8, ops=("crop",)),
        **{"batch_size": 6, "num_views": 2, "seed": 5, **settings},
        by_class=images,
        samples_per_class=3,
    )
    return [{key: x.numpy() for key, x in batch.items()} for batch in batches.take(count)]


def test_batches_are_balanced_and_the_same_after_a_resume(source):
    whole, rest = _batches(source, 4), _batches(source, 2, start_step=2)
    for batch in whole:
        assert sorted(collections.Counter(batch["label"]).values()) == [3, 3]
    for one, other in zip(whole[2:], rest):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not np.array_equal(whole[0]["views"], whole[1]["views"])


def test_a_balanced_batch_is_split_among_hosts(source):
    whole = [batch["label"] for batch in _batches(source, 2)]
    shards = [[b["label"] for b in _batches(source, 2, num_shards=2, shard=i)] for i in range(2)]
    for label, one, other in zip(whole, *shards):
        np.testing.assert_array_equal(label, np.concatenate([one, other]))


def test_an_image_keeps_its_label(tmp_path):
    source = _folder(tmp_path)
    images = balanced.open_by_class(source, "train")
    for first, count in zip(images.starts, images.counts):
        numbers = images.indices[first : first + count]
        examples = [images.read(tf.constant(number)) for number in numbers]
        (label,) = {int(example["label"]) for example in examples}
        folders = {example["name"].numpy().decode().split("/")[1] for example in examples}
        assert folders == {source.class_names[label]}


def test_excluded_images_are_not_drawn(tmp_path):
    source = _folder(tmp_path)
    less = dataclasses.replace(source, excluded={"train": ("train/odd/1.png", "train/red/0.png")})
    images = balanced.open_by_class(less, "train")
    assert sorted(images.counts) == [1, 5, 7]
    names = {images.read(tf.constant(number))["name"].numpy() for number in images.indices}
    assert not names & {b"train/odd/1.png", b"train/red/0.png"}


def test_too_few_classes_are_refused_with_a_remedy():
    with pytest.raises(
        errors.UserError, match="of 12 from 6 classes, but the data has images of 4"
    ):
        balanced.check(_images(), batch_size=12, samples_per_class=2)
    with pytest.raises(errors.UserError, match="use 3, or a smaller batch"):
        balanced.check(_images(), batch_size=12, samples_per_class=2)


def test_small_classes_are_reported():
    note = balanced.check(_images(), batch_size=12, samples_per_class=3)
    assert note.startswith("1 of 4 classes have fewer than 3 images (the smallest 2)")
    assert balanced.check(_images(), batch_size=8, samples_per_class=2) is None
