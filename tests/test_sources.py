"""Tests of simclr_tf.data.sources and records: opening by name, splits, order, refusals."""

import contextlib
import dataclasses
import io
import itertools
import os
import pathlib
import socket
import threading
import types
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf import config as config_lib
from simclr_tf import errors, pixel_format
from simclr_tf.commands import check_data
from simclr_tf.data import (
    connection,
    decode,
    inspection,
    other_records,
    pipeline,
    policies,
    records,
    sources,
)
from simclr_tf.runs import dataset, diagnosis

TFDS = pathlib.Path(__file__).parents[2] / "shared" / "data" / "tfds"
TRAIN, TEST, FILES = 120, 30, 5


class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Numbered images; as its code is not registered, it opens from its files alone."""

    VERSION = tfds.core.Version("1.0.0")
    FEATURES = {  # noqa: RUF012
        "image": tfds.features.Image(shape=(2, 2, 3)),
        "label": tfds.features.ClassLabel(names=["even", "odd"]),
        "remark": tfds.features.Text(),
    }

    def _info(self):
        features = tfds.features.FeaturesDict(self.FEATURES)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._examples(TRAIN), "test": self._examples(TEST)}

    def _generate_examples(self):
        raise NotImplementedError

    def _examples(self, count):
        for i in range(count):
            image = np.full((2, 2, 3), i, np.uint8)
            values = {"image": image, "picture": image, "label": i % 2, "kind": i % 2}
            values.update(second=image, remark="")
            yield i, {key: values[key] for key in self.FEATURES}


class Unlabelled(Toy, skip_registration=True):  # type: ignore[call-arg]
    FEATURES = {"picture": tfds.features.Image()}  # noqa: RUF012


class TwoPictures(Toy, skip_registration=True):  # type: ignore[call-arg]
    FEATURES = {  # noqa: RUF012
        "picture": tfds.features.Image(),
        "second": tfds.features.Image(),
    }


class NoPicture(Toy, skip_registration=True):  # type: ignore[call-arg]
    FEATURES = {"remark": tfds.features.Text()}  # noqa: RUF012


class Refusing(tfds.core.GeneratorBasedBuilder):
    """A data set whose download fails."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({}))

    def _split_generators(self, dl_manager):
        raise ConnectionError("the network\n is down.")

    def _generate_examples(self):
        raise NotImplementedError


def _prepare(builder, files=1):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=files))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tfds"))
    _prepare(Toy(data_dir=folder), FILES)
    for builder in (Unlabelled, TwoPictures, NoPicture):
        _prepare(builder(data_dir=folder))
    return folder


@pytest.fixture(scope="module")
def toy(data_dir):
    return sources.open_source("toy", data_dir=data_dir, seed=0)


def _numbers(dataset):
    """Returns the number that each image shows."""
    images = dataset.map(lambda example: decode.decode_image(example["image"])[0, 0, 0])
    return [int(number) for number in images.as_numpy_iterator()]


def test_a_data_set_without_code_opens_from_its_files(toy):
    assert toy.name == "toy"
    assert toy.class_names == ("even", "odd")
    assert dict(toy.splits) == {"train": TRAIN, "test": TEST}
    assert toy.image_shape == (2, 2)
    assert toy.notes == ()


def test_examples_have_the_promised_types(toy):
    spec = toy.examples("train", order_seed=tf.constant([0, 0])).element_spec
    assert spec == toy.examples("train").element_spec
    assert spec == {
        "image": tf.TensorSpec((), tf.string),
        "label": tf.TensorSpec((), tf.int64),
        "name": tf.TensorSpec((), tf.string),
    }


def test_the_stored_order_is_that_of_tensorflow_datasets(toy, data_dir):
    config = tfds.ReadConfig(interleave_cycle_length=1)
    want = tfds.builder("toy", data_dir=data_dir).as_dataset("train+test[:7]", read_config=config)
    examples = toy.examples("train+test[:7]")
    assert _numbers(examples) == [int(e["image"][0, 0, 0]) for e in want]
    assert [int(e["label"]) for e in examples] == [int(e["label"]) for e in want]


