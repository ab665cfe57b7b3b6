"""Embedding a data set: every image once, in shards that survive a kill."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import numpy as np
from pyarrow import parquet
import pytest
import tensorflow as tf
import tiny_runs

import run
from simclr_tf import errors, storage
from simclr_tf.data import evaluation_images, parts, sources
from simclr_tf.embeddings import reading
from simclr_tf.runs import initialization, weights


def embed(checkpoint: Any, folder: Any, *more: str) -> int:
    """Runs the program; more flags override those of `tiny_runs.embedded`."""
    flags = tiny_runs.embed_flags(folder)
    return run.main(["run.py", *flags, f"--checkpoint={checkpoint}", *more])


def refusal(capsys: Any, *arguments: Any) -> str:
    capsys.readouterr()
    assert embed(*arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_runs.pretrained(tmp_path_factory)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    return tiny_runs.embedded(tmp_path_factory)


@pytest.fixture
def copy(embedded, tmp_path):
    return pathlib.Path(shutil.copytree(embedded, tmp_path / "copy"))


def _manifest(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def test_every_image_has_the_outputs_that_the_network_has_for_it(embedded, checkpoint, photos):
    found = reading.open_folder(str(embedded))
    model, _ = initialization.build(weights.open_weights(str(checkpoint)))
    assert sorted(found.names) == sorted(str(p.relative_to(photos)) for p in photos.rglob("*.png"))
    tables = [parquet.read_table(path).to_pydict() for path in sorted(embedded.glob("*.parquet"))]
    for table in tables:
        for row, name in enumerate(table["name"]):
            split, label, _ = name.split("/")
            assert (table["split"][row], table["label"][row]) == (split, label)
        contents = [tf.constant((photos / name).read_bytes()) for name in table["name"]]
        images = tf.stack([evaluation_images.decoded(content, 8) for content in contents])
        for output, expected in model(images).items():
            np.testing.assert_allclose(np.array(table[output]), expected, atol=1e-4)


def test_arrays_and_tables_hold_the_same_numbers(embedded):
    for path in sorted(embedded.glob("*.parquet")):
        table = parquet.read_table(path)
        for output in ("features", "projection", "logits"):
            array = np.load(embedded / f"{path.stem}.{output}.npy")
            assert array.dtype == np.float32
            np.testing.assert_array_equal(np.array(table[output].to_pylist(), np.float32), array)


def test_rows_are_read_across_shards(embedded):
    found = reading.open_folder(str(embedded))
    assert [len(part) for part in found.parts] == [18, 18, 18]
    whole = np.concatenate(found.parts)
    rows = np.array([53, 0, 17, 17, 40])
    np.testing.assert_array_equal(found.features(rows), whole[rows])
    assert isinstance(found.parts[0], np.memmap)


class Killed(Exception):
    """Stands for a kill, which runs no handler of the program."""


@pytest.mark.exhaustive
def test_a_killed_embed_resumes_after_its_finished_shards_to_the_same_bytes(
    embedded, checkpoint, tmp_path, monkeypatch
):
    folder = tmp_path / "killed"
    written = storage.replace

    def killed(path: str, content: Any) -> None:
        if "part-00001" in path and path.endswith(".npy"):
            raise Killed
        written(path, content)

    monkeypatch.setattr(storage, "replace", killed)
    arguments = (checkpoint, folder)
    with pytest.raises(Killed):
        embed(*arguments)
    assert not _manifest(folder)["complete"]
    assert list(_manifest(folder)["shards"]) == ["0"]
    with pytest.raises(errors.UserError, match=r"not finished: it has 1 of 3 shards"):
        reading.open_folder(str(folder))
    done: list[str] = []
    monkeypatch.setattr(storage, "replace", lambda *a: done.append(a[0]) or written(*a))
    assert embed(*arguments) == 0
    assert done and not [path for path in done if "part-00000" in path]
    assert tiny_runs.snapshot(folder) == tiny_runs.snapshot(embedded)


@pytest.mark.exhaustive
def test_a_shard_that_was_damaged_is_written_again(copy, embedded, checkpoint, capsys):
    path = copy / "part-00001-of-00003.features.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(errors.UserError, match=r"part-00001-of-00003.parquet is damaged"):
        reading.open_folder(str(copy))
    assert embed(checkpoint, copy) == 0
    assert "has 2 of 3 shards" in capsys.readouterr().out
    assert tiny_runs.snapshot(copy) == tiny_runs.snapshot(embedded)


def test_two_replicas_write_the_same_shard(embedded, checkpoint, tmp_path):
    folder = tmp_path / "two"
    assert embed(checkpoint, folder, "--num_virtual_cpus=2", "--embed_split=test") == 0
    one, two = (reading.open_folder(str(path)) for path in (embedded, folder))
    rows = np.flatnonzero(one.splits == "test")
    assert list(one.names[rows]) == list(two.names)
    assert list(one.content[rows]) == list(two.content)
    np.testing.assert_allclose(one.features(rows), two.parts[0], atol=1e-5)


def test_other_weights_data_or_shards_are_refused(copy, checkpoint, photos, tmp_path, capsys):
    before = tiny_runs.snapshot(copy)
    message = refusal(capsys, f"{checkpoint}/ckpt-2", copy)
    assert "other embeddings" in message and "the fingerprint of the weights" in message
    fewer = pathlib.Path(shutil.copytree(photos, tmp_path / "fewer"))
    (fewer / "test/red/0.png").unlink()
    data = ("--dataset=image_folder", f"--data_dir={fewer}")
    message = refusal(capsys, checkpoint, copy, *data)
    assert "the images of the splits" in message and "name another folder" in message
    assert "the images per shard (18 there, 20 here)" in refusal(
        capsys, checkpoint, copy, "--embed_shard_examples=20"
    )
    assert tiny_runs.snapshot(copy) == before


def test_an_unreadable_image_stops_it_with_its_name(checkpoint, photos, tmp_path, capsys):
    damaged = pathlib.Path(shutil.copytree(photos, tmp_path / "damaged"))
    (damaged / "test/red/0.png").write_bytes(b"not an image")
    data = ("--dataset=image_folder", f"--data_dir={damaged}", "--embed_split=test")
    message = refusal(capsys, checkpoint, tmp_path / "out", *data)
    assert "test/red/0.png" in message and "--max_bad_images" in message
    assert not list((tmp_path / "out").glob("part*"))


@pytest.mark.exhaustive
def test_images_without_labels_are_embedded_without_unreadable_ones(
    checkpoint, tmp_path_factory, tmp_path
):
    photos = tmp_path / "photos"
    shutil.copytree(tiny_runs.unlabelled_photos(tmp_path_factory), photos)
    (photos / "7.png").write_bytes(b"not an image")
    data = ("--dataset=image_folder", f"--data_dir={photos}", "--max_bad_images=1")
    assert embed(checkpoint, tmp_path / "out", *data) == 0
    found = reading.open_folder(str(tmp_path / "out"))
    assert list(found.labels) == [None] * 35 and set(found.splits) == {"train"}
    assert set(found.names) == {f"{i}.png" for i in range(36)} - {"7.png"}
    assert found.manifest.excluded == {"train": ("7.png",)}


def test_what_is_missing_is_said(checkpoint, tmp_path, capsys):
    def message_of(*arguments: str) -> str:
        assert run.main(["run.py", *arguments]) == 2
        return capsys.readouterr().err

    assert "set --embeddings to a folder" in message_of("--mode=embed")
    assert "set --checkpoint" in message_of("--mode=embed", f"--embeddings={tmp_path}")
    message = refusal(capsys, checkpoint, tmp_path, f"--model_dir={tmp_path}/x")
    assert "--model_dir" in message and "leave it out" in message
    assert "no split 'tset'" in refusal(capsys, checkpoint, tmp_path, "--embed_split=tset")
    assert "did you mean logits" in refusal(capsys, checkpoint, tmp_path, "--embed_outputs=logit")


def test_parts_of_a_split_are_its_examples_in_order(photos):
    source = sources.open_source("image_folder", data_dir=str(photos), seed=0)
    split = "test[3:9]+train[10:]"
    pieces = parts.of_split(source, split, 5)
    assert pieces[:2] == ["test[3:8]", "test[8:9]+train[10:14]"]
    names = [name for piece in pieces for name in source.example_names(piece)]
    assert names == source.example_names(split)


def test_single_images_of_a_split_are_read_by_name(photos):
    source = sources.open_source("image_folder", data_dir=str(photos), seed=0)
    names = ["train/red/3.png", "train/blue/0.png", "train/none.png"]
    found = parts.images(source, "train[:100%]", names)
    assert {name: image.numpy() for name, image in found.items()} == {
        name: (photos / name).read_bytes() for name in names[:2]
    }
