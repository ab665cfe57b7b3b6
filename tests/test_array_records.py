"""Data sets that tensorflow-datasets has prepared as ArrayRecord: the same examples as TFRecord."""

from __future__ import annotations

import importlib.util
import types
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from test_sources import Toy, _prepare, _refusal
import tiny_runs

from simclr_tf import config, pixel_format
from simclr_tf.data import balanced, inspection, labels, pipeline, policies, sources
from simclr_tf.runs import dataset, diagnosis

FILES = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Folders with the same data set in both formats."""
    folders = {}
    for file_format in ("tfrecord", "array_record"):
        folders[file_format] = str(tmp_path_factory.mktemp(file_format))
        _prepare(Toy(data_dir=folders[file_format], file_format=file_format), FILES)
    return folders


@pytest.fixture(scope="module")
def toys(folders) -> dict[str, sources.Source]:
    return {
        name: sources.open_source("toy", data_dir=folder, seed=0)
        for name, folder in folders.items()
    }


@pytest.fixture(scope="module")
def toy(toys) -> sources.Source:
    return toys["array_record"]


@pytest.mark.parametrize("split", ["train", "test", "train[50:90]", "test[-3:]+train[:10%]", "all"])
def test_the_examples_of_a_split_are_those_of_tfrecord_in_the_same_order(toys, split):
    want, got = (list(toys[name].examples(split)) for name in ("tfrecord", "array_record"))
    assert len(got) == toys["array_record"].num_examples(split) == len(want)
    for one, other in zip(got, want):
        assert one["image"] == other["image"]
        assert one["label"] == other["label"]
        assert one["name"] == tf.strings.regex_replace(other["name"], "tfrecord", "array_record")
    assert toys["array_record"].example_name(split, 5) == got[5]["name"].numpy().decode()
    assert toys["array_record"].num_bytes(split) > 0


def test_the_order_is_a_permutation_of_all_files_set_by_the_seed(toy):
    def numbers(order_seed):
        names = toy.examples("train", order_seed=order_seed).map(lambda example: example["name"])
        return [stored.index(name) for name in names.as_numpy_iterator()]

    stored = [example["name"].numpy() for example in toy.examples("train")]
    orders = [numbers(tf.constant([3, i])) for i in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == list(range(len(stored)))
    assert abs(np.corrcoef(np.arange(len(stored)), orders[0])[0, 1]) < 0.3


def test_a_resumed_run_sees_the_batches_of_one_that_was_not_interrupted(toy):
    def batches(start, count):
        stream = pipeline.train_batches(
            toy,
            "train[:20]",
            policies.Policy(2, ops=()),
            batch_size=8,
            num_views=1,
            seed=5,
            start_step=start,
        )
        return [batch["views"].numpy() for batch in stream.take(count)]

    np.testing.assert_array_equal(batches(0, 6)[4:], batches(4, 2))


def test_excluded_images_are_not_read(toy):
    name = toy.example_name("train", 41)
    rest = toy.reader.examples(toy.slices("train"), excluded=[name])
    names = {example["name"].numpy().decode() for example in rest}
    assert len(names) == toy.num_examples("train") - 1
    assert name not in names


def test_balanced_batches_read_the_images_that_they_need(toy):
    assert balanced.needed_bytes(toy, "train") == 0
    images = balanced.open_by_class(toy, "train")
    batch = balanced.batch_of(
        images, tf.constant([0, 1]), batch_size=8, samples_per_class=4
    ).numpy()
    drawn = [images.read(tf.constant(index)) for index in batch]
    assert sorted(int(example["label"]) for example in drawn) == [0] * 4 + [1] * 4
    assert len({example["name"].numpy() for example in drawn}) == 8


def test_a_split_is_labelled_if_its_first_example_is(toy):
    assert labels.is_labelled(toy, "test")
    assert labels.missing_classes(toy, "test[:1]") is None  # It would take reading all images.


def test_a_damaged_file_is_named_with_the_remedy(tmp_path):
    builder = Toy(data_dir=str(tmp_path), file_format="array_record")
    _prepare(builder, FILES)
    path = builder.data_path / "toy-train.array_record-00001-of-00003"
    path.write_bytes(path.read_bytes()[:-100])
    source = sources.open_source("toy", data_dir=str(tmp_path), seed=0)
    with pytest.raises(tf.errors.OpError) as lost:
        list(source.examples("train"))
    found = inspection.first_unreadable(source, "train")
    assert found is not None
    assert found.name == f"{path.name}[0]"
    run_: Any = types.SimpleNamespace(
        data=dataset.Data(source, "train", "test"),
        config=config.Config(),
        architecture=types.SimpleNamespace(pixels=pixel_format.RGB),
    )
    error = diagnosis.find_unreadable_image(run_, lost.value)
    assert f"The image {path.name}[0] of 'train' cannot be read (Corrupted" in str(error)
    assert "; repair or remove it" in str(error)


def test_without_the_package_that_reads_it_a_data_set_is_refused(folders, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = _refusal("toy", folders["array_record"])
    assert "which the package array_record reads, and that is not installed; install it" in message


def test_a_data_service_which_cannot_read_it_is_refused(folders, tmp_path, capsys):
    flags = {"dataset": "toy", "data_service": "grpc://localhost:1"}
    data_dir = folders["array_record"]
    assert tiny_runs.main("pretrain", tmp_path / "run", data_dir, **flags) == 2
    assert "the workers of a tf.data service cannot read; leave out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