def test_names_give_the_file_and_the_record_in_it(toy, data_dir):
    split = "train[50:90]"
    for index, example in enumerate(toy.examples(split).as_numpy_iterator()):
        name = example["name"].decode()
        assert toy.reader.example_name(toy.slices(split), index) == name
        file, index_in_file = name.rstrip("]").split("[")
        path = os.path.join(data_dir, "toy", "1.0.0", file)
        record = next(tf.data.TFRecordDataset(path).skip(int(index_in_file)).as_numpy_iterator())
        assert example["image"] in record
    assert index == 39


@pytest.mark.parametrize(
    ("split", "count"),
    [
        ("train", 120),
        ("train[:10%]", 12),
        ("train[100:]", 20),
        ("train[-5:]+test", 35),
        ("train[1shard]", 24),
        ("all", 150),
        ("train[:50%]+train[50%:]", 120),
    ],
)
def test_a_pass_visits_every_example_of_a_split_once(toy, split, count):
    assert toy.num_examples(split) == count
    stored = [e["name"] for e in toy.examples(split).as_numpy_iterator()]
    shuffled = [
        e["name"] for e in toy.examples(split, order_seed=tf.constant([3, 4])).as_numpy_iterator()
    ]
    assert len(set(stored)) == count
    assert stored != shuffled
    assert sorted(stored) == sorted(shuffled)


def test_the_order_is_a_function_of_both_numbers_of_the_seed(toy):
    seeds = [(0, 0), (0, 1), (1, 0), (0, 0)]
    orders = [_numbers(toy.examples("train", order_seed=tf.constant(seed))) for seed in seeds]
    assert orders[0] == orders[3]
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("global_seed", [0, 1, None])
def test_the_order_ignores_the_global_seed_and_leaves_it_alone(toy, global_seed):
    try:
        want = _numbers(toy.examples("train", order_seed=tf.constant([5, 6])))
        tf.random.set_seed(global_seed)
        state = tf.random.uniform(()) if global_seed is not None else None
        tf.random.set_seed(global_seed)
        assert _numbers(toy.examples("train", order_seed=tf.constant([5, 6]))) == want
        if state is not None:
            assert tf.random.uniform(()) == state
    finally:
        tf.random.set_seed(None)


def test_the_order_is_the_same_at_any_parallelism(toy):
    dataset = toy.examples("train", order_seed=tf.constant([5, 6]))
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.deterministic = False  # what a caller may ask of the rest of its pipeline
    assert _numbers(dataset) == _numbers(dataset.with_options(options))


def test_a_small_data_set_is_shuffled_across_all_of_its_files(toy):
    order = [
        e["name"].decode()
        for e in toy.examples("train", order_seed=tf.constant([1, 1])).as_numpy_iterator()
    ]
    first = {name.split("[")[0] for name in order[:20]}
    assert len(first) == FILES
    places = [int(name.rstrip("]").split("[")[1]) for name in order]
    assert abs(np.corrcoef(np.arange(TRAIN), places)[0, 1]) < 0.3


def test_record_files_are_read_in_an_order_of_the_seed(toy, monkeypatch):
    # With a buffer of one example, the order is that in which the files are opened.
    monkeypatch.setattr(records, "_SHUFFLE_BYTES", 1)
    monkeypatch.setattr(records, "_SHUFFLE_EXAMPLES", 1)

    def files_of(seed):
        examples = toy.examples("train", order_seed=tf.constant([3, seed])).take(FILES)
        return tuple(e["name"].decode().split("[")[0] for e in examples.as_numpy_iterator())

    orders = [files_of(seed) for seed in range(6)]
    assert {frozenset(order) for order in orders} == {frozenset(sorted(orders[0]))}
    assert len(set(orders[0])) == FILES
    assert len(set(orders)) >= 5
    assert sum(order == tuple(sorted(order)) for order in orders) <= 1


