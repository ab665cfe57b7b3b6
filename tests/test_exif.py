"""Photos are turned upright by their EXIF orientation, as `PIL.ImageOps.exif_transpose` does."""

import io
import struct

import numpy as np
from PIL import Image, ImageOps
import pytest
import tensorflow as tf

from simclr_tf.data import decode, exif

ORIENTATION = 0x0112
HEIGHT, WIDTH = 37, 52


def _picture():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([y * 6, x * 4, (x + y) * 2], axis=-1).astype(np.uint8))


def _tiff(entries, byte_order="<", *, count=None, position=8):
    """Returns EXIF data with (tag, type, count, value) entries in its directory."""
    mark = b"II*\0" if byte_order == "<" else b"MM\0*"
    data = mark + struct.pack(byte_order + "I", position)
    data += struct.pack(byte_order + "H", len(entries) if count is None else count)
    for tag, kind, number, value in entries:
        packed = struct.pack(byte_order + ("HH" if kind == 3 else "I"), *_padded(kind, value))
        data += struct.pack(byte_order + "HHI", tag, kind, number) + packed
    return data + bytes(4)


def _padded(kind, value):
    return (value, 0) if kind == 3 else (value,)


def _of(orientation, byte_order="<"):
    others = [(0x010F, 4, 1, 7), (0x011A, 4, 1, 3)]
    return _tiff([others[0], (ORIENTATION, 3, 1, orientation), others[1]], byte_order)


def _segment(marker, content):
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def _jpeg(data, *, before=b"", keeps_jfif=False):
    """Returns a JPEG with EXIF data, without JFIF's segment as cameras write it, or with it."""
    file = io.BytesIO()
    _picture().save(file, "JPEG", quality=95)
    plain = file.getvalue()
    start = 20 if keeps_jfif else 2
    return plain[:2] + plain[2:start] + before + _segment(0xE1, b"Exif\0\0" + data) + plain[20:]


def _png(data):
    file = io.BytesIO()
    _picture().save(file, "PNG", exif=b"Exif\0\0" + data)
    return file.getvalue()


def _upright(encoded):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB"))


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def _in_graph(encoded):
    return decode.decode_image(encoded, with_pillow=False), decode.image_size(encoded)


_window = tf.function(
    decode.decode_window,
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([4], tf.int32)],
    autograph=False,
)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("byte_order", "<>")
@pytest.mark.parametrize("make", [_jpeg, _png])
def test_an_image_is_turned_as_pillow_turns_it(make, byte_order, orientation):
    encoded = make(_of(orientation, byte_order))
    pixels, size = _in_graph(encoded)
    want = _upright(encoded)
    assert want.shape[:2] == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))
    np.testing.assert_array_equal(size, want.shape[:2])
    # The tolerance is for other builds of libjpeg.
    np.testing.assert_allclose(pixels.numpy().astype(int), want, atol=1)


@pytest.mark.parametrize("make", [_jpeg, _png])
def test_a_window_is_that_of_the_upright_image(make):
    rng = np.random.default_rng(0)
    for orientation in range(1, 9):
        encoded = make(_of(orientation))
        whole = _in_graph(encoded)[0].numpy()
        height, width, _ = whole.shape
        for _ in range(4):
            y, x = rng.integers(0, height - 1), rng.integers(0, width - 1)
            h, w = rng.integers(1, height - y + 1), rng.integers(1, width - x + 1)
            got = _window(encoded, tf.constant([y, x, h, w], tf.int32))
            np.testing.assert_array_equal(got, whole[y : y + h, x : x + w])


# What cameras and programs write before EXIF data.
BEFORE = {
    "a comment": _segment(0xFE, b"made by hand"),
    "XMP, which is in the same kind of segment": _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
    "a colour profile": _segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000)),
    "bytes that fill a gap": b"\xff\xff\xff",
}


@pytest.mark.parametrize("keeps_jfif", [False, True])
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE.keys())
def test_exif_data_is_found_behind_other_segments(before, keeps_jfif):
    encoded = _jpeg(_of(6), before=before, keeps_jfif=keeps_jfif)
    assert _in_graph(encoded)[0].shape == (WIDTH, HEIGHT, 3) == _upright(encoded).shape


# EXIF data of which the orientation is not known, so that it counts as 1.
MALFORMED = {
    "orientation 0": _of(0),
    "orientation 9": _of(9),
    "orientation 65535": _of(65_535),
    "no entries": _tiff([]),
    "more entries than there are": _tiff([(0x010F, 4, 1, 7)], count=65_535),
    "two values": _tiff([(ORIENTATION, 3, 2, 6)]),
    "a value of another type": _tiff([(ORIENTATION, 1, 1, 6)]),
    "the directory outside": _tiff([(ORIENTATION, 3, 1, 6)], position=2**31 + 7),
    "the directory at the end": _tiff([(ORIENTATION, 3, 1, 6)], position=2**31 - 1),
    "the directory in the header": _tiff([(ORIENTATION, 3, 1, 6)], position=0),
    "no byte order": b"IM" + _of(6)[2:],
    "cut off": _of(6)[:13],
    "nothing": b"",
}


@pytest.mark.parametrize("make", [_jpeg, _png])
@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_exif_data_means_upright(make, data):
    pixels, _ = _in_graph(make(data))
    want = np.asarray(Image.open(io.BytesIO(make(data))).convert("RGB"))
    np.testing.assert_allclose(pixels.numpy().astype(int), want, atol=1)


def test_an_orientation_of_four_bytes_counts():
    assert _in_graph(_jpeg(_tiff([(ORIENTATION, 4, 1, 6)])))[0].shape == (WIDTH, HEIGHT, 3)


def test_a_search_in_random_bytes_ends_with_an_orientation():
    rng = np.random.default_rng(0)
    search = tf.function(
        lambda content: (exif.jpeg_orientation(content), exif.png_orientation(content)),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
    )
    sources = [_jpeg(_of(6), before=BEFORE["a comment"])[:200], _png(_of(6))[:200], b"", b"\xff"]
    for number in range(200):
        content = bytearray(sources[number % 4])
        for _ in range(min(len(content), rng.integers(1, 9))):
            content[rng.integers(len(content))] = rng.choice([0, 0xFF, 0xE1, 0x80, 1, 2])
        assert all(1 <= found <= 8 for found in search(bytes(content)))
