"""Image files that cannot be opened are treated as damaged images are: named, counted, excluded."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf import config as config_lib
from simclr_tf.commands import train
from simclr_tf.data import inspection, labels, sources
from simclr_tf.runs import unreadable
from simclr_tf.serving import export


@pytest.fixture
def own_photos(photos: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the photos, which a test may change."""
    return pathlib.Path(shutil.copytree(photos, tmp_path / "photos"))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips the SavedModel and the picture of views, so that training itself reads first."""
    tiny_runs.pretrained(tmp_path_factory)  # Created first, with both.
    monkeypatch.setattr(export, "export", lambda *_, **__: "")
    monkeypatch.setattr(train, "_show_views", lambda *_: None)


# What a file is replaced by: a link to a path, and why that cannot be read.
UNOPENABLE = {
    "a link to nothing": ("nowhere.png", "No such file or directory"),
    "a link to a folder": (".", "Is a directory"),
    "a link to itself": ("3.png", "Too many levels of symbolic links"),
    "a file that the system fails to read": ("/proc/self/mem", "Input/output error"),
}


def link(path: pathlib.Path, target: str = "nowhere.png") -> None:
    """Replaces a file by a link."""
    path.unlink()
    path.symlink_to(target)


def opened(root: pathlib.Path) -> sources.Source:
    return sources.open_source("image_folder", data_dir=str(root), seed=0)


@pytest.mark.parametrize(("target", "reason"), UNOPENABLE.values(), ids=UNOPENABLE.keys())
def test_a_file_that_cannot_be_opened_is_found_and_the_others_are_read(own_photos, target, reason):
    link(own_photos / "train/red/3.png", target)
    findings = list(inspection.inspect(opened(own_photos), "train"))
    assert len(findings) == 36
    bad = [finding for finding in findings if finding.unreadable]
    assert [finding.name for finding in bad] == ["train/red/3.png"]
    assert bad[0].unreadable == f"cannot be read ({reason})"
    assert bad[0].label == 2


def test_check_data_lists_what_cannot_be_opened_beside_what_cannot_be_decoded(
    own_photos, tmp_path, capsys
):
    link(own_photos / "train/red/3.png")
    (own_photos / "test/green/2.png").write_bytes(b"not an image at all")
    assert tiny_runs.main("check_data", tmp_path / "run", own_photos) == 2
    out, err = capsys.readouterr()
    assert "train/red/3.png" in out
    assert "cannot be read (No such file or directory)" in out
    assert "test/green/2.png" in out
    assert "2 of 54 images of image_folder are unreadable" in err
    assert "--max_bad_images=2" in err


@pytest.mark.exhaustive
def test_what_cannot_be_opened_is_excluded_if_the_run_allows_it(
    own_photos, tmp_path, capsys, no_pictures
):
    for path in ("train/red/3.png", "test/green/2.png"):
        link(own_photos / path)
    model_dir, settings = tmp_path / "run", {**tiny_runs.NO_COLOR, "max_bad_images": 2}
    # Twice the epoch, so that every image would be read.
    assert tiny_runs.main("train", model_dir, own_photos, train_steps=9, **settings) == 0
    assert tiny_runs.main("eval", model_dir, own_photos, **settings) == 0
    assert "Excluded 2 unreadable images: train/red/3.png cannot be read" in capsys.readouterr().out
    splits = tiny_runs.json_of(model_dir / "bad_images.json")["splits"]
    assert list(splits["train"]["left_out"]) == ["train/red/3.png"]
    assert list(splits["test"]["left_out"]) == ["test/green/2.png"]
    assert tiny_runs.json_of(model_dir / "result.json")["eval/examples"] == 17


def test_more_than_allowed_are_refused_with_their_number(own_photos, tmp_path, capsys):
    for path in ("train/red/3.png", "train/green/2.png"):
        link(own_photos / path)
    assert tiny_runs.main("pretrain", tmp_path / "run", own_photos, max_bad_images=1) == 2
    err = capsys.readouterr().err
    assert "2 images are unreadable, more than --max_bad_images=1" in err
    assert "train/red/3.png cannot be read (No such file or directory)" in err


def check_one_sentence(message: str, name: str) -> None:
    """Asserts that an error message names a file that cannot be read, and what to do."""
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert f"{name} cannot be read (No such file or directory)" in message
    assert "restore or remove it, or exclude it with --max_bad_images" in message


def test_a_file_that_vanishes_stops_training_with_its_name(
    own_photos, tmp_path, capsys, monkeypatch, no_pictures
):
    source = opened(own_photos)
    (own_photos / "train/red/3.png").unlink()
    monkeypatch.setattr(sources, "open_source", lambda *_, **__: source)
    changes = {**tiny_runs.NO_COLOR, "train_steps": 9}
    assert tiny_runs.main("pretrain", tmp_path / "run", own_photos, **changes) == 2
    check_one_sentence(capsys.readouterr().err, f"{own_photos}/train/red/3.png")


def test_a_file_that_vanishes_stops_evaluation_with_its_name(
    own_photos, pretrained, capsys, monkeypatch
):
    source = opened(own_photos)
    (own_photos / "test/red/3.png").unlink()
    monkeypatch.setattr(sources, "open_source", lambda *_, **__: source)
    assert tiny_runs.main("eval", pretrained, own_photos) == 2
    check_one_sentence(capsys.readouterr().err, f"{own_photos}/test/red/3.png")


def test_labels_and_sizes_are_known_without_opening_the_files(own_photos):
    source = opened(own_photos)
    sizes = source.num_bytes("train")
    first = own_photos / source.example_name("train", 0)
    size = first.stat().st_size
    link(first)
    source = opened(own_photos)
    assert labels.is_labelled(source, "train")
    assert source.num_bytes("train") == sizes - size


def test_excluded_files_are_not_opened_in_any_order(own_photos):
    link(own_photos / "train/red/3.png")
    source = dataclasses.replace(opened(own_photos), excluded={"train": ("train/red/3.png",)})
    for seed in (None, tf.constant([1, 2])):
        names = {example["name"].numpy() for example in source.examples("train", order_seed=seed)}
        assert len(names) == 35
        assert b"train/red/3.png" not in names


def test_show_views_names_what_cannot_be_opened(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").symlink_to("nowhere.png")
    assert tiny_runs.main("show_views", tmp_path / "sheet", tmp_path / "photos") == 2
    err = capsys.readouterr().err
    assert "a.png; No such file or directory" in err
    assert "restore or remove it" in err
    assert err.count("\n") == 1


def test_a_class_without_readable_images_is_reported(own_photos, tmp_path, capsys):
    for path in (own_photos / "test/red").iterdir():
        path.write_bytes(b"no image")
    sentence = "The split 'test' has no readable images of 1 of 3 classes: red."
    assert tiny_runs.main("check_data", tmp_path / "run", own_photos) == 2
    assert sentence in capsys.readouterr().out
    config = config_lib.Config(
        dataset="image_folder",
        data_dir=str(own_photos),
        model_dir=str(tmp_path),
        max_bad_images=6,
    )
    unreadable.exclude(config, opened(own_photos), ["train", "test"])
    assert f"warning: {sentence}" in capsys.readouterr().out


def test_an_evaluation_of_one_class_names_those_that_are_missing(photos, pretrained, capsys):
    changes = {"eval_split": "test[:1]", "linear_eval": False}
    assert tiny_runs.main("eval", pretrained, photos, **changes) == 0
    out = capsys.readouterr().out
    assert "The split 'test[:1]' has no evaluated images of 2 of 3 classes: " in out
    assert "The accuracies are of the other classes only." in out
