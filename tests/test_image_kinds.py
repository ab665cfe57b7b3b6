"""Kinds of images that TensorFlow does not decode: decoded by Pillow, or refused by their name."""

import io
import struct

import numpy as np
import PIL
from PIL import Image, ImageOps, features
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf.data import crops, decode, inspection, kinds, pillow, policies
from simclr_tf.models import simclr
from simclr_tf.serving import export

HEIGHT, WIDTH = 9, 14


def _picture(mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _bmp(bits, rows, *, palette=b"", compression=0, old_header=False):
    """Returns a BMP of (HEIGHT, WIDTH); `rows` are its pixels as stored, from the bottom up."""
    if old_header:
        header = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, bits)
    else:
        header = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, bits, compression, *5 * [0])
    start = 14 + len(header) + len(palette)
    size = start + len(rows)
    return b"BM" + struct.pack("<IHHI", size, 0, 0, start) + header + palette + rows


def _rows(pixels):
    """Returns rows of bytes from the bottom up, each filled up to four bytes."""
    return b"".join(row + bytes(-len(row) % 4) for row in pixels[::-1])


_COLOURS = np.random.default_rng(1).integers(0, 256, (16, 3), np.uint8)
_INDICES = np.random.default_rng(2).integers(0, 16, (HEIGHT, WIDTH))
_RGB = np.asarray(_picture())
_PALETTE = b"".join(bytes([*colour[::-1], 0]) for colour in _COLOURS)
_PALETTE_256 = _PALETTE + bytes(4 * 240)
_FIVE_BITS = _RGB.astype(np.uint16) >> 3
_SIXTEEN = _FIVE_BITS[..., 0] << 10 | _FIVE_BITS[..., 1] << 5 | _FIVE_BITS[..., 2]
# A run of length 1 for each pixel, then the end of the row; at last the end of the image.
_RUNS = b"".join(b"".join(bytes([1, index]) for index in row) + b"\0\0" for row in _INDICES[::-1])
# The file, and its pixels.
BMP = {
    "OS/2, 24 bits": (_bmp(24, _rows([r[:, ::-1].tobytes() for r in _RGB]), old_header=True), _RGB),
    "1 bit": (
        _bmp(1, _rows([np.packbits(r % 2).tobytes() for r in _INDICES]), palette=_PALETTE[:8]),
        _COLOURS[_INDICES % 2],
    ),
    "4 bits": (
        _bmp(
            4,
            _rows([(r[::2] << 4 | r[1::2]).astype(np.uint8).tobytes() for r in _INDICES]),
            palette=_PALETTE,
        ),
        _COLOURS[_INDICES],
    ),
    "16 bits": (
        _bmp(16, _rows([r.astype("<u2").tobytes() for r in _SIXTEEN])),
        (_FIVE_BITS << 3 | _FIVE_BITS >> 2).astype(np.uint8),
    ),
    "compressed": (
        _bmp(8, _RUNS + b"\0\1", palette=_PALETTE_256, compression=1),
        _COLOURS[_INDICES],
    ),
}


@pytest.mark.parametrize(("encoded", "pixels"), BMP.values(), ids=BMP.keys())
def test_rare_kinds_of_bmp_are_decoded(encoded, pixels):
    assert decode.needs_pillow(encoded)
    np.testing.assert_array_equal(decode.image_size(encoded), (HEIGHT, WIDTH))
    np.testing.assert_allclose(decode.decode_image(encoded).numpy().astype(int), pixels, atol=1)