@pytest.mark.parametrize("cache", [False, True])
def test_training_reads_records_in_another_order_in_every_epoch(toy, cache):
    policy = policies.Policy(2, ops=())
    batches = pipeline.train_batches(
        toy, "train", policy, batch_size=TRAIN, num_views=1, seed=5, cache=cache
    )
    stored = _numbers(toy.examples("train"))
    epochs = [np.round(batch["views"][:, 0, 0, 0, 0] * 255) for batch in batches.take(3)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(stored)
    for one, other in itertools.combinations([np.array(stored), *epochs], 2):
        assert np.mean(one == other) < 0.1


def test_epochs_stream_through_flat_map_each_in_its_own_order(toy):
    def epoch(e):
        return toy.examples("train", order_seed=tf.stack([7, tf.cast(e, tf.int32)]))

    numbers = _numbers(tf.data.Dataset.range(3).flat_map(epoch))
    epochs = [numbers[i * TRAIN : (i + 1) * TRAIN] for i in range(3)]
    assert all(sorted(epoch) == list(range(TRAIN)) for epoch in epochs)
    assert epochs[1] == _numbers(toy.examples("train", order_seed=tf.constant([7, 1])))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_shuffle_buffer_fills_256_mib_and_no_less_than_1024_examples(toy):
    class Split:
        num_examples, num_bytes = 1_000_000, 100_000_000_000

    reader = object.__new__(records.Records)
    reader.split_infos = {"train": Split}
    slices = [("train", 0, 1_000_000)]
    assert reader.shuffle_buffer(slices) == 256 * 2**20 // 100_000
    Split.num_bytes = 10**13
    assert reader.shuffle_buffer(slices) == 1024
    Split.num_bytes = 0
    assert reader.shuffle_buffer(slices) == 256 * 2**20 // 102_400
    assert toy.reader.shuffle_buffer([("train", 0, 50)]) == 50


def test_formats_that_only_tensorflow_datasets_reads_give_the_same_examples(toy, data_dir):
    stored = _numbers(toy.examples("train"))
    builder = tfds.builder("toy", data_dir=data_dir)
    parser = records.Parser(builder.info, image="image", label="label")
    toy = dataclasses.replace(toy, reader=other_records.OtherRecords(builder, parser))
    assert _numbers(toy.examples("train")) == stored
    for split in ("train", "train[13:44]+test"):
        names = [example["name"].numpy().decode() for example in toy.examples(split)]
        assert names == list(toy.example_names(split)) and len(names) == toy.num_examples(split)
    kept = dataclasses.replace(toy, excluded={"train": names[2:4]})
    assert len(_numbers(kept.examples("train"))) == len(stored) - 2
    shuffled = _numbers(toy.examples("train", order_seed=tf.constant([1, 2])))
    assert shuffled != stored
    assert sorted(shuffled) == sorted(stored)
    epochs = tf.data.Dataset.range(2).flat_map(
        lambda e: toy.examples("train[:9]", order_seed=tf.stack([e, e]))
    )
    assert sorted(_numbers(epochs)) == sorted(2 * stored[:9])


def test_without_a_class_label_a_data_set_is_unlabelled_and_says_so(data_dir):
    source = sources.open_source("unlabelled", data_dir=data_dir, seed=0)
    assert source.class_names is None
    assert source.image_shape == (None, None)
    assert source.notes == (
        "The data set 'unlabelled' has no class label, so it is used unlabelled.",
    )
    assert {int(e["label"]) for e in source.examples("test")} == {-1}
    assert sorted(_numbers(source.examples("test"))) == list(range(TEST))


@pytest.mark.parametrize(
    ("dataset", "found"), [("two_pictures", r"2 \(picture, second\)"), ("no_picture", "none")]
)
def test_a_data_set_without_the_one_image_is_refused(data_dir, dataset, found):
    with pytest.raises(errors.UserError, match=f"{dataset}' must have one image .* has {found};"):
        sources.open_source(dataset, data_dir=data_dir, seed=0)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("tran", r"'toy' has no split 'tran' \(did you mean train\?\); it has train \(120\), test"),
        ("train+validation", r"has no split 'validation'; it has train \(120\), test \(30\)\.$"),
        (
            "train[:10",
            r"'train\[:10' of 'toy', which .* cannot be read .*; write it like train",
        ),
        ("train[:200]", "cannot be read .*200.* incompatible with 120 examples"),
        ("train[:110%]", "cannot be read"),
        ("train[5:5]", r"selects no examples, .* has train \(120\), test \(30\); select more"),
        ("train[80%:20%]", "selects no examples"),
        ("", "has no split ''"),
    ],
)
def test_a_wrong_split_is_refused_in_one_sentence(toy, split, message):
    for use in (toy.num_examples, toy.examples):
        with pytest.raises(errors.UserError, match=message) as raised:
            use(split)
        assert "\n" not in str(raised.value)


