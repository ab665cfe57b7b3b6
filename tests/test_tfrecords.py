"""TFRecord files of tf.train.Example that other programs wrote: --dataset=tfrecord:GLOB."""

from __future__ import annotations

import dataclasses
import gzip
import os
import pathlib
import re
import types
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from flags import command_line
from simclr_tf import config as config_lib
from simclr_tf import errors, pixel_format
from simclr_tf.data import (
    balanced,
    inspection,
    labels,
    pipeline,
    policies,
    record_files,
    record_scan,
    sources,
)
from simclr_tf.runs import dataset, diagnosis, resuming

IMAGE, LABEL, TEXT = "image/encoded", "image/class/label", "image/class/text"
NAMES = ("ant", "bee", "cat")


def serialized(**features: Any) -> bytes:
    """Returns an example; keys are written in the order of the arguments, "__" for a slash."""
    example = b""
    for key, value in features.items():
        values = value if isinstance(value, list) else [value]
        if isinstance(values[0], bytes):
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif isinstance(values[0], int):
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        else:
            feature = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        entry = tf.train.Features(feature={key.replace("__", "/"): feature})
        example += entry.SerializeToString()
    return tf.train.Example(features=tf.train.Features.FromString(example)).SerializeToString()


def picture(number: int) -> bytes:
    return tf.io.encode_png(np.full((4, 5, 3), number, np.uint8)).numpy()


def write(path: Any, examples: list[bytes]) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)


