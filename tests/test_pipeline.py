"""Batches: a function of the seed, the same after a resume and on any number of hosts."""

import dataclasses
import functools
import io
import itertools

import numpy as np
from PIL import Image
import psutil
import pytest
import tensorflow as tf

from simclr_tf.data import (
    crops,
    evaluation_images,
    in_memory,
    inspection,
    pipeline,
    policies,
    random,
    sources,
)

EXHAUSTIVE = functools.partial(pytest.param, marks=pytest.mark.exhaustive)
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
    policy = policy or policies.Policy(8, ("crop", "flip", "noise"))
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


@pytest.mark.parametrize("cache", [EXHAUSTIVE(False), True])
def test_the_seed_decides_everything(source, cache):
    once = _take(_train(source, cache=cache), 8)
    tf.random.set_seed(123)
    assert _equal(once, _take(_train(source, cache=cache), 8))
    assert not _equal(once, _take(_train(source, cache=cache, seed=6), 8))


@pytest.mark.parametrize("cache", [EXHAUSTIVE(False), True])
def test_a_resumed_stream_is_that_of_a_run_without_interruption(source, cache):
    whole = _take(_train(source, cache=cache), 9)  # 36 of 13 images: nearly three epochs.
    for start in (1, 7):
        rest = _take(_train(source, cache=cache, start_step=start), 9 - start)
        assert _equal(whole[start:], rest)


def test_every_epoch_shows_every_image_once_in_another_order(source):
    plain = policies.Policy(8, ops=())
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


def _ramps(root, sides):
    """Makes a folder of 13 pictures: red grows to the right, green grows downwards."""
    for number in range(13):
        side = sides[number % len(sides)]
        y, x = np.mgrid[:side, :side] * 255 / (side - 1)
        pixels = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    source = sources.open_source("image_folder", data_dir=str(root), seed=0)
    known = (sides[0], sides[0]) if len(sides) == 1 else (None, None)
    return dataclasses.replace(source, image_shape=known)


@pytest.mark.parametrize("augment_on", ["host", "device"])
@pytest.mark.parametrize("sides", [[40], [40, 52]], ids=["of one size", "of many"])
def test_each_view_of_an_image_is_a_crop_of_its_own(tmp_path, sides, augment_on):
    policy = policies.Policy(8, ops=("crop",), crop_area=(0.1, 0.3))
    source = _ramps(tmp_path, sides)
    batches = _take(_train(source, policy, batch_size=13, augment_on=augment_on), 2)
    if augment_on == "device":
        batches = [_on_device(batch, policy, 13) for batch in batches]
    # The mean colour of a view is where the middle of its crop lies, from 0 to 1.
    centres = np.stack([np.mean(batch["views"], axis=(2, 3))[..., :2] for batch in batches])
    every = centres.reshape(-1, 2)  # (2 steps * 13 images * 2 views, 2)
    distance = np.abs(every[:, None] - every).max(-1)
    assert distance[~np.eye(len(every), dtype=bool)].min() > 1e-4
    between_views = np.abs(np.diff(centres, axis=2))
    assert np.median(between_views) > 0.1


# Each operation with the side at which it does something.
_STEPWISE = {"crop": 8, "flip": 8, "color_jitter": 8, "color_drop": 8, "blur": 20}


@pytest.mark.parametrize("op", _STEPWISE)
@pytest.mark.parametrize("sides", [[24], [24, 25]], ids=["of one size", "of many"])
def test_each_operation_draws_something_else_at_every_step(tmp_path, sides, op):
    # All pictures are the same, so what differs between two batches is what they drew.
    source = _ramps(tmp_path, [24])
    if len(sides) > 1:
        source = dataclasses.replace(source, image_shape=(None, None))
    policy = policies.Policy(_STEPWISE[op], ops=(op,))
    batches = [batch["views"] for batch in _take(_train(source, policy, batch_size=13), 3)]
    for one, other in itertools.combinations(batches, 2):
        assert np.abs(one - other).max() > 0.01
    changed = len(np.unique(np.round(batches[0], 3).reshape(26, -1), axis=0))
    assert changed > 1  # Within a step images differ, too.


@pytest.mark.parametrize("sides", [[10, 12], EXHAUSTIVE([10])], ids=["many sizes", "one size"])
def test_hosts_make_the_rows_of_the_batch_of_one_host(tmp_path, sides):
    source = _folder(tmp_path, sides)
    if len(sides) == 1:
        source = dataclasses.replace(source, image_shape=(12, 10))
    whole = _take(_train(source), 5)
    hosts = [_take(_train(source, num_shards=2, shard=shard), 5) for shard in range(2)]
    for batch, *rows in zip(whole, *hosts):
        for name in ("views", "label"):
            joined = np.concatenate([of_host[name] for of_host in rows])
            np.testing.assert_allclose(batch[name], joined, atol=1e-6)