def _refusal(dataset, data_dir):
    with pytest.raises(errors.UserError) as raised:
        sources.open_source(dataset, data_dir=str(data_dir), seed=0)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_an_unknown_data_set_is_refused_with_similar_names(data_dir, tmp_path):
    assert "(did you mean cifar10" in _refusal("cifar1", tmp_path)
    assert "(did you mean digits" in _refusal("digit", tmp_path)
    assert "(did you mean image_folder" in _refusal("imagefolder", tmp_path)
    assert "(did you mean toy" in _refusal("toys", data_dir)
    assert "dataset='/my/photos' is unknown" in _refusal("/my/photos", tmp_path)
    message = _refusal("toy", tmp_path / "nothing")
    assert "nothing' is not a readable folder" in message
    assert "; check the name and the data directory, or use image_folder" in message


def test_a_wrong_version_is_refused_with_those_there_are(tmp_path):
    message = _refusal("cifar10:9.9.9", tmp_path)
    assert "cannot be opened (Dataset cifar10 cannot be loaded at version 9.9.9, only:" in message


def test_a_failing_download_is_refused_with_reason_and_remedy(tmp_path, capfd):
    message = _refusal("refusing", tmp_path)
    assert (
        "preparing it failed (the network is down); fix that, or choose a data directory" in message
    )
    message = _refusal("imagenet2012", tmp_path)
    assert "manual does not exist or is empty" in message
    assert "ILSVRC2012_img_train.tar" in message


def _without_network(monkeypatch, tried):
    """Lets no name of a server be looked up, and no download be tried."""

    def connect(address, timeout):
        tried.append(address)
        raise socket.gaierror(-2, "Name or service not known")

    def prepare(self):
        raise ConnectionError("downloading")

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", prepare)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_without_network_a_download_is_refused_before_it_is_tried(tmp_path, monkeypatch):
    tried = []
    _without_network(monkeypatch, tried)
    message = _refusal("mnist", tmp_path)
    assert tried == [("storage.googleapis.com", 443)]
    assert (
        "cannot be downloaded, because storage.googleapis.com cannot be reached (Name or service "
        "not known); connect this machine to the network, or copy the prepared data set"
    ) in message
    assert not list(tmp_path.iterdir())


def test_the_proxy_is_tried_in_place_of_the_server(tmp_path, monkeypatch):
    tried = []
    _without_network(monkeypatch, tried)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert "because proxy.example cannot be reached" in _refusal("mnist", tmp_path)
    assert tried == [("proxy.example", 3128)]
    monkeypatch.setenv("no_proxy", "storage.googleapis.com")
    assert "because storage.googleapis.com cannot be reached" in _refusal("mnist", tmp_path)


def test_a_download_is_tried_if_a_server_can_be_reached(tmp_path, monkeypatch):
    _without_network(monkeypatch, [])
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: socket.socket())
    assert "preparing it failed (downloading)" in _refusal("mnist", tmp_path)


def test_a_server_that_does_not_answer_is_not_waited_for(monkeypatch):
    end = threading.Event()

    def connect(address, timeout):
        end.wait(9)
        raise TimeoutError

    monkeypatch.setattr(connection, "_TIMEOUT", 0.05)
    monkeypatch.setattr(socket, "create_connection", connect)
    reason = connection.why_unreachable(["http://a.example/x"])
    end.set()
    assert reason == "a.example does not answer within 0 s"


def test_no_server_is_tried_for_files_that_are_there_or_that_the_user_downloads(
    tmp_path, monkeypatch
):
    tried = []
    _without_network(monkeypatch, tried)
    assert "preparing it failed" in _refusal("imagenet2012", tmp_path)
    (tmp_path / "downloads" / "manual").mkdir(parents=True)
    (tmp_path / "downloads" / "manual" / "t10k-images-idx3-ubyte.gz").write_bytes(b"")
    assert "preparing it failed (downloading)" in _refusal("mnist", tmp_path)
    assert tried == []


def test_a_data_dir_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    message = _refusal("digits", tmp_path / "file")
    assert "'digits' is not prepared in" in message
    assert "or that can be written" in message


