"""Images kept in memory: the same batches as without, each image read and decoded once."""

import dataclasses
import types
from typing import Any

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from test_sources import FILES, TRAIN, Toy, _prepare

from simclr_tf import config as config_lib
from simclr_tf import host_memory, pixel_format
from simclr_tf.data import (
    few_labels,
    in_memory,
    other_records,
    pipeline,
    policies,
    records,
    sources,
)
from simclr_tf.runs import dataset, kept_images
from simclr_tf.training import setup

_BATCH = 16
_MIB = 2**20


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders with the same data set as TFRecord and as ArrayRecord."""
    made = {}
    for file_format in ("tfrecord", "array_record"):
        made[file_format] = str(tmp_path_factory.mktemp(file_format))
        _prepare(Toy(data_dir=made[file_format], file_format=file_format), FILES)
    return made


@pytest.fixture(scope="module")
def toy(folders):
    return sources.open_source("toy", data_dir=folders["tfrecord"], seed=0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images of several sizes and brightnesses, some of which lie on their side."""
    root = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(256, size=(40, 12, 12, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8
        suffix = ("png", "jpg")[number % 2]
        cropped = Image.fromarray(image[: 8 + number % 3])
        cropped.save(root / f"{number}.{suffix}", exif=exif)
    return sources.open_source("image_folder", data_dir=str(root), seed=0)


def _readers(folders, toy, photos):
    """Yields a data set for every kind of reader."""
    yield "TFRecord", toy
    array_record = sources.open_source("toy", data_dir=folders["array_record"], seed=0)
    yield "ArrayRecord", array_record
    builder = tfds.builder("toy", data_dir=folders["tfrecord"])
    parser = records.Parser(builder.info, image="image", label="label")
    yield "others", dataclasses.replace(toy, reader=other_records.OtherRecords(builder, parser))
    yield "folder", photos
    names = toy.example_names("train")
    yield "few labels", few_labels.hide_labels(toy, "train", names[:5])
    for split, source in {"TFRecord": toy, "folder": photos}.items():
        excluded = {"train": tuple(source.example_names("train")[3:9])}
        yield f"{split}, without some", dataclasses.replace(source, excluded=excluded)


def test_positions_have_the_order_in_which_examples_are_read(folders, toy, photos, monkeypatch):
    # With a buffer for everything, the order in which files are read would not matter.
    monkeypatch.setattr(records, "_SHUFFLE_BYTES", 1)
    monkeypatch.setattr(records, "_SHUFFLE_EXAMPLES", 7)
    for name, source in _readers(folders, toy, photos):
        seed = tf.constant([3, 4])
        stored, read = (
            [example["name"].numpy() for example in source.examples("train", order_seed=order)]
            for order in (None, seed)
        )
        positions = source.positions("train", order_seed=seed)
        assert [stored[position] for position in positions] == read != stored, name


def _batches(source, split="train", **settings):
    policy = policies.Policy(8, ("flip",) if in_memory.has_one_size(source) else ("crop",))
    return pipeline.train_batches(
        source, split, policy, batch_size=_BATCH, num_views=2, seed=5, **settings
    )


def _assert_equal(source, *, count, **settings):
    read, kept = (_batches(source, cache=cache, **settings) for cache in (False, True))
    assert read.element_spec == kept.element_spec
    taken = list(zip(read.take(count), kept.take(count), strict=True))
    assert len(taken) == count
    for one, other in taken:
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_batches_are_the_same_to_the_bit_in_every_epoch(toy):
    assert TRAIN % _BATCH  # So batches and epochs cross.
    _assert_equal(toy, count=2 * TRAIN // _BATCH + 2)


def test_each_of_several_hosts_makes_the_same_batches(toy):
    _assert_equal(toy, count=TRAIN // _BATCH + 1, num_shards=2, shard=1)


def test_views_that_the_device_makes_are_made_of_the_same_images(toy):
    _assert_equal(toy, count=TRAIN // _BATCH + 1, augment_on="device")


def test_encoded_images_of_several_sizes_make_the_same_batches(photos):
    _assert_equal(photos, count=6)


def test_batches_are_the_same_after_a_resume_with_parts_of_splits_and_images_left_out(toy):
    split = "train[10:90]+test[3:25]"
    excluded = {split: tuple(toy.example_names(split)[5:30])}
    some = dataclasses.replace(toy, excluded=excluded)
    assert some.num_examples(split) < 7 * _BATCH < 2 * some.num_examples(split)
    _assert_equal(some, count=8, split=split, start_step=7)


def test_images_are_decoded_once_for_several_epochs_and_iterators(toy, monkeypatch):
    decoded = []

    def counted(source, encoded, *, with_pillow):
        count = tf.numpy_function(lambda x: decoded.append(len(x)) or 0, [encoded], tf.int64)
        with tf.control_dependencies([count]):
            return decode_images(source, encoded, with_pillow=with_pillow)

    decode_images = in_memory.decode_images
    monkeypatch.setattr(in_memory, "decode_images", counted)
    batches = _batches(toy, cache=True)
    for _ in range(2):
        for _ in batches.take(2 * TRAIN // _BATCH):
            pass
    assert sum(decoded) == -(-TRAIN // in_memory.CHUNK) * in_memory.CHUNK


def test_the_memory_of_images_is_that_of_their_pixels_or_of_their_files(toy, photos):
    assert in_memory.num_bytes(toy, "train") == 2 * TRAIN * 2 * 2 * 3
    assert in_memory.num_bytes(photos, "train") == 2 * photos.num_bytes("train")


# --- when images are kept


def _choose(source, *, images=10 * TRAIN, **settings):
    data = dataset.Data(source, "train", "test")
    return kept_images.choose(config_lib.Config(**settings), data, images=images)


def test_small_images_of_one_size_are_kept_decoded_and_the_run_says_so(toy, monkeypatch):
    monkeypatch.setattr(host_memory, "free", lambda: 512 * _MIB)
    chosen = _choose(toy)
    assert chosen == "kept in memory decoded, at most 0.00 GiB of 0.50 GiB free"
    plan = types.SimpleNamespace(total_steps=2 * TRAIN, batch_size=1)
    data = dataset.Data(toy, "train", "test")
    architecture = types.SimpleNamespace(pixels=pixel_format.RGB)
    run = types.SimpleNamespace(config=config_lib.Config(), data=data, architecture=architecture)
    training: Any = types.SimpleNamespace(run=run, plan=plan, by_class=None)
    assert setup.make_batches(training, start=0).kept == chosen
    assert setup.make_batches(training, start=TRAIN).kept is None  # In the last epoch.


def test_images_that_take_a_tenth_of_the_free_memory_are_not_kept(toy, monkeypatch):
    needed = in_memory.num_bytes(toy, "train")
    monkeypatch.setattr(host_memory, "free", lambda: 10 * needed)
    assert _choose(toy) is None
    monkeypatch.setattr(host_memory, "free", lambda: 10 * needed + 1)
    assert _choose(toy) is not None


def test_only_cache_dataset_keeps_images_of_unknown_size_and_those_of_other_processes(toy, photos):
    assert _choose(photos) is None
    assert _choose(photos, cache_dataset=True) == "kept in memory encoded (--cache_dataset)"
    assert _choose(toy, cache_dataset=True) == "kept in memory decoded (--cache_dataset)"
    assert _choose(toy, cache_dataset=True, images=0) is None
    for settings in (
        {"data_service": "grpc://localhost:1"},
        {"use_tpu": True, "tpu_name": "a"},
        {"samples_per_class": 2},
    ):
        assert _choose(toy, **settings) is None
