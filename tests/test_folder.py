"""Tests of simclr_tf.data.folder: every layout of a folder of images."""

import collections
import io
import json
import os
import pathlib

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from simclr_tf import errors
from simclr_tf.data import inspection, layout, sources
from simclr_tf.runs import directory

CLOTHING = pathlib.Path(__file__).parents[2] / "shared" / "data" / "clothing"


def _image(path, kind="PNG"):
    """Returns the bytes of a small image that depends on its path."""
    pixels = np.random.default_rng(list(path.encode())).integers(0, 256, (4, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _fill(root, paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(_image(path))
    return str(root)


def _open(root, seed=0):
    return sources.open_source("image_folder", data_dir=str(root), seed=seed)


def _listed(source, split, **options):
    """Returns {path: label} of a pass, having checked that no path comes twice."""
    examples = list(source.examples(split, **options).as_numpy_iterator())
    found = {example["name"].decode(): int(example["label"]) for example in examples}
    assert len(found) == len(examples) == source.num_examples(split)
    return found


def _classes(*folders, count=10):
    return [f"{name}/{i}.png" for name in folders for i in range(count)]


def test_splits_of_classes_are_taken_as_they_are(tmp_path):
    source = _open(_fill(tmp_path, _classes("train/cat", "train/dog", "test/cat", "test/dog")))
    assert source.class_names == ("cat", "dog")
    assert dict(source.splits) == {"test": 20, "train": 20}
    assert source.notes == ()
    assert source.image_shape == (None, None)
    want = {f"test/{c}/{i}.png": n for n, c in enumerate(("cat", "dog")) for i in range(10)}
    assert _listed(source, "test") == want


def test_examples_carry_the_bytes_of_the_files(tmp_path):
    source = _open(_fill(tmp_path, _classes("train/cat", "train/dog", count=2)))
    for example in source.examples("train").as_numpy_iterator():
        assert example["image"] == (tmp_path / example["name"].decode()).read_bytes()


def test_a_tenth_of_each_class_is_held_out_by_the_seed_and_noted(tmp_path):
    root = _fill(tmp_path, _classes("ant", count=40) + _classes("bee", count=10) + ["cow/0.png"])
    source = _open(root, seed=3)
    assert dict(source.splits) == {"train": 46, "validation": 5}
    assert source.notes == (
        "Held out 5 of 51 images, a tenth of each class with several images, drawn with seed 3, "
        "as the split 'validation'.",
        "The split 'validation' has no images of 1 of 3 classes: cow.",
    )
    train, held_out = _listed(source, "train"), _listed(source, "validation")
    assert not set(train) & set(held_out)
    assert collections.Counter(held_out.values()) == {0: 4, 1: 1}
    labels = {path.split("/")[0]: label for path, label in train.items()}
    assert labels == {"ant": 0, "bee": 1, "cow": 2}
    assert _listed(_open(root, seed=3), "validation") == held_out
    assert _listed(_open(root, seed=4), "validation") != held_out


def test_folders_named_as_splits_are_unlabelled_splits(tmp_path):
    source = _open(_fill(tmp_path, ["train/0.png", "Val/1.png", "unlabeled/2.png"]))
    assert source.class_names is None
    assert dict(source.splits) == {"train": 1, "val": 1, "unlabeled": 1}
    assert _listed(source, "val") == {"Val/1.png": -1}


def test_images_alone_are_an_unlabelled_split(tmp_path):
    source = _open(_fill(tmp_path, [f"{i}.png" for i in range(5)]))
    assert source.class_names is None
    assert _listed(source, "train") == {f"{i}.png": -1 for i in range(5)}


def test_an_unlabelled_split_may_accompany_labelled_ones(tmp_path):
    paths = ["train/cat/0.png", "train/dog/0.png", "unlabeled/0.png"]
    source = _open(_fill(tmp_path, paths))
    assert source.class_names == ("cat", "dog")
    assert _listed(source, "unlabeled") == {"unlabeled/0.png": -1}
    assert "The split 'unlabeled' has no class folders, so it is unlabelled." in source.notes


def test_a_class_may_be_called_train(tmp_path):
    source = _open(_fill(tmp_path, _classes("car", "train", "ship")))
    assert source.class_names == ("car", "ship", "train")


def test_a_single_class_is_not_a_label(tmp_path):
    source = _open(_fill(tmp_path, _classes("holiday")))
    assert source.class_names is None
    assert dict(source.splits) == {"train": 10}
    assert set(_listed(source, "train").values()) == {-1}
    assert source.notes == ("All labels are 'holiday', so they are ignored.",)


def test_classes_are_the_union_over_splits_and_a_missing_one_is_noted(tmp_path):
    paths = ["train/ant/0.png", "train/bee/0.png", "test/bee/0.png", "test/cow/0.png"]
    source = _open(_fill(tmp_path, paths))
    assert source.class_names == ("ant", "bee", "cow")
    assert _listed(source, "test") == {"test/bee/0.png": 1, "test/cow/0.png": 2}
    assert source.notes == (
        "The split 'test' has no images of 1 of 3 classes: ant.",
        "The split 'train' has no images of 1 of 3 classes: cow.",
    )


def test_any_case_of_extension_counts_hidden_files_do_not_and_others_are_noted(tmp_path):
    for name, kind in [("a.JPG", "JPEG"), ("b.Jpeg", "JPEG"), ("c.PNG", "PNG"), ("d.bmp", "BMP")]:
        (tmp_path / name).write_bytes(_image(name, kind))
    (tmp_path / "e.GiF").write_bytes(_image("e", "GIF"))
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "f.png").write_bytes(b"")
    for name in ("z.txt", "y.heif.txt", "x.csv", "w.json"):
        (tmp_path / name).write_bytes(b"")
    source = _open(tmp_path)
    assert set(_listed(source, "train")) == {"a.JPG", "b.Jpeg", "c.PNG", "d.bmp", "e.GiF"}
    assert source.notes == (
        "Skipped what is not an image: 4 files (w.json, x.csv, y.heif.txt and 1 more).",
    )
    assert inspection.first_unreadable(source, "train") is None


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["a/b/c/0.png"], r"nests images .* \(1 like a/b/c/0.png\); rearrange it"),
        (["0.png", "cat/1.png"], r"nests images .* \(1 like 0.png; 1 like cat/1.png\)"),
        (["train/cat/0.png", "train/1.png"], r"mixes images and folders \(train/ holds images"),
        (["train/cat/0.png", "photos/1.png"], r"mixes images and folders \(photos/ holds images"),
        (["train/0.png", "test/1.png", "cat/2.png"], r"both splits \(test, train\) .* \(cat\)"),
    ],
)
def test_other_layouts_are_refused_with_examples_and_the_remedy(tmp_path, paths, message):
    with pytest.raises(errors.UserError, match=message) as raised:
        _open(_fill(tmp_path, paths))
    assert layout.LAYOUTS in str(raised.value)


