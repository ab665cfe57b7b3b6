"""Data sets in one .npz or .npy file."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import errors, pixel_format
from simclr_tf.data import decode, first_format, in_memory, sources, stored


def _images(count, channels=5, dtype=np.uint16, seed=0):
    values = np.random.default_rng(seed).integers(0, 250, (count, 9, 8, channels))
    return values.astype(dtype)


def _open(path):
    return sources.open_source(f"array:{path}", data_dir=None, seed=0)


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "val_images", "val_labels"),
        ("x_train", "y_train", "x_val", "y_val"),
    ],
)
def test_the_arrays_of_a_file_are_splits_with_labels(names, tmp_path):
    train, val = _images(6), _images(4, seed=1)
    arrays = (train, np.array([7, 3, 7, 3, 3, 7]), val, np.array([[3], [7], [7], [3]]))
    np.savez(tmp_path / "a.npz", **dict(zip(names, arrays, strict=True)), other=np.zeros(2))
    source = _open(tmp_path / "a.npz")
    assert source.splits == {"train": 6, "val": 4}
    assert (source.class_names, source.image_shape) == (("3", "7"), (9, 8))
    pixels = first_format.find(source, "train", "auto")
    assert pixels == pixel_format.of_dtype(5, "uint16")
    examples = list(source.examples("train", order_seed=tf.constant([1, 2])).as_numpy_iterator())
    assert sorted(one["name"].decode() for one in examples) == [f"train[{i}]" for i in range(6)]
    for one in examples:
        row = int(one["name"].decode()[6:-1])
        made = stored.decode_stored(tf.constant(one["image"]), pixels)
        np.testing.assert_array_equal(made, train[row])
        assert one["label"] == [1, 0, 1, 0, 0, 1][row]
    assert source.num_bytes("val") == val.nbytes
    assert source.example_name("val", 2) == "val[2]"


def test_images_stay_in_memory_in_their_own_type(tmp_path):
    images = _images(6)
    np.save(tmp_path / "a.npy", np.moveaxis(images, -1, 1))  # Channels first.
    source = _open(tmp_path / "a.npy").with_pixels(pixel_format.of_dtype(5, "uint16"))
    assert source.class_names is None
    (table,) = in_memory.table(source, "train")
    assert table["image"].dtype == tf.uint16
    np.testing.assert_array_equal(table["image"], images)
    assert in_memory.num_bytes(source, "train") == 2 * images.nbytes


def test_8_bit_rgb_is_read_as_pictures_are(tmp_path):
    images = _images(3, 3, np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array(["a", "b", "a"]))
    source = _open(tmp_path / "a.npz")
    assert first_format.find(source, "train", "auto") == pixel_format.RGB
    assert source.class_names == ("a", "b")
    for image, one in zip(images, source.examples("train").as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(decode.decode_image(tf.constant(one["image"])), image)


_BAD = {
    "has no images but a; call them train_images and train_labels": {"a": _images(2)},
    "has splits of different images": {"x_train": _images(2), "x_test": _images(2, 4)},
    "has train images of the shape (5,)": {"images": np.zeros(5)},
    "has train images of the type complex64": {"images": _images(2, dtype=np.complex64)},
    "has train labels of the shape (2, 3) and the type float64 for 2 images": {
        "images": _images(2),
        "labels": np.zeros((2, 3)),
    },
}


@pytest.mark.parametrize("problem", _BAD)
def test_a_file_is_refused_with_the_reason(problem, tmp_path):
    np.savez(tmp_path / "a.npz", **_BAD[problem])
    with pytest.raises(errors.ArgumentError) as caught:
        _open(tmp_path / "a.npz")
    assert problem in str(caught.value)


def test_a_file_that_is_missing_or_damaged_is_refused(tmp_path):
    with pytest.raises(errors.ArgumentError, match="does not exist"):
        _open(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04nothing")
    with pytest.raises(errors.ArgumentError, match=r"cannot be read as \.npz or \.npy"):
        _open(tmp_path / "a.npz")
    with pytest.raises(errors.ArgumentError, match="has no effect beside the path"):
        sources.open_source("array:a.npz", data_dir="/x", seed=0)