@pytest.mark.parametrize("batch_size", [4, 6, 26])
def test_hosts_make_equally_many_batches_to_evaluate_which_are_those_of_one_host(
    source, batch_size
):
    settings = {"batch_size": batch_size, "image_size": 8}
    whole = list(evaluation_images.batches(source, "train", **settings))
    hosts = [
        list(evaluation_images.batches(source, "train", **settings, num_shards=2, shard=shard))
        for shard in range(2)
    ]
    assert len(whole) == len(hosts[0]) == len(hosts[1])
    for batch, *rows in zip(whole, *hosts):
        mask = np.concatenate([of_host["mask"] for of_host in rows])
        np.testing.assert_array_equal(batch["mask"], mask)
        for name in ("image", "label", "position"):
            joined = np.concatenate([of_host[name] for of_host in rows])
            np.testing.assert_array_equal(batch[name].numpy()[mask], joined[mask])


def test_images_of_one_size_are_cropped_by_the_batch(tmp_path, monkeypatch):
    source = dataclasses.replace(_folder(tmp_path, [10]), image_shape=(12, 10))

    def one_by_one(*_, **__):
        raise AssertionError("an image is cropped alone")

    monkeypatch.setattr(crops, "crop_encoded", one_by_one)
    whole = _take(_train(source), 3)
    assert whole[0]["views"].shape == (4, 2, 8, 8, 3)
    assert _equal(whole[2:], _take(_train(source, start_step=2), 1))


@pytest.mark.parametrize("batch_size", [1, 4, 13, 20])
def test_evaluation_counts_every_example_once(source, batch_size):
    seen, labels = [], []
    for batch in evaluation_images.batches(source, "train", batch_size=batch_size, image_size=8):
        mask = batch["mask"].numpy()
        assert batch["image"].shape == (batch_size, 8, 8, 3)
        seen += list(np.round(batch["image"].numpy()[mask][:, 4, 4, 0] * 255).astype(int))
        labels += list(batch["label"].numpy()[mask])
    assert sorted(seen) == [15 * (i + 1) for i in range(13)]
    assert labels.count(0) == 6 and labels.count(1) == 7  # blue, red


@pytest.mark.parametrize("image_size", [8, 10])
def test_small_pngs_are_decoded_many_at_a_time_and_are_the_same(tmp_path, monkeypatch, image_size):
    source, calls = _folder(tmp_path, [10]), []
    pngs = dataclasses.replace(source, image_shape=(12, 10), kind="png")
    settings = {"batch_size": 6, "image_size": image_size, "with_content": True}
    want = list(evaluation_images.batches(source, "train", **settings))
    decode_chunk = in_memory.decode_chunk
    monkeypatch.setattr(in_memory, "CHUNK", 4)
    monkeypatch.setattr(
        in_memory, "decode_chunk", lambda *given: calls.append(1) or decode_chunk(*given)
    )
    found = list(evaluation_images.batches(pngs, "train", **settings))
    assert calls and len(found) == len(want)
    for one, other in zip(found, want):
        assert one.keys() == other.keys()
        for name, rows in one.items():
            np.testing.assert_array_equal(rows, other[name])
    calls.clear()
    list(evaluation_images.batches(source, "train", **settings))
    monkeypatch.setattr(evaluation_images, "_SMALL", 11)
    list(evaluation_images.batches(pngs, "train", **settings))
    assert not calls


def test_an_unreadable_image_stops_the_stream(tmp_path):
    source = _folder(tmp_path, [10])
    buffer = io.BytesIO()
    Image.new("RGB", (10, 12)).save(buffer, "PNG")
    (tmp_path / "train" / "red" / "3.png").write_bytes(buffer.getvalue()[:40])
    with pytest.raises(tf.errors.InvalidArgumentError):
        _take(_train(source), 4)
    found = inspection.first_unreadable(source, "train")
    assert (found.name, found.unreadable) == ("train/red/3.png", "is corrupt or truncated")


# --- on host and device


def _on_device(batch, policy, total):
    return pipeline.views_of_batch(batch, policy, num_views=2, total=total)