def test_a_folder_that_is_missing_empty_or_without_images_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="nothing' does not exist; name a folder that"):
        _open(tmp_path / "nothing")
    with pytest.raises(errors.UserError, match=r"holds no images .*, it is empty; choose a folder"):
        _open(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(errors.UserError, match=r"holds no images .*, it holds 1 file \(a.txt\)"):
        _open(tmp_path)
    with pytest.raises(errors.UserError, match=r"a\.txt' is a file; name a folder that"):
        _open(tmp_path / "a.txt")
    with pytest.raises(errors.UserError, match="data_dir is missing; name a folder that"):
        sources.open_source("image_folder", data_dir=None, seed=0)


def test_slices_divide_the_split(tmp_path):
    source = _open(_fill(tmp_path, _classes("train/ant", "train/bee", "test/ant", "test/bee")))
    assert source.num_examples("train[:75%]") == 15
    first, rest = _listed(source, "train[:75%]"), _listed(source, "train[75%:]")
    assert not set(first) & set(rest)
    assert {**first, **rest} == _listed(source, "train")
    # A slice is a sample of all classes, not the first class.
    assert set(first.values()) == {0, 1}
    assert len(_listed(source, "train[:3]+test")) == 23
    assert len(_listed(source, "all")) == 40


def test_adding_a_file_moves_no_other(tmp_path):
    before = list(_listed(_open(_fill(tmp_path, _classes("train/ant", "train/bee"))), "train"))
    _fill(tmp_path, ["train/ant/new.png"])
    after = list(_listed(_open(tmp_path), "train"))
    assert [path for path in after if path != "train/ant/new.png"] == before


def test_a_pass_visits_all_in_an_order_that_the_seed_decides(tmp_path):
    source = _open(_fill(tmp_path, _classes("train/ant", "train/bee")))
    orders = {
        seed: list(_listed(source, "train", order_seed=tf.constant(seed)))
        for seed in [(0, 0), (0, 1), (1, 0)]
    }
    stored = list(_listed(source, "train"))
    assert all(sorted(order) == sorted(stored) for order in orders.values())
    assert len({tuple(order) for order in [stored, *orders.values()]}) == 4
    tf.random.set_seed(17)
    assert list(_listed(source, "train", order_seed=tf.constant((0, 1)))) == orders[(0, 1)]


def test_the_name_of_a_corrupt_or_vanished_file_is_found(tmp_path):
    root = _fill(tmp_path, _classes("train/ant", "train/bee"))
    (tmp_path / "train/bee/7.png").write_bytes(_image("x")[:40])
    source = _open(root)
    assert inspection.first_unreadable(source, "train").name == "train/bee/7.png"
    (tmp_path / "train/bee/7.png").unlink()
    assert inspection.first_unreadable(source, "train").name == "train/bee/7.png"


@pytest.mark.skipif(not CLOTHING.exists(), reason="the shared photographs are not here")
def test_real_photographs_open():
    source = _open(CLOTHING)
    assert set(source.splits) == {"train", "test"}
    assert len(source.class_names) == 10
    assert "t-shirt" in source.class_names
    count = len(list((CLOTHING / "test").glob("*/*.jpg")))
    assert source.num_examples("test") == count == len(_listed(source, "test"))


def test_folders_without_images_are_named_at_any_depth(tmp_path):
    _fill(tmp_path, _classes("train/ant", "train/bee", "test/ant", "test/bee"))
    for name in ("train/cow", "test/cow", "val/deep", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "test/cow/readme.txt").write_text("")
    source = _open(tmp_path)
    assert source.class_names == ("ant", "bee")
    assert source.notes == (
        "Skipped 3 folders without images: test/cow, train/cow, val.",
        "Skipped what is not an image: 1 file (test/cow/readme.txt).",
    )


def test_a_folder_named_like_an_image_is_a_folder(tmp_path):
    source = _open(_fill(tmp_path, _classes("album.jpg", "photos.png")))
    assert source.class_names == ("album.jpg", "photos.png")
    assert dict(source.splits) == {"train": 18, "validation": 2}
    with pytest.raises(errors.UserError, match=r"too deep .* 1 like train/ant/x.png/0.png"):
        _open(_fill(tmp_path / "deep", [*_classes("train/ant"), "train/ant/x.png/0.png"]))


@pytest.mark.parametrize("target", [".", "..", "/", "../..", "loop"])
def test_a_link_to_a_folder_that_contains_it_is_skipped_and_named(tmp_path, target):
    root = tmp_path / "photos"
    _fill(root, _classes("ant", "bee"))
    (root / "bee" / "loop").symlink_to(target)
    source = _open(root)
    assert sum(source.splits.values()) == 20
    skipped = "Skipped links to a folder that contains them: bee/loop."
    dangling = "Skipped what is not an image: 1 file (bee/loop)."
    assert source.notes[1:] == (dangling if target == "loop" else skipped,)


def test_links_between_many_folders_are_followed_in_little_time(tmp_path):
    folders = [tmp_path / name for name in "abcdefghijkl"]
    for one in folders:
        one.mkdir()
    for one in folders:
        for other in folders:
            (one / f"to_{other.name}").symlink_to(other)
    with pytest.raises(errors.UserError, match="holds no images"):  # Not 12! paths.
        _open(tmp_path)


def test_splits_and_classes_may_be_links(tmp_path):
    _fill(tmp_path / "stored", _classes("cat", "dog"))
    root = tmp_path / "photos"
    (root / "test").mkdir(parents=True)
    (root / "train").symlink_to(tmp_path / "stored")
    (root / "test" / "cat").symlink_to(tmp_path / "stored" / "cat")
    (root / "test" / "dog").symlink_to(tmp_path / "stored" / "dog")
    (root / "val").symlink_to("test")
    assert dict(_open(root).splits) == {"test": 20, "train": 20, "val": 20}


def test_names_that_differ_in_their_unicode_form_are_one_class(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    paths = _classes(f"train/{composed}", "train/tea", "test/tea", count=2)
    source = _open(_fill(tmp_path / "splits", [*paths, f"test/{decomposed}/0.png"]))
    assert source.class_names == (composed, "tea")
    assert source.notes == ()
    assert _listed(source, "test") == {
        f"test/{decomposed}/0.png": 0,
        "test/tea/0.png": 1,
        "test/tea/1.png": 1,
    }
    source = _open(_fill(tmp_path / "classes", _classes(composed, decomposed, "tea", count=5)))
    assert source.class_names == (composed, "tea")
    counts = collections.Counter(
        label for split in source.splits for label in _listed(source, split).values()
    )
    assert counts == {0: 10, 1: 5}


def test_names_that_are_not_utf8_are_refused_with_the_remedy(tmp_path):
    _fill(tmp_path, _classes("ant", "bee"))
    for name in (b"ant/caf\xe9.png", b"bee/\xff.jpg"):
        path = bytes(tmp_path) + b"/" + name
        pathlib.Path(os.fsdecode(path)).write_bytes(b"")
    with pytest.raises(errors.UserError) as raised:
        _open(tmp_path)
    assert str(raised.value) == (
        f"The folder {str(tmp_path)!r} holds 2 names that are not UTF-8 "
        r"(ant/caf\xe9.png, bee/\xff.jpg); rename what is named so."
    )


def test_other_files_may_have_any_names(tmp_path):
    _fill(tmp_path, _classes("ant", "bee"))
    pathlib.Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.txt")).write_bytes(b"")
    assert _open(tmp_path).notes[-1].endswith(r"1 file (caf\xe9.txt).")


def test_class_names_of_a_run_on_a_mac_have_the_usual_unicode_form(pretrained):
    path = pretrained / "architecture.json"
    stored = {**json.loads(path.read_text()), "class_names": ["cafe\u0301", "tea"]}
    path.write_text(json.dumps(stored))
    read = directory.read_architecture(str(pretrained))
    assert read is not None
    assert read.class_names == ("caf\u00e9", "tea")
