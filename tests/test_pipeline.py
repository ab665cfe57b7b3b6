"""Batches: a function of the seed, the same after a resume and on any number of hosts."""

import io

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from simclr_tf.data import pipeline, sources, views

_COUNTS = {"red": 7, "blue": 6}


def _folder(root, sides):
    """Makes a folder of 13 pictures, each of a grey level of its own."""
    level = 0
    for name, count in _COUNTS.items():
        for number in range(count):
            level += 15
            side = sides[number % len(sides)]
            path = root / "train" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (side, side + 2), (level, level, level)).save(path)
    return sources.open_source("image_folder", data_dir=str(root), seed=0)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return _folder(tmp_path_factory.mktemp("folder"), [10, 12])


def _train(source, policy=None, **settings):
    defaults = {"batch_size": 4, "num_views": 2, "seed": 5}
    policy = policy or views.Policy(8, color_jitter_strength=0.5, blur=False)
    return pipeline.train_batches(source, "train", policy, **{**defaults, **settings})


def _take(batches, count):
    return [{name: value.numpy() for name, value in batch.items()} for batch in batches.take(count)]


def _equal(some, others):
    return len(some) == len(others) and all(
        np.array_equal(one[name], other[name])
        for one, other in zip(some, others)
        for name in ("views", "label")
    )


def test_batches_have_named_axes(source):
    batch = _take(_train(source), 1)[0]
    assert batch["views"].shape == (4, 2, 8, 8, 3) and batch["views"].dtype == np.float32
    assert batch["label"].shape == (4,) and batch["label"].dtype == np.int32
    assert batch["views"].min() >= 0 and batch["views"].max() <= 1


@pytest.mark.parametrize("cache", [False, True])
def test_the_seed_decides_everything(source, cache):
    once = _take(_train(source, cache=cache), 8)
    tf.random.set_seed(123)
    assert _equal(once, _take(_train(source, cache=cache), 8))
    assert not _equal(once, _take(_train(source, cache=cache, seed=6), 8))


@pytest.mark.parametrize("cache", [False, True])
def test_a_resume_goes_on_where_the_first_run_would_have_gone(source, cache):
    whole = _take(_train(source, cache=cache), 9)  # 36 of 13 images: nearly three epochs.
    for start in (1, 4, 7):
        rest = _take(_train(source, cache=cache, start_step=start), 9 - start)
        assert _equal(whole[start:], rest)


def test_every_epoch_shows_every_image_once_in_another_order(source):
    plain = views.Policy(
        8, crop=False, flip=False, color_jitter=False, color_drop=False, blur=False
    )
    stream = np.concatenate(
        [batch["views"][:, 0, 4, 4, 0] for batch in _take(_train(source, plain, batch_size=13), 3)]
    )
    epochs = np.round(stream * 255).astype(int).reshape(3, 13)
    for epoch in epochs:
        assert sorted(epoch) == [15 * (i + 1) for i in range(13)]
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])


def test_the_views_of_an_image_differ_and_so_do_epochs(source):
    batches = _take(_train(source, batch_size=13), 2)
    assert not np.array_equal(batches[0]["views"][:, 0], batches[0]["views"][:, 1])
    assert not np.array_equal(batches[0]["views"], batches[1]["views"])


def test_hosts_share_a_batch(source):
    whole = [batch["label"] for batch in _take(_train(source), 5)]
    shards = [
        [b["label"] for b in _take(_train(source, num_shards=2, shard=shard), 5)]
        for shard in range(2)
    ]
    for label, one, other in zip(whole, *shards):
        np.testing.assert_array_equal(label, np.stack([one, other], 1).ravel())


def test_images_of_one_size_are_cropped_by_the_batch(shared):
    source = sources.open_source("cifar10_small", data_dir=str(shared / "data" / "tfds"), seed=0)
    assert source.image_shape == (32, 32)
    whole = _take(_train(source), 3)
    assert whole[0]["views"].shape == (4, 2, 8, 8, 3)
    assert _equal(whole[2:], _take(_train(source, start_step=2), 1))


@pytest.mark.parametrize("batch_size", [1, 4, 13, 20])
def test_evaluation_counts_every_example_once(source, batch_size):
    seen, labels = [], []
    for batch in pipeline.evaluation_batches(source, "train", batch_size=batch_size, image_size=8):
        mask = batch["mask"].numpy()
        assert batch["image"].shape == (batch_size, 8, 8, 3)
        seen += list(np.round(batch["image"].numpy()[mask][:, 4, 4, 0] * 255).astype(int))
        labels += list(batch["label"].numpy()[mask])
    assert sorted(seen) == [15 * (i + 1) for i in range(13)]
    assert labels.count(0) == 6 and labels.count(1) == 7  # blue, red


def test_a_damaged_image_stops_the_stream(tmp_path):
    source = _folder(tmp_path, [10])
    buffer = io.BytesIO()
    Image.new("RGB", (10, 12)).save(buffer, "PNG")
    (tmp_path / "train" / "red" / "3.png").write_bytes(buffer.getvalue()[:40])
    with pytest.raises(tf.errors.InvalidArgumentError):
        _take(_train(source), 4)
    assert sources.first_undecodable(source, "train") == "train/red/3.png"