OTHERS = {
    **{f"WebP {mode}": ("WEBP", mode, {"lossless": True}) for mode in ("RGB", "RGBA")},
    "WebP, lossy": ("WEBP", "RGB", {}),
    **{f"TIFF {mode}": ("TIFF", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")},
    "TIFF, compressed": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "TIFF of old": ("TIFF", "RGB", {"big_tiff": True}),
    "AVIF": ("AVIF", "RGB", {}),
    "JPEG 2000": ("JPEG2000", "RGB", {}),
}


@pytest.mark.parametrize(("kind", "mode", "options"), OTHERS.values(), ids=OTHERS.keys())
def test_other_kinds_are_decoded_by_pillow_in_a_graph(kind, mode, options):
    encoded = _encoded(_picture(mode), kind, **options)
    want = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    stream = tf.data.Dataset.from_tensors(encoded).map(decode.decode_image)
    np.testing.assert_array_equal(next(iter(stream)), want)
    window = decode.decode_window(encoded, tf.constant([2, 3, 4, 5]))
    np.testing.assert_array_equal(window, want[2:6, 3:8])
    assert inspection.inspect_example(_example(encoded)).unreadable is None


def _example(encoded):
    return {"name": b"a", "image": encoded, "label": 0}


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_other_kinds_are_turned_upright(kind, orientation):
    encoded = _encoded(_picture(), kind, exif=_exif(orientation))
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
    np.testing.assert_array_equal(decode.decode_image(encoded), want)
    np.testing.assert_array_equal(decode.image_size(encoded), want.shape[:2])


def test_a_file_may_end_with_zeros():
    for encoded in (_encoded(Image.new("RGB", (4, 3)), "TIFF"), _bmp(16, bytes(9 * 28))):
        assert encoded[-4:] == bytes(4)
        stream = tf.data.Dataset.from_tensors(encoded).map(decode.decode_image)
        for pixels in (next(iter(stream)), decode.decode_image(encoded)):
            assert not pixels.numpy().any()


def test_a_16_bit_tiff_keeps_the_upper_byte():
    samples = np.random.default_rng(3).integers(0, 65536, (HEIGHT, WIDTH), np.uint16)
    got = decode.decode_image(_encoded(Image.fromarray(samples), "TIFF"))
    np.testing.assert_array_equal(got, np.repeat(samples[..., np.newaxis] >> 8, 3, axis=2))


def _why(encoded, **options):
    return inspection.inspect_example(_example(encoded), **options).unreadable


REFUSED = {
    "HEIC": (b"\0\0\0\x18ftypheic", f"is a HEIC image, which Pillow {PIL.__version__} cannot read"),
    "JPEG XL": (b"\xff\x0a" + bytes(9), "is a JPEG XL image, which this program cannot read"),
    "HTML": (b"<!DOCTYPE html><html>", "is an HTML page, not an image"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1", "is a pointer of Git LFS"),
    "nothing": (b"", "is empty"),
    "text like BMP": (b"BMW is a brand", f"is not a {kinds.SUPPORTED} image"),
    "text like GIF": (b"GIVEN that", f"is not a {kinds.SUPPORTED} image"),
    "32 bits": (
        _encoded(Image.fromarray(np.zeros((3, 4), np.float32)), "TIFF"),
        "has samples of 32 bits",
    ),
    "WebP, cut off": (
        _encoded(_picture(), "WEBP")[:60],
        "is a WebP image that Pillow cannot read (",
    ),
    "TIFF, cut off": (
        _encoded(_picture(), "TIFF")[:60],
        "is a TIFF image that Pillow cannot read (",
    ),
    "PNG without a header": (b"\x89PNG\r\n\x1a\n" + 40 * b"\xff", "is corrupt or truncated"),
    "BMP of negative width": (
        _encoded(_picture(), "BMP")[:18] + struct.pack("<ii", -30_000, -30_000) + bytes(4_000),
        "is a BMP image that Pillow cannot read",
    ),
}


@pytest.mark.parametrize(("encoded", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_decoded_is_named_as_what_it_is(encoded, reason):
    assert _why(encoded).startswith(reason)


def test_a_kind_for_which_pillow_lacks_its_library_is_refused(monkeypatch):
    encoded = _encoded(_picture(), "AVIF")
    monkeypatch.setattr(features, "get_supported", lambda: ["webp"])
    assert _why(encoded) == (
        f"is an AVIF image, which Pillow {PIL.__version__} cannot read (convert it to JPEG or PNG)"
    )


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "AVIF"])
def test_the_limit_of_pixels_comes_before_decoding(kind, monkeypatch):
    encoded = _encoded(_picture(), kind)
    monkeypatch.setattr(decode, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    monkeypatch.setattr(pillow, "_rgb", None)
    assert _why(encoded) == "has more than 125 pixels"


def test_a_run_whose_input_is_made_elsewhere_refuses_what_needs_pillow():
    encoded = _encoded(_picture(), "WEBP")
    reason = "is a WebP image, which a remote worker cannot read (convert it to JPEG or PNG)"
    assert _why(encoded, with_pillow=False) == reason
    with pytest.raises(tf.errors.InvalidArgumentError, match="is a WebP image, which TensorFlow"):
        crops.crop_encoded(
            encoded, tf.constant([1, 2]), policies.Policy(8), num_views=2, with_pillow=False
        )
    assert _why(_encoded(_picture(), "BMP"), with_pillow=False) is None


@pytest.fixture(scope="module")
def serving_strictly(tmp_path_factory):
    model = simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=3)
    folder = export.export(model, str(tmp_path_factory.mktemp("served")), 1)
    serve = tf.saved_model.load(folder).signatures["serving_bytes_strict"]
    return lambda *files: serve(tf.constant(files))["features"].numpy()


# What a SavedModel refuses, and the sentence.
SERVED = {
    "WebP": (_encoded(_picture(), "WEBP"), "The image is a WebP image, which TensorFlow alone"),
    "AVIF": (_encoded(_picture(), "AVIF"), "The image is an AVIF image, which TensorFlow alone"),
    "OS/2": (BMP["OS/2, 24 bits"][0], "The image is a BMP image of a rare variant, which"),
    "text": (b"BMW is a brand", "The image is not a JPEG, PNG, GIF or BMP file."),
}


@pytest.mark.parametrize(("encoded", "sentence"), SERVED.values(), ids=SERVED.keys())
def test_a_saved_model_refuses_what_needs_pillow_in_a_sentence(serving_strictly, encoded, sentence):
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        serving_strictly(encoded)


def test_a_saved_model_turns_photos_upright(serving_strictly):
    y, x = np.mgrid[:16, :16]
    picture = Image.fromarray(np.stack([y * 15, x * 9, (x + y) * 4], -1).astype(np.uint8))
    turned = _encoded(picture, "PNG", exif=_exif(6))
    upright = _encoded(ImageOps.exif_transpose(Image.open(io.BytesIO(turned))), "PNG")
    lying, got, want = serving_strictly(_encoded(picture, "PNG"), turned, upright)
    np.testing.assert_array_equal(got, want)
    assert np.abs(got - lying).max() > 1e-3
