"""Images of TFRecord files that are lists of numbers, or raw bytes, beside their shape."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import errors, pixel_format
from simclr_tf.data import first_format, inspection, sources, stored

_SHAPE = (4, 9, 2)
# In a graph, as in tf.data; traced once for each format.
_in_graph = tf.function(stored.decode_stored, autograph=False)


def _feature(value: Any) -> tf.train.Feature:
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    values = np.ravel(value)
    if values.dtype.kind == "f":
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _write(path: pathlib.Path, *records: dict[str, Any]) -> pathlib.Path:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            features = {key: _feature(value) for key, value in record.items()}
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    return path


def _opened(path: pathlib.Path, key: str = "image/raw") -> sources.Source:
    return sources.open_source(
        f"tfrecord:{path}", data_dir=None, seed=0, image_key=key, label_key=""
    )


def _images(path: pathlib.Path, key: str = "image/raw") -> list[np.ndarray]:
    """Returns the images as a run decodes them."""
    source = _opened(path, key)
    pixels = first_format.find(source, "train", "auto")
    return [_in_graph(example["image"], pixels).numpy() for example in source.examples("train")]


def _numbered(dtype: str, shape: tuple[int, ...] = _SHAPE) -> np.ndarray:
    values = 199 * np.arange(np.prod(shape)) - (3000 if np.dtype(dtype).kind in "if" else 0)
    return values.astype(dtype).reshape(shape)


def _sizes(shape: tuple[int, ...], beginning: str = "image/") -> dict[str, int]:
    names = ("height", "width", "channels")
    return {f"{beginning}{name}": size for name, size in zip(names, shape)}


_SAID = {
    "a shape": {"image/shape": _SHAPE},
    "a shape under the key of the image": {"image/raw/shape": _SHAPE},
    "a shape that begins like the key": {"image/raw_shape": _SHAPE},
    "a shape without a beginning": {"shape": _SHAPE},
    "height, width and channels": _sizes(_SHAPE),
    "height, width and depth": {"height": 4, "width": 9, "depth": 2},
    "height and width": _sizes(_SHAPE[:2]),
}


@pytest.mark.parametrize("said", _SAID.values(), ids=_SAID)
def test_lists_and_bytes_have_the_shape_that_the_record_says(tmp_path, said):
    image = _numbered("float32")
    forms = {"list": {"image/raw": image}}
    forms["bytes"] = {"image/raw": image.tobytes(), "image/dtype": b"float32"}
    for name, values in forms.items():
        (made,) = _images(_write(tmp_path / name, {**values, **said}))
        assert made.dtype == "float32"
        np.testing.assert_array_equal(made, image)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        *((name, name) for name in ("uint8", "uint16", "int16", "float32")),
        *((name, "float32") for name in ("int32", "int64", "float16", "float64")),
        *((">u2", "uint16"), ("<i2", "int16"), (">f4", "float32")),
    ],
)
def test_raw_bytes_have_the_type_that_the_record_says(tmp_path, dtype, kept):
    image = _numbered(dtype)
    record = {"image/raw": image.tobytes(), "image/dtype": dtype.encode(), "image/shape": _SHAPE}
    (made,) = _images(_write(tmp_path / "x", record))
    assert made.dtype == kept
    np.testing.assert_array_equal(made, image.astype(kept))


def test_whole_numbers_are_float32_and_one_byte_per_value_needs_no_type(tmp_path):
    image = _numbered("uint16")
    (made,) = _images(_write(tmp_path / "x", {"x": image, "shape": _SHAPE}), "x")
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, image)
    (made,) = _images(_write(tmp_path / "y", {"x": image.tobytes(), **_sizes((8, 9, 2), "")}), "x")
    np.testing.assert_array_equal(made.ravel(), np.frombuffer(image.tobytes(), np.uint8))


def test_grey_images_need_no_channels_and_three_channels_of_8_bits_are_pictures(tmp_path):
    image = _numbered("float32", (4, 9))
    (made,) = _images(_write(tmp_path / "x", {"x": image, "shape": image.shape}), "x")
    np.testing.assert_array_equal(made, image[..., np.newaxis])
    colour = _numbered("uint8", (8, 9, 3))
    path = _write(tmp_path / "y", {"x": colour.tobytes(), "shape": colour.shape, "dtype": b"uint8"})
    source = _opened(path, "x")
    assert first_format.find(source, "train", "auto") == pixel_format.RGB
    (example,) = source.examples("train")
    np.testing.assert_array_equal(tf.io.decode_png(example["image"]), colour)


def test_height_width_and_channels_say_which_axis_the_channels_are(tmp_path):
    image = _numbered("float32", (4, 9, 5))
    source = _opened(_write(tmp_path / "x", {"image/raw": image, **_sizes(image.shape)}))
    assert first_format.find(source, "train", "auto") == pixel_format.of_dtype(5, "float32")
    source = _opened(_write(tmp_path / "y", {"image/raw": image, "image/shape": image.shape}))
    with pytest.raises(errors.UserError, match="not clear whether it has 5 or 4"):
        first_format.find(source, "train", "auto")


def test_records_that_differ_from_the_first_are_unreadable_images_with_their_reason(tmp_path):
    good = {"x": _numbered("uint16").tobytes(), "shape": _SHAPE, "dtype": b"uint16"}
    records = [
        good,
        {**good, "x": good["x"][:-3]},
        {**good, "dtype": b"int16"},
        {name: good[name] for name in ("shape", "dtype")},
        {**good, "shape": (4, 9, -2)},
        {**good, "shape": (2, 2, 9, 2)},
        {name: good[name] for name in ("x", "dtype")},
        {**good, "shape": (3, 12, 2)},
    ]
    source = _opened(_write(tmp_path / "x", *records), "x")
    pixels = first_format.find(source, "train[:1]", "auto")
    found = [one.unreadable for one in inspection.inspect(source.with_pixels(pixels), "train")]
    assert found == [
        None,
        "holds 141 bytes, which do not fill its shape [4 9 2]",
        "has values of int16, and the first uint16",
        "is empty",
        "holds 144 bytes, which do not fill its shape [4 9 -2]",
        "holds 144 bytes, which do not fill its shape [2 2 9 2]",
        "holds 144 bytes, which do not fill its shape []",
        None,
    ]
    good = {"x": _numbered("float32"), "shape": _SHAPE}
    source = _opened(_write(tmp_path / "y", good, {**good, "x": np.ones(71)}), "x")
    pixels = first_format.find(source, "train[:1]", "auto")
    found = [one.unreadable for one in inspection.inspect(source.with_pixels(pixels), "train")]
    assert found == [None, "holds 71 numbers, which do not fill its shape [4 9 2]"]


_RAW = _numbered("uint16").tobytes()
_REFUSED = {
    "no shape": (
        {"x": _numbered("float32")},
        "holds 72 numbers in the first .* no shape",
    ),
    "another shape": (
        {"x": _numbered("float32"), "shape": (4, 9, 3)},
        r"the shape \(4, 9, 3\), which they do not fill. Store the shape .* keys shape, x",
    ),
    "no type": (
        {"x": _RAW, "shape": _SHAPE},
        r"holds 144 raw bytes .* 2 for each value of the shape \(4, 9, 2\), and not their type. "
        r"Store its name beside them \(image/dtype, such as uint16\), or .*serialize_tensor",
    ),
    "an unknown type": (
        {"x": _RAW, "shape": _SHAPE, "dtype": b"DT_HALF"},
        "values of the type 'DT_HALF' .* store one of uint8, uint16",
    ),
    "a type that is no text": (
        {"x": _RAW, "shape": _SHAPE, "dtype": b"\xff\xfe"},
        "values of the type '.*' .* which cannot be read",
    ),
    "a type of other values": (
        {"x": _RAW, "shape": _SHAPE, "dtype": b"complex64"},
        "values of the type 'complex64' .* cannot be read",
    ),
}


@pytest.mark.parametrize(("record", "reason"), _REFUSED.values(), ids=_REFUSED)
def test_arrays_that_do_not_say_what_they_are_are_refused_with_a_remedy(tmp_path, record, reason):
    path = _write(tmp_path / "x", record)
    with pytest.raises(errors.ArgumentError, match=reason):
        _opened(path, "x")


def test_bytes_that_say_nothing_have_a_note_on_what_to_store(tmp_path):
    raw = _write(tmp_path / "raw", {"image/raw": _numbered("uint16").tobytes()})
    (note,) = _opened(raw).notes
    assert note.startswith(f"The image of the first record of {raw} (image/raw) is neither")
    assert "image/shape and image/dtype" in note
    for name, content in {
        "png": tf.io.encode_png(np.zeros((4, 5, 3), np.uint8)).numpy(),
        "tensor": tf.io.serialize_tensor(_numbered("uint16")).numpy(),
        "nothing": b"",
    }.items():
        assert _opened(_write(tmp_path / name, {"image/raw": content})).notes == ()


def test_files_and_tensors_beside_a_shape_stay_what_they_are(tmp_path):
    image = _numbered("uint16", (4, 9, 1))
    png = tf.io.encode_png(image).numpy()
    tensor = tf.io.serialize_tensor(image).numpy()
    for name, content in (("png", png), ("tensor", tensor)):
        (made,) = _images(_write(tmp_path / name, {"image/raw": content, **_sizes(image.shape)}))
        np.testing.assert_array_equal(made, image)
    damaged = _write(tmp_path / "damaged", {"image/raw": png[7:], **_sizes(image.shape)})
    (example,) = _opened(damaged).examples("train")
    assert example["image"].numpy() == png[7:]
