"""What counts as an image in a folder: by its extension or, without one, by its first bytes."""

import io
import os

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from simclr_tf.data import scan


def _content(kind):
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def _scanned(root):
    listing = scan.scan(str(root))
    return sorted(listing.images), sorted(listing.others)


EXTENSIONS = ["jfif", "JPE", "webp", "tif", "TIFF", "avif", "heic", "heif", "jp2", "dcm"]


def test_files_are_images_by_their_extension_and_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(tf.io.gfile, "GFile", None)
    for extension in (*EXTENSIONS, "txt", "json"):
        (tmp_path / f"a.{extension}").write_bytes(b"")
    images = sorted(f"a.{extension}" for extension in EXTENSIONS)
    assert _scanned(tmp_path) == (images, ["a.json", "a.txt"])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF"])
def test_a_file_without_an_extension_is_an_image_if_it_begins_like_one(tmp_path, kind):
    (tmp_path / "photo").write_bytes(_content(kind))
    (tmp_path / "README").write_bytes(b"BMW is a brand; GIVEN the rest")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "nowhere").symlink_to("nothing")
    assert _scanned(tmp_path) == (["photo"], ["README", "empty", "nowhere"])


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert _scanned(tmp_path) == ([], ["pipe"])


def test_of_many_files_without_an_extension_a_sample_is_opened(tmp_path, monkeypatch):
    opened = []

    def looked_at(path):
        opened.append(path)
        return "/texts/" not in path

    monkeypatch.setattr(scan, "_is_image", looked_at)
    for name in ("photos", "texts"):
        (tmp_path / name).mkdir()
        for number in range(200):
            (tmp_path / name / f"{number}").write_bytes(b"")
    images, others = _scanned(tmp_path)
    assert len(images) == len(others) == 200
    assert all(path.startswith("photos/") for path in images)
    assert len(opened) <= 2 * 32
