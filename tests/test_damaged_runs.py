"""Damaged files of a run: what is whole is used, and the rest is named with the remedy."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf import config, errors, storage
from simclr_tf.runs import checkpoints, directory, metrics_log, weights
from simclr_tf.serving import export

DATA, INDEX = ".data-00000-of-00001", ".index"


# --- checkpoints


def change_byte(path: pathlib.Path, position: int, mask: int = 0xFF) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)


def values_of(prefix: str) -> dict[str, Any]:
    reader = tf.train.load_checkpoint(prefix)
    names = reader.get_variable_to_shape_map()
    return {name: np.asarray(reader.get_tensor(name)).tolist() for name in names}


@pytest.fixture
def tiny(tmp_path: pathlib.Path) -> str:
    """A checkpoint of numbers and of text, small enough to change each of its bytes."""
    variables = {
        "numbers": tf.Variable(tf.range(6.0)),
        "more": tf.Variable([[1.5], [2.5]], dtype=tf.float64),
        "text": tf.Variable(["one", "two"]),
        "step": tf.Variable(7, dtype=tf.int64),
    }
    return tf.train.Checkpoint(**variables).write(str(tmp_path / "ckpt-1"))


def unseen_changes(prefix: str, suffix: str) -> list[int]:
    """Returns the positions at which `damage_of` reports no change of a byte."""
    path, before = pathlib.Path(prefix + suffix), values_of(prefix)
    content, unseen = path.read_bytes(), []
    for position in range(len(content)):
        for mask in (0xFF, 0x01, 0x80):
            change_byte(path, position, mask)
            if checkpoints.damage_of(prefix) is None:
                assert values_of(prefix) == before, position
                unseen.append(position)
            path.write_bytes(content)
    return unseen


def test_a_changed_byte_in_the_data_of_a_checkpoint_is_found_wherever_it_is(tiny):
    assert unseen_changes(tiny, DATA) == []


def test_a_changed_byte_in_the_index_of_a_checkpoint_is_found_or_changes_no_value(tiny):
    # The last 48 bytes hold the places of two blocks, of which one is empty and not read, and
    # padding. The empty block of 8 bytes and its checksum of 5 precede the other.
    size = pathlib.Path(tiny + INDEX).stat().st_size
    unseen = set(unseen_changes(tiny, INDEX))
    assert len(unseen) < 64
    assert min(unseen, default=size) > size - 120


def test_a_shortened_or_missing_file_of_a_checkpoint_is_found(tiny):
    for suffix in (DATA, INDEX):
        path = pathlib.Path(tiny + suffix)
        content = path.read_bytes()
        for size in range(len(content)):
            path.write_bytes(content[:size])
            assert checkpoints.damage_of(tiny) is not None, (suffix, size)
        path.unlink()
        assert checkpoints.damage_of(tiny) is not None
        path.write_bytes(content)
    assert checkpoints.damage_of(tiny) is None


DAMAGE = {
    "a changed byte of the weights": lambda run: change_byte(run / f"ckpt-4{DATA}", 5000),
    "a changed byte of the index": lambda run: change_byte(run / f"ckpt-4{INDEX}", 500),
    "missing weights": lambda run: (run / f"ckpt-4{DATA}").unlink(),
    "an empty index": lambda run: (run / f"ckpt-4{INDEX}").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_the_checkpoint_before_a_damaged_one_is_opened_with_a_warning(pretrained, damage, capsys):
    damage(pretrained)
    opened = weights.open_weights(str(pretrained))
    assert opened.origin == f"{pretrained}/ckpt-2"
    assert opened.step == 2
    assert f"warning: The checkpoint {pretrained}/ckpt-4 is damaged" in capsys.readouterr().out
    with pytest.raises(errors.UserError, match=r"ckpt-4 is damaged .*; name another one"):
        weights.open_weights(f"{pretrained}/ckpt-4")


@pytest.mark.parametrize("state", [b'model_checkpoint_path: "ckpt-9"\n', b"\xff\xfe", None])
def test_a_checkpoint_file_that_points_nowhere_does_not_matter(pretrained, state):
    if state is None:
        (pretrained / "checkpoint").unlink()
    else:
        (pretrained / "checkpoint").write_bytes(state)
    assert weights.open_weights(str(pretrained)).step == 4


def test_the_last_checkpoint_has_the_most_steps_whatever_the_times_of_the_files(pretrained):
    for path in pretrained.glob("ckpt-4*"):  # As if the clock was set back before.
        os.utime(path, (1e9, 1e9))
    assert checkpoints.latest(str(pretrained)) == f"{pretrained}/ckpt-4"
    assert weights.open_weights(str(pretrained)).step == 4


# --- metrics.jsonl


@pytest.mark.parametrize("line", [b"\xff\xfe{}", b'{"step": "x"}', b'{"step": NaN}', b"5", b"[1]"])
def test_a_damaged_line_of_metrics_is_removed_with_a_warning(tmp_path, capsys, line):
    path = tmp_path / "metrics.jsonl"
    for content in (b'{"step": 1}\n%s\n{"step": 2}\n', b'{"step": 1}\n{"step": 2}\n%s\n'):
        path.write_bytes(content % line)
        metrics_log.MetricsLog(str(tmp_path), from_step=2)
        assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
        assert "metrics.jsonl had 1 damaged lines" in capsys.readouterr().out


def test_a_folder_in_place_of_the_metrics_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(errors.UserError) as raised:
        metrics_log.MetricsLog(str(tmp_path))
    assert str(raised.value).startswith(f"{tmp_path}/metrics.jsonl cannot be read")
    assert f"rename or remove the folder {tmp_path}/metrics.jsonl and run" in str(raised.value)


# --- architecture.json


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("image_size", None, "image_size is null and must be an integer"),
        ("encoder", 5, "encoder is 5 and must be text"),
        ("proj_head_bn", 1, "proj_head_bn is 1 and must be true or false"),
        ("sk_ratio", "0", 'sk_ratio is "0" and must be a number'),
        ("class_names", "abc", 'class_names is "abc" and must be a list of names, or null'),
        ("class_names", [1], "class_names is [1] and must be a list of names, or null"),
        ("num_proj_layers", True, "num_proj_layers is true and must be an integer"),
    ],
)
def test_a_field_of_the_architecture_with_a_wrong_type_is_named(pretrained, field, value, words):
    path = pretrained / "architecture.json"
    path.write_text(json.dumps({**tiny_runs.json_of(path), field: value}))
    with pytest.raises(errors.UserError) as raised:
        directory.read_architecture(str(pretrained))
    assert str(raised.value).startswith(f"{path} does not describe a network: {words};")


def test_a_wrong_type_in_the_architecture_is_reported_by_the_program(pretrained, photos, capsys):
    path = pretrained / "architecture.json"
    path.write_text(json.dumps({**tiny_runs.json_of(path), "image_size": None}))
    for mode in ("pretrain", "eval", "export"):
        assert tiny_runs.main(mode, pretrained, photos, image_size=None, stem=None) == 2
        assert "image_size is null and must be an integer" in capsys.readouterr().err


# --- names that are taken


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    for name in ("result.json", "views.png"):
        (tmp_path / name).mkdir()
    writes: list[Any] = [
        lambda: directory.write_result(str(tmp_path), {"global_step": 1}),
        lambda: storage.write_png(f"{tmp_path}/views.png", np.zeros([1, 1, 3], np.uint8)),
    ]
    for write, name in zip(writes, ("result.json", "views.png")):
        with pytest.raises(errors.UserError) as raised:
            write()
        assert str(raised.value).startswith(f"{tmp_path}/{name} could not be written")
        assert f"; rename or remove the folder {tmp_path}/{name} and run" in str(raised.value)


def test_a_file_in_place_of_the_folder_of_exports_is_named(tmp_path):
    parent = tmp_path / "saved_model"
    parent.write_text("")
    with pytest.raises(errors.UserError) as raised:
        export.write(tf.Module(), str(parent), 3, signatures={}, keep=1)
    assert f"rename or remove the file {parent} and run" in str(raised.value)
    parent.unlink()
    parent.mkdir()
    (parent / "3").write_text("")
    with pytest.raises(errors.UserError) as raised:
        export.write(tf.Module(), str(parent), 3, signatures={}, keep=1)
    assert f"rename or remove the file {parent}/3 and run" in str(raised.value)
    (parent / "2").write_text("not an export")
    export.write(tf.Module(), str(parent), 4, signatures={}, keep=1)
    assert (parent / "4" / "saved_model.pb").exists()


def test_a_folder_in_place_of_the_list_of_checkpoints_is_named(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    model: Any = tf.Module()
    with pytest.raises(errors.UserError) as raised:
        checkpoints.Checkpoints(str(tmp_path), model, None).save()
    assert f"{tmp_path}/checkpoint could not be written" in str(raised.value)
    assert f"rename or remove the folder {tmp_path}/checkpoint and run" in str(raised.value)


# --- weights that are not finite


@pytest.mark.parametrize("steps", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_weights_that_are_not_finite_are_neither_saved_nor_exported(
    photos, tmp_path, capsys, monkeypatch, steps
):
    monkeypatch.setattr(config, "validate", lambda _: None)  # It refuses such a rate.
    changes = {**tiny_runs.NO_COLOR, "train_steps": steps, "learning_rate": 1e308}
    assert tiny_runs.main("pretrain", tmp_path / "run", photos, **changes) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: The ")
    what = "weights after step 1 are" if steps == 1 else "loss of step 2 is"
    assert f"The {what} not finite (gradient norm " in message
    assert ", learning rate inf): the first of the weights that are not finite is " in message
    assert "runs step 2; there is no checkpoint yet. Lower" in message
    assert "Lower --learning_rate" in message
    assert message.count("\n") == 1
    assert not list((tmp_path / "run").glob("ckpt*"))
    assert not (tmp_path / "run" / "saved_model").exists()


def test_weights_are_finite_only_if_all_are(tmp_path):
    model: Any = tf.Module()
    model.counts, model.weights = tf.Variable([1, 2]), tf.Variable([1.0, 2.0])
    saved = checkpoints.Checkpoints(str(tmp_path), model, None)
    assert saved.has_finite_weights()
    for wrong in (np.inf, np.nan):
        model.weights.assign([1.0, wrong])
        assert not saved.has_finite_weights()
