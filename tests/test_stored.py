"""Images are decoded as they are stored, whatever their channels and depth."""

import io
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tifffile

from simclr_tf import errors, pixel_format
from simclr_tf.data import array_files, decode, first_format, inspection, kinds, stored

# In a graph, as in tf.data; traced once for each format.
_in_graph = tf.function(stored.decode_stored, autograph=False)
_CASES = [(1, "uint16"), (2, "uint8"), (4, "uint16"), (13, "float32"), (13, "int16")]


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def npz(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def tiff(array, **settings):
    content = io.BytesIO()
    tifffile.imwrite(content, array, photometric="minisblack", **settings)
    return content.getvalue()


def _tiff_without_rows(array):
    content = bytearray(tiff(array, metadata=None))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tag = file.pages.first.tags["ImageLength"]
    content[tag.valueoffset : tag.valueoffset + 4] = bytes(4)
    return bytes(content)


def _image(channels, dtype):
    values = np.random.default_rng(0).integers(0, 30_000, (20, 17, channels))
    return (values - (8000 if dtype in ("int16", "float32") else 0)).astype(dtype)


def _forms(image):
    """Returns the same image in files of every kind that can hold it."""
    first = np.moveaxis(image, -1, 0)
    forms = {
        "npy": npy(image),
        "channels first": npy(np.ascontiguousarray(first)),
        "columns first": npy(np.asfortranarray(image)),
        "bytes swapped": npy(image.astype(image.dtype.newbyteorder(">"))),
        "axes of length 1": npz(image=image[np.newaxis]),
        "npz": npz(image=image, mask=image > 0),
        "tensor": tf.io.serialize_tensor(image).numpy(),
        "pages": tiff(first),
        "compressed pages": tiff(first, compression="zlib", predictor=image.dtype.kind != "f"),
    }
    if image.shape[-1] == 1:
        forms["without channels"] = npy(image[..., 0])
    if image.shape[-1] <= 4 and image.dtype in (np.uint8, np.uint16):
        forms["png"] = tf.io.encode_png(image).numpy()
    return forms


@pytest.mark.parametrize(("channels", "dtype"), _CASES)
def test_all_kinds_of_files_give_the_values_that_were_stored(channels, dtype):
    image, pixels = _image(channels, dtype), pixel_format.of_dtype(channels, dtype)
    for name, encoded in _forms(image).items():
        made = _in_graph(tf.constant(encoded), pixels)
        assert made.dtype == dtype, name
        np.testing.assert_array_equal(made, image, name)
        np.testing.assert_array_equal(stored.decode_stored(tf.constant(encoded), pixels), image)


def test_types_that_are_not_kept_become_one_that_is():
    image = _image(2, "int16")
    kept = {"float64": "float32", "int32": "float32", "float16": "float32", "int8": "int16"}
    for dtype, natural in kept.items():
        pixels = pixel_format.of_dtype(2, natural)
        some = image.astype(dtype)
        made = _in_graph(tf.constant(npy(some)), pixels)
        np.testing.assert_array_equal(made, some.astype(natural))
        np.testing.assert_array_equal(array_files.read(npy(some), 2), some.astype(natural))


def test_batches_are_decoded_as_images_are():
    images = np.stack([_image(4, "uint16"), _image(4, "uint16")[::-1]])
    encoded = tf.constant([npy(image) for image in images])
    pixels = pixel_format.of_dtype(4, "uint16")
    made = stored.decode_batch(encoded, (20, 17), pixels)
    np.testing.assert_array_equal(made, images)


_SIX = pixel_format.of_dtype(6, "uint16")
_SIXTEEN = _image(6, "uint16")
_BAD = {
    "is a PNG with other channels": (
        tf.io.encode_png(_SIXTEEN[..., :3]).numpy(),
        "has 3 channels of uint16, and the others 6 channels of uint16",
    ),
    "has other axes": (npy(_SIXTEEN[..., :5]), "has the shape (20, 17, 5), and 6 channels"),
    "has other channels": (tiff(_SIXTEEN[:, :, 0]), "has 1 channel, and 6 are expected"),
    "is of another type": (npy(_SIXTEEN.astype(np.uint8)), "has values of uint8, and the others"),
    "is complex": (npy(_SIXTEEN.astype(np.complex64)), "store the magnitude and the phase"),
    "is text": (npy(np.array(["a"])), "store whole numbers or float32"),
    "is truncated": (npy(_SIXTEEN)[:-7], "is a NumPy file that cannot be read"),
    "is a damaged archive": (npz(image=_SIXTEEN)[:99], "is a NumPy .npz file that cannot be read"),
    "has arrays of other names": (npz(a=_SIXTEEN, b=_SIXTEEN), "holds 2 arrays (a, b); name the"),
    "is a TIFF without rows": (
        _tiff_without_rows(_SIXTEEN[..., 0]),
        "is a TIFF image without pixels",
    ),
    "is a damaged TIFF": (tiff(_SIXTEEN)[:30], "is a TIFF image that tifffile cannot read"),
    "is a tensor of another type": (
        tf.io.serialize_tensor(_SIXTEEN.astype(np.float32)).numpy(),
        "has values of float32, and the others uint16",
    ),
    "is a damaged tensor": (tf.io.serialize_tensor(_SIXTEEN).numpy()[:50], "that is damaged"),
    "is no image": (b"nothing", "is not a"),
}


@pytest.mark.parametrize("name", _BAD)
def test_an_image_is_refused_if_it(name):
    encoded, want = _BAD[name]
    with pytest.raises(tf.errors.InvalidArgumentError):
        _in_graph(tf.constant(encoded), _SIX)
    assert want in stored.problem(encoded, _SIX)


def test_values_that_are_not_numbers_are_refused():
    image = _image(2, "float32")
    image[3, 4, 1] = np.nan
    with pytest.raises(tf.errors.InvalidArgumentError, match="not numbers"):
        _in_graph(tf.constant(npy(image)), pixel_format.of_dtype(2, "float32"))
    problem = stored.problem(npy(image), pixel_format.of_dtype(2, "float32"))
    assert problem == "has values that are not numbers (NaN or infinite); replace them"


def test_a_tiff_is_refused_where_its_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(kinds.RefusedError, match="pip install tifffile"):
        array_files.read(tiff(_SIXTEEN))


def test_without_python_only_what_tensorflow_decodes_is_decoded():
    np.testing.assert_array_equal(
        stored.decode_stored(tf.constant(npy(_SIXTEEN)), _SIX, with_python=False), _SIXTEEN
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"PNG, JPEG or \.npy"):
        stored.decode_stored(tf.constant(tiff(_SIXTEEN)), _SIX, with_python=False)


class _Images:
    """What `first_format` asks of a data set of encoded images."""

    name = "scenes"

    def __init__(self, *encoded, known=None):
        self._encoded, self.known_pixels = encoded, known

    def random_access(self, split):
        return None

    def examples(self, split):
        names = [f"{number}.x" for number in range(len(self._encoded))]
        return tf.data.Dataset.from_tensor_slices({"name": names, "image": list(self._encoded)})


def _find(encoded, channels):
    return first_format.find(_Images(*encoded), "train", channels)  # type: ignore[arg-type]


_GREY_8 = tf.io.encode_png(_image(1, "uint8")).numpy()
_GREY_16 = tf.io.encode_png(_image(1, "uint16")).numpy()
_COLOUR_16 = tf.io.encode_png(_image(3, "uint16")).numpy()
_PHOTO = tf.io.encode_jpeg(_image(3, "uint8")).numpy()


@pytest.mark.parametrize(
    ("encoded", "channels", "want"),
    [
        ((_PHOTO, _GREY_8), "auto", "RGB"),
        ((_GREY_8, _COLOUR_16), "auto", "RGB"),
        ((_COLOUR_16,), "rgb", "RGB"),
        ((_GREY_16, _GREY_16), "auto", (1, "uint16")),
        ((_GREY_8,), "1", (1, "uint8")),
        ((tf.io.encode_png(_image(4, "uint8")).numpy(),), "4", (4, "uint8")),
        ((_PHOTO,), "3", "RGB"),
        ((npy(_SIXTEEN),), "auto", (6, "uint16")),
        ((tf.io.serialize_tensor(_SIXTEEN).numpy(),), "auto", (6, "uint16")),
        ((tiff(np.moveaxis(_SIXTEEN, -1, 0)),), "auto", (6, "uint16")),
        ((tiff(_SIXTEEN[..., 0]),), "auto", (1, "uint16")),
        ((tiff(_image(1, "uint8")[..., 0]),), "auto", "RGB"),
        ((), "auto", "RGB"),
    ],
)
def test_the_first_images_decide_on_channels_and_depth(encoded, channels, want):
    found = _find(encoded, channels)
    expected = pixel_format.RGB if want == "RGB" else pixel_format.of_dtype(*want)
    assert found == expected


def test_arrays_whose_channels_are_not_clear_are_refused_unless_these_are_said():
    encoded = npy(_image(13, "uint16")[:12])
    with pytest.raises(Exception, match=r"\(12, 17, 13\), so that it is not clear.*=13"):
        _find((encoded,), "auto")
    for channels in (12, 13):
        found = _find((encoded,), str(channels))
        assert found == pixel_format.of_dtype(channels, "uint16")


def test_arrays_of_8_bit_rgb_are_pictures():
    image = _image(3, "uint8")
    for name, encoded in _forms(image).items():
        assert _find((encoded,), "auto") == pixel_format.RGB, name
        np.testing.assert_array_equal(decode.decode_image(tf.constant(encoded)), image, name)
    example = {"image": npy(_image(3, "uint16")), "name": b"a", "label": np.array(-1)}
    finding = inspection.inspect_example(example)
    assert finding.unreadable == "has values of uint16, and the others are 8-bit RGB"


def test_images_that_differ_are_refused_with_two_of_them():
    with pytest.raises(Exception, match=r"differ: 0\.x has 1 channel of uint16, and 1\.x has 6"):
        _find(
            (
                _GREY_16,
                npy(_SIXTEEN),
            ),
            "auto",
        )
    with pytest.raises(Exception, match=r"not what the images have: 0\.x has 1 channel of uint16"):
        _find((_GREY_16,), "2")
    refused = npy(_SIXTEEN.astype(np.complex64))
    with pytest.raises(Exception, match=r"0\.x has values of the type complex64"):
        _find((refused, npy(_SIXTEEN)[:20]), "auto")
    assert _find((refused, npy(_SIXTEEN)), "auto") == _SIX


def _check_suits(*encoded, channels=6, dtype="uint16"):
    pixels = pixel_format.of_dtype(channels, dtype)
    source: Any = _Images(*encoded)
    first_format.check_suits(source, "train", pixels, "runs/bands")


@pytest.mark.parametrize(
    ("encoded", "settings"),
    [
        ((npy(_SIXTEEN), npy(_SIXTEEN[..., :5])), {}),  # Only some are others.
        ((npy(_SIXTEEN[..., :5]), tiff(np.moveaxis(_SIXTEEN, -1, 0))), {}),
        ((npy(_SIXTEEN)[:20],), {}),  # It is reported where it is decoded.
        ((tiff(_image(1, "uint8")[..., 0]),), {"channels": 1, "dtype": "uint8"}),
        ((_GREY_8,), {"channels": 1, "dtype": "uint8"}),
        ((_GREY_16, _PHOTO, _COLOUR_16), {"channels": 3, "dtype": "uint8"}),
        ((), {}),
    ],
)
def test_images_suit_weights_if_one_of_the_first_does(encoded, settings):
    _check_suits(*encoded, **settings)


@pytest.mark.parametrize(
    ("encoded", "settings", "parts"),
    [
        (
            (_PHOTO, _PHOTO),
            {},
            ("'train' of 'scenes' have 3 channels of uint8 (as 0.x), and the", "take 6 channels"),
        ),
        (
            (npy(_SIXTEEN[..., :5]), _GREY_16),
            {},
            ("have 5 channels of uint16 (as 0.x) and 1 channel of uint16 (as 1.x), and",),
        ),
        (
            (tiff(_SIXTEEN[..., 0]),),
            {"channels": 3, "dtype": "uint16"},
            ("the weights of runs/bands take 3 channels of uint16; use", "with --channel_files."),
        ),
        (
            (npy(_SIXTEEN), npy(_image(1, "float32"))),
            {"channels": 3, "dtype": "uint8"},
            ("6 channels of uint16", "1 channel of float32", "take pictures of 8 bits; use"),
        ),
    ],
)
def test_images_of_which_none_suits_the_weights_are_refused(encoded, settings, parts):
    with pytest.raises(errors.UserError) as raised:
        _check_suits(*encoded, **settings)
    for part in parts:
        assert part in str(raised.value)


def test_the_format_survives_json():
    import dataclasses
    import json

    pixels = pixel_format.of_dtype(2, "int16").scaled((1.5, 2.0), (7.0, 9.0), "percentile")
    described = json.loads(json.dumps(dataclasses.asdict(pixels)))
    assert pixel_format.from_json(described) == pixels
    with pytest.raises(ValueError, match="2 channels"):
        pixel_format.from_json({**described, "low": [1.0]})