def test_a_half_copied_data_set_is_refused(tmp_path):
    builder = Toy(data_dir=str(tmp_path))
    _prepare(builder, 3)
    lost = builder.data_path / "toy-train.tfrecord-00001-of-00003"
    lost.unlink()
    assert f"lacks 1 of its 6 files (such as {lost.name})" in _refusal("toy", tmp_path)
    (builder.data_path / "dataset_info.json").unlink()


def test_an_unfinished_data_set_is_refused(tmp_path):
    (tmp_path / "digits" / "1.0.0").mkdir(parents=True)
    assert "is incomplete; delete the folder" in _refusal("digits", tmp_path)


def test_the_name_of_a_corrupt_record_is_found(tmp_path):
    builder = Toy(data_dir=str(tmp_path))
    _prepare(builder)
    source = sources.open_source("toy", data_dir=str(tmp_path), seed=0)
    assert inspection.first_unreadable(source, "train") is None
    path = str(builder.data_path / "toy-train.tfrecord-00000-of-00001")
    stored = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
    with tf.io.TFRecordWriter(path) as writer:
        for i, record in enumerate(stored):
            writer.write(record.replace(b"IDAT", b"XXXX") if i in (41, 60) else record)
    want = "toy-train.tfrecord-00000-of-00001[41]"
    assert inspection.first_unreadable(source, "train").name == want
    assert inspection.first_unreadable(source, "train[40:]").name == want
    assert inspection.first_unreadable(source, "train[:41]") is None


def test_a_record_with_a_wrong_checksum_is_named_with_the_remedy(tmp_path):
    builder = Toy(data_dir=str(tmp_path))
    _prepare(builder)
    source = sources.open_source("toy", data_dir=str(tmp_path), seed=0)
    path = builder.data_path / "toy-train.tfrecord-00000-of-00001"
    stored = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    content = bytearray(path.read_bytes())
    content[content.index(stored[41]) + 5] ^= 0xFF
    path.write_bytes(content)
    want = r"00000-of-00001\[41\] of the split 'train' .* copy that file again"
    with pytest.raises(errors.UserError, match=want):
        list(inspection.inspect(source, "train"))
    with pytest.raises(tf.errors.DataLossError) as lost:
        list(source.examples("train"))
    run: Any = types.SimpleNamespace(
        data=dataset.Data(source, "train", "test"),
        config=config_lib.Config(),
        architecture=types.SimpleNamespace(pixels=pixel_format.RGB),
    )
    with pytest.raises(errors.UserError, match=want):
        diagnosis.find_unreadable_image(run, lost.value)


def test_check_data_reads_the_other_splits_if_a_record_cannot_be_read(tmp_path, capsys):
    builder = Toy(data_dir=str(tmp_path))
    _prepare(builder)
    path = builder.data_path / "toy-train.tfrecord-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-100])
    config = config_lib.Config(mode="check_data", dataset="toy", data_dir=str(tmp_path))
    with pytest.raises(
        errors.UserError, match=r"toy-train.*of the split 'train' of 'toy' cannot be"
    ):
        check_data.check_data(config)
    assert "images of test 30/30  0 unreadable" in capsys.readouterr().out


@pytest.mark.skipif(not TFDS.exists(), reason="the shared data sets are not here")
def test_cifar10_small_has_the_pixels_that_tensorflow_datasets_reads():
    source = sources.open_source("cifar10_small", data_dir=str(TFDS), seed=0)
    assert dict(source.splits) == {"train": 10_000, "test": 2_000}
    assert source.image_shape == (32, 32)
    want_names = (TFDS / "cifar10_small/1.0.0/label.labels.txt").read_text().split()
    assert source.class_names == tuple(want_names)
    builder = tfds.builder("cifar10_small", data_dir=str(TFDS))
    want = builder.as_dataset("test", as_supervised=True, batch_size=2_000)
    images, labels = next(want.as_numpy_iterator())
    got = source.examples("test").map(lambda e: (decode.decode_image(e["image"]), e["label"]))
    got_images, got_labels = next(got.batch(2_000).as_numpy_iterator())
    np.testing.assert_array_equal(got_images, images)
    np.testing.assert_array_equal(got_labels, labels)