def numbered(numbers: range) -> list[bytes]:
    """Returns examples with labels from 5 up, and names of classes."""
    return [
        serialized(
            image__height=4,
            image__encoded=picture(i),
            image__class__text=NAMES[i % 3].encode(),
            image__class__label=5 + i % 3,
        )
        for i in numbers
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A folder of 12 training records in three files and 6 for validation in two."""
    root = tmp_path_factory.mktemp("records")
    for i in range(3):
        write(root / f"train-{i:05d}-of-00003", numbered(range(4 * i, 4 * i + 4)))
    for i in range(2):
        write(root / f"validation-{i:05d}-of-00002", numbered(range(20 + 3 * i, 23 + 3 * i)))
    return root


def opened(pattern: Any, **keys: Any) -> sources.Source:
    return sources.open_source(f"tfrecord:{pattern}", data_dir=None, seed=0, **keys)


def refusal(pattern: Any, **keys: str) -> str:
    with pytest.raises(errors.UserError) as raised:
        opened(pattern, **keys)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture(scope="module")
def source(folder) -> sources.Source:
    return opened(f"{folder}/*-of-*")


def numbers_of(examples: tf.data.Dataset) -> list[int]:
    return [int(tf.io.decode_image(example["image"])[0, 0, 0]) for example in examples]


def test_files_become_splits_and_integers_classes_named_by_the_records(source, folder):
    assert source.name == f"tfrecord:{folder}/*-of-*"
    assert dict(source.splits) == {"train": 12, "validation": 6}
    assert source.class_names == NAMES
    assert source.notes == ()
    assert labels.is_labelled(source, "validation")


@pytest.mark.parametrize(
    ("split", "want"),
    [
        ("train", range(12)),
        ("validation", range(20, 26)),
        ("train[3:9]", range(3, 9)),
        ("train[75%:]", range(9, 12)),
        ("validation[:2]+train[-1:]", [20, 21, 11]),
    ],
)
def test_a_split_holds_the_records_of_its_files_in_order(source, split, want):
    examples = list(source.examples(split))
    assert numbers_of(examples) == list(want)
    assert source.num_examples(split) == len(want)
    assert [int(example["label"]) for example in examples] == [i % 3 for i in want]
    names = [example["name"].numpy().decode() for example in examples]
    assert names == [source.example_name(split, index) for index in range(len(want))]


def test_names_give_the_file_and_the_record_in_it(source):
    assert source.example_name("train", 5) == "train-00001-of-00003[1]"


def test_the_order_is_a_permutation_set_by_the_seed(source):
    orders = [numbers_of(source.examples("train", order_seed=tf.constant([3, i]))) for i in (0, 1)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))


def test_a_resumed_run_sees_the_batches_of_one_that_was_not_interrupted(source):
    def batches(start, count):
        stream = pipeline.train_batches(
            source,
            "train",
            policies.Policy(2, ops=()),
            batch_size=8,
            num_views=1,
            seed=5,
            start_step=start,
        )
        return [batch["views"].numpy() for batch in stream.take(count)]

    np.testing.assert_array_equal(batches(0, 4)[2:], batches(2, 2))


def test_excluded_images_are_not_read_and_batches_can_be_balanced(source):
    excluded = {"train": ("train-00001-of-00003[1]",)}
    rest = dataclasses.replace(source, excluded=excluded)
    assert numbers_of(rest.examples("train")) == [i for i in range(12) if i != 5]
    images = balanced.open_by_class(rest, "train")
    assert images.counts.tolist() == [4, 4, 3]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-01024", "train"),
        ("validation-00127-of-00128", "validation"),
        ("val.tfrecord-00000-of-00010", "val"),
        ("cifar10-test.tfrecord-00000-of-00001", "test"),
        ("test_000.tfrecord", "test"),
        ("Test.tfrecords", "test"),
        ("valid_small-1.tfrec", "valid"),
        ("photos-00000-of-00002", "train"),
        ("latest.tfrecord", "train"),
        ("0.tfrecord", "train"),
    ],
)
def test_the_name_of_a_file_gives_its_split(path, split):
    assert list(record_files._splits([f"/home/dev/{path}"])) == [split]


def test_folders_give_the_split_if_there_are_several():
    found = ["/x/validation/1.tfrecord", "/x/more/1.tfrecord", "/x/validation/test-1.tfrecord"]
    assert list(record_files._splits(found)) == ["validation", "train", "test"]
    assert record_files.short_names(found)[found[0]] == "validation/1.tfrecord"


def test_only_a_training_split_is_evaluated_on_a_slice_of_it(folder):
    pattern = f"tfrecord:{folder}/train-*"
    config = config_lib.Config(mode="train_then_eval", dataset=pattern)
    with pytest.raises(
        errors.UserError, match=r"only train \(12\); set .*train\[:90%\] and --eval"
    ):
        dataset.open_data(config, eval_split_given=False)
    config = dataclasses.replace(config, train_split="train[:90%]", eval_split="train[90%:]")
    data = dataset.open_data(config, eval_split_given=True)
    assert data.source.num_examples(data.eval_split) == 1


def test_names_are_labels_too_and_negative_or_missing_ones_mean_unlabelled(tmp_path):
    values: list[dict[str, Any]] = [{"y": b"zebra"}, {"y": b"ant"}, {"y": b""}, {}]
    write(tmp_path / "names", [serialized(x=picture(0), **value) for value in values])
    source = opened(tmp_path / "names", image_key="x", label_key="y")
    assert source.class_names == ("ant", "zebra")
    assert [int(example["label"]) for example in source.examples("train")] == [1, 0, -1, -1]
    write(tmp_path / "numbers", [serialized(x=picture(0), y=y) for y in (900, -1, 3, 20)])
    source = opened(tmp_path / "numbers", image_key="x", label_key="y")
    assert source.class_names == ("3", "20", "900")
    assert [int(example["label"]) for example in source.examples("train")] == [2, -1, 0, 1]


def test_two_classes_of_one_name_are_distinguished_by_their_numbers(tmp_path):
    examples = [
        serialized(image__encoded=b"", image__class__text=name, image__class__label=label)
        for label, name in ((135, b"crane"), (518, b"crane"), (7, b"cock"))
    ]
    write(tmp_path / "x", examples)
    assert opened(tmp_path / "x").class_names == ("cock", "crane (135)", "crane (518)")


def test_an_empty_label_key_or_a_single_class_means_unlabelled(folder, tmp_path):
    source = opened(f"{folder}/*", label_key="")
    assert source.class_names is None
    assert {int(example["label"]) for example in source.examples("train")} == {-1}
    write(tmp_path / "x", [serialized(image__encoded=b"", image__class__label=4)] * 2)
    source = opened(tmp_path / "x")
    assert source.class_names is None
    assert source.notes == ("All labels are '4', so they are ignored.",)


@pytest.mark.parametrize("order", [0, 1])
def test_labels_are_found_without_reading_the_images(tmp_path, monkeypatch, order):
    fields = {"image__encoded": bytes(300_000), LABEL.replace("/", "__"): 3, "more": [1, 2] * 99}
    items = list(fields.items())
    write(tmp_path / "x", [serialized(**dict(items[::-1] if order else items))] * 4)
    sizes = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda f, n, at: sizes.append(n) or pread(f, n, at))
    (scan,) = record_scan.scan([str(tmp_path / "x")], LABEL)
    assert scan.num_records == 4
    assert scan.num_bytes == (tmp_path / "x").stat().st_size
    (value,) = scan.labels
    assert tf.train.Feature.FromString(value).int64_list.value == [3]
    assert sum(sizes) < 0.02 * scan.num_bytes


def test_remote_files_are_read_like_local_ones(folder, source):
    for path in folder.iterdir():
        tf.io.gfile.copy(str(path), f"ram://records/{path.name}", overwrite=True)
    remote = opened("ram://records/*-of-*")
    assert remote.class_names == source.class_names
    assert dict(remote.splits) == dict(source.splits)
    assert numbers_of(remote.examples("train")) == list(range(12))
    assert "cannot be opened, because this TensorFlow does not support s3" in refusal("s3://b/x*")


def test_wrong_keys_are_refused_with_those_that_there_are(folder):
    message = refusal(f"{folder}/*", image_key="jpg")
    assert "image_key='jpg' is not the key of a byte string in the first record of" in message
    assert f"keys {TEXT[:11]}/label, {TEXT}, {IMAGE}, image/height; {IMAGE} begins like" in message
    message = refusal(f"{folder}/*", image_key="image/height")
    assert f"; {IMAGE} begins like an encoded image, so use that." in message
    message = refusal(f"{folder}/*", label_key="label")
    assert "label_key='label' gives none of the 18 records a label; the first has the" in message
    assert "or an empty key if the images are unlabelled." in message


def test_labels_that_are_not_one_class_per_image_are_refused(tmp_path):
    for value, found in (([1, 2], "2 values"), (0.5, "fractions")):
        write(tmp_path / "x", [serialized(image__encoded=b"", image__class__label=value)])
        assert f"holds {found} in {tmp_path}/x[0]; use the key of one" in refusal(tmp_path / "x")
    examples = [serialized(image__encoded=b"", image__class__label=y) for y in (1, b"one")]
    write(tmp_path / "x", examples)
    assert "holds integers in some records and names in others" in refusal(tmp_path / "x")


def test_a_truncated_file_is_named(folder, tmp_path):
    content = (folder / "train-00000-of-00003").read_bytes()
    (tmp_path / "x").write_bytes(content[:-100])
    message = refusal(tmp_path / "x")
    assert f"The record 3 of {tmp_path}/x cannot be read (it would end at byte " in message
    assert f"{len(content):,} of {len(content) - 100:,}); copy the file again" in message
    tf.io.gfile.copy(str(tmp_path / "x"), "ram://cut/x", overwrite=True)
    assert "The record 3 of ram://cut/x cannot be read (truncated record" in refusal("ram://cut/x")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"class,file\n" * 99, r"record 0 of .*x cannot be read \(.*; copy .* name only TFRecord"),
        (b"", "The 1 files, such as .*x, hold no records"),
        (gzip.compress(b"abc", mtime=0), r"x is compressed \(gzip\).*; decompress it"),
    ],
)
def test_what_is_not_a_record_file_is_refused(tmp_path, content, problem):
    (tmp_path / "x").write_bytes(content)
    assert re.search(problem, refusal(tmp_path / "x"))


def test_records_that_are_not_examples_are_refused(tmp_path):
    write(tmp_path / "x", [serialized(image__encoded=b"", image__class__label=1), b"\xff" * 20])
    assert "x cannot be read (it is not a tf.train.Example)" in refusal(tmp_path / "x")
    write(tmp_path / "x", [b"\xff" * 20])
    assert "The record 0 of" in refusal(tmp_path / "x")


def test_missing_files_of_a_sequence_are_named_unless_the_pattern_leaves_them_out(folder, tmp_path):
    for i in (0, 3):
        (tmp_path / f"train-0000{i}-of-00004").write_bytes(
            (folder / "train-00000-of-00003").read_bytes()
        )
    message = refusal(f"{tmp_path}/train*")
    assert "a sequence of 4, of which 2 do not exist (train-00001-of-00004, train-00002-" in message
    source = opened(f"{folder}/train-0000[01]-*")
    assert dict(source.splits) == {"train": 8}
    assert source.notes == (
        "The pattern names 2 of the 3 files train-*-of-00003; the others are not used.",
    )


def test_a_pattern_that_names_no_files_is_refused(folder, tmp_path):
    assert "names no files; correct the pattern." in refusal(f"{folder}/*.tfrecord")
    assert f"names a folder; name the files in it, as in tfrecord:{folder}/*." in refusal(folder)
    assert "names no files" in refusal("")


def test_a_data_directory_is_refused_beside_a_pattern(folder):
    with pytest.raises(errors.UserError, match=r"data_dir='/x' has no effect beside the paths in"):
        sources.open_source(f"tfrecord:{folder}/*", data_dir="/x", seed=0)


def test_a_file_that_a_pattern_would_not_match_is_found_by_its_name(folder, tmp_path):
    (tmp_path / "a[1]").write_bytes((folder / "train-00000-of-00003").read_bytes())
    assert dict(opened(tmp_path / "a[1]").splits) == {"train": 4}


def test_an_unreadable_image_and_a_lost_file_are_named(folder, tmp_path):
    for path in folder.glob("train*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = numbered(range(3))
    broken[1] = serialized(image__class__label=5)
    write(tmp_path / "train-00001-of-00003", broken)
    source = opened(f"{tmp_path}/train*")
    found = inspection.first_unreadable(source, "train")
    assert found is not None
    assert (found.name, found.unreadable) == (
        "train-00001-of-00003[1]",
        "is empty",
    )
    run: Any = types.SimpleNamespace(
        data=dataset.Data(source, "train", "train"),
        config=config_lib.Config(),
        architecture=types.SimpleNamespace(pixels=pixel_format.RGB),
    )
    (tmp_path / "train-00000-of-00003").unlink()
    with pytest.raises(tf.errors.OpError) as lost:
        list(source.examples("train"))
    want = r"train-00000-of-00003\[0\] of the split .* cannot be read .*; copy that file again\.$"
    with pytest.raises(errors.UserError, match=want):
        diagnosis.find_unreadable_image(run, lost.value)


def test_the_pattern_is_stored_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for given, want in {
        "tfrecord:~/x/*-of-*": f"tfrecord:{tmp_path}/x/*-of-*",
        "tfrecord:x/**/*": f"tfrecord:{tmp_path}/x/**/*",
        "tfrecord:gs://b/x*": "tfrecord:gs://b/x*",
        "cifar10:3.*": "cifar10:3.*",
    }.items():
        command = command_line.parse(["run.py", f"--dataset={given}"])
        assert command.config.dataset == want


def test_the_keys_are_refused_for_other_data_sets():
    for flag, default in (("image_key", IMAGE), ("label_key", LABEL)):
        with pytest.raises(
            errors.UserError,
            match=rf"--{flag}=x applies only to --dataset=tfrecord:GLOB \(the dataset is digits\); "
            rf"leave it out, or give --{flag}={default}",
        ):
            given: dict[str, Any] = {flag: "x"}
            config_lib.validate(config_lib.Config(dataset="digits", **given))
    config_lib.validate(config_lib.Config(dataset="tfrecord:/x", image_key="x", label_key=""))


def test_moved_files_are_no_change_of_a_run():
    stored = config_lib.Config(dataset="tfrecord:/a/*")
    assert resuming.changed_settings(stored, config_lib.Config(dataset="tfrecord:/b/*")) == []
    (change,) = resuming.changed_settings(stored, config_lib.Config(dataset="cifar10"))
    assert change.name == "--dataset"


def test_a_split_has_labels_wherever_the_labelled_records_are(tmp_path):
    plain = [serialized(image__encoded=picture(i)) for i in range(3)]
    write(tmp_path / "train-00000-of-00001", plain + numbered(range(6)))
    write(tmp_path / "test-00000-of-00001", plain)
    source = sources.open_source(f"tfrecord:{tmp_path}/*", data_dir=None, seed=0)
    assert labels.is_labelled(source, "train[:50%]")
    assert labels.is_labelled(source, "test+train")
    assert not labels.is_labelled(source, "test")