@pytest.mark.parametrize(("sides", "replicas"), [([10, 12], 2), EXHAUSTIVE([10], 4)])
def test_views_made_on_the_device_are_those_made_on_the_host(tmp_path, sides, replicas):
    source = _folder(tmp_path, sides)
    if len(sides) == 1:  # As a data set whose images are known to have one size.
        source = dataclasses.replace(source, image_shape=(12, 10))
    policy = policies.Policy(8, ("crop", "flip", "color_drop", "noise"))
    whole = _take(_train(source, policy), 3)
    stream = _train(source, policy, augment_on="device").rebatch(4 // replicas)
    made = [
        {name: value.numpy() for name, value in _on_device(batch, policy, 4).items()}
        for batch in stream.take(3 * replicas)
    ]
    for name in ("views", "label"):
        got = np.concatenate([batch[name] for batch in made])
        np.testing.assert_allclose(got, np.concatenate([b[name] for b in whole]), atol=1e-6)


def test_batches_for_the_device_hold_pixels_not_views(tmp_path):
    source = dataclasses.replace(_folder(tmp_path, [10]), image_shape=(12, 10))
    batch = next(iter(_train(source, augment_on="device")))
    assert {name: (x.dtype, tuple(x.shape)) for name, x in batch.items()} == {
        "image": (tf.uint8, (4, 12, 10, 3)),
        "label": (tf.int32, (4,)),
        "seed": (tf.int32, (4, 2)),
        "index": (tf.int32, (4,)),
    }


def test_iterators_can_be_deleted_at_once(source):
    # TensorFlow waits, for up to a minute, for the thread that tunes an iterator.
    evaluation = evaluation_images.batches(source, "train", batch_size=4, image_size=8)
    for batches in (_train(source), _train(source, cache=True), evaluation):
        assert batches.options().autotune.enabled is False


def test_order_and_pixels_do_not_depend_on_threads(source):
    once = _take(_train(source), 6)
    for threads in (1, 7):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        options.autotune.enabled = False
        assert _equal(once, _take(_train(source).with_options(options), 6))


# --- caches


def test_a_cached_epoch_shows_every_image_once(tmp_path):
    source = dataclasses.replace(_folder(tmp_path, [10]), image_shape=(12, 10))
    plain = policies.Policy(8, ops=())
    for _, batch in zip(range(3), _train(source, plain, batch_size=13, cache=True)):
        levels = np.round(batch["views"].numpy()[:, 0, 4, 4, 0] * 255).astype(int)
        assert sorted(levels) == [15 * (i + 1) for i in range(13)]


# --- excluded images


def test_excluded_images_are_in_no_epoch(source):
    excluded = ("train/red/0.png", "train/blue/5.png")
    less = dataclasses.replace(source, excluded={"train": excluded})
    assert less.num_examples("train") == 11
    names = [example["name"].numpy().decode() for example in less.examples("train")]
    assert len(names) == 11 and not set(names) & set(excluded)
    plain = policies.Policy(8, ops=())
    for batch in _take(_train(less, plain, batch_size=11), 2):
        assert len(np.unique(batch["views"][:, 0, 4, 4, 0])) == 11
    assert _equal(_take(_train(less), 6)[4:], _take(_train(less, start_step=4), 2))


# --- AutoGraph


def test_no_function_of_the_pipeline_is_converted_by_autograph(source, monkeypatch):
    statuses = []

    def recorded(function):
        def record(*arguments):
            statuses.append(tf.__internal__.autograph.control_status_ctx().status.name)
            return function(*arguments)

        return record

    monkeypatch.setattr(random, "derive_seed", recorded(random.derive_seed))
    monkeypatch.setattr(tf.io, "read_file", recorded(tf.io.read_file))
    for make in (
        lambda: _train(source),
        lambda: evaluation_images.batches(source, "train", batch_size=4, image_size=8),
        lambda: source.examples("train"),
    ):
        statuses.clear()
        make()
        assert set(statuses) == {"DISABLED"}


# --- memory


def test_memory_stays_flat_over_200_batches(tmp_path):
    source = _folder(tmp_path, [96, 120])
    process, seen = psutil.Process(), []
    policy = policies.Policy(64)
    for number, _ in enumerate(_train(source, policy, batch_size=8).take(200)):
        if number >= 50:
            seen.append(process.memory_info().rss / 2**20)
    # A leak of the views alone would be 0.8 MiB a batch, 117 in all.
    assert max(seen) - seen[0] < 40


# --- chunks


@pytest.mark.parametrize(
    ("sides", "num_shards"),
    [EXHAUSTIVE([10], 1), ([10, 12], 2)],
    ids=["one size", "many sizes"],
)
def test_batches_made_in_chunks_are_those_made_at_once(tmp_path, monkeypatch, sides, num_shards):
    # Up to 4 images at once, of batches of 12 that begin in the middle of epochs of 13.
    source = _folder(tmp_path, sides)
    if len(sides) == 1:
        source = dataclasses.replace(source, image_shape=(12, 10))
    settings = {"batch_size": 12, "num_shards": num_shards, "shard": num_shards - 1}
    at_once = _take(_train(source, **settings), 3)
    whole = _take(_train(source, augment_on="device", **settings), 1)
    monkeypatch.setattr(pipeline, "_MAX_CHUNK", 4)
    chunked = _take(_train(source, **settings), 3)
    for one, other in zip(at_once, chunked):
        np.testing.assert_array_equal(one["label"], other["label"])
        np.testing.assert_allclose(one["views"], other["views"], atol=1e-6)
    for_device = _take(_train(source, augment_on="device", **settings), 1)
    rows = np.arange(12).reshape(num_shards, -1)[-1]
    np.testing.assert_array_equal(for_device[0]["index"], rows)
    np.testing.assert_array_equal(for_device[0]["seed"], whole[0]["seed"])


def test_a_served_batch_is_one_chunk_wherever_it_begins():
    host = pipeline._Host(seed=1, batch_size=600, num_shards=1, shard=0, served=True)
    assert host.chunk_size == 600
    draws = host.draws(tf.constant(7, tf.int64))  # A worker's stream begins anywhere.
    np.testing.assert_array_equal(draws["index"], np.arange(600))
