"""Tests of simclr_tf.data.decode: every kind of image file against Pillow's own reading of it."""

import io
import struct
import zlib

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from simclr_tf.data import decode


def _noise(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 7, 3), np.uint8))


def _gradient():
    y, x = np.mgrid[:40, :30]
    return Image.fromarray(np.stack([y * 6, x * 8, (x + y) * 3], axis=-1).astype(np.uint8))


def _encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _by_pillow(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def _png_16_bit(samples, colour_type):
    """Writes (h, w, c) uint16 samples as a PNG, which Pillow cannot for more than one channel."""

    def chunk(tag, data):
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    height, width, _ = samples.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


KINDS = ("PNG", "JPEG", "BMP", "GIF")
CUT_SHORT = [_encoded(_gradient(), kind)[:60] for kind in KINDS]


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    + [("BMP", mode) for mode in ("L", "P", "RGB", "RGBA")]
    + [("GIF", mode) for mode in ("L", "P")],
)
def test_lossless_kinds_have_the_pixels_that_pillow_reads(kind, mode):
    encoded = _encoded(_noise().convert(mode), kind)
    got = decode.decode_image(encoded)
    assert got.dtype == tf.uint8
    np.testing.assert_array_equal(got, _by_pillow(encoded))


@pytest.mark.parametrize(("mode", "tolerance"), [("L", 1), ("RGB", 1), ("CMYK", 3)])
def test_jpeg_is_what_pillow_reads(mode, tolerance):
    # The tolerance is for other builds of libjpeg; TensorFlow's default transform is 5 off here.
    encoded = _encoded(_gradient().convert(mode), "JPEG", quality=95)
    got = decode.decode_image(encoded).numpy().astype(int)
    np.testing.assert_allclose(got, _by_pillow(encoded), atol=tolerance)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_png_keeps_the_upper_byte_and_drops_alpha(colour_type, channels):
    samples = np.random.default_rng(1).integers(0, 65536, (5, 4, channels), np.uint16)
    colours = samples[:, :, : 3 if channels > 2 else 1]
    want = np.broadcast_to(colours / 257, (5, 4, 3))
    got = decode.decode_image(_png_16_bit(samples, colour_type)).numpy()
    assert np.abs(got - want).max() <= 1


def test_alpha_is_dropped_and_not_blended():
    pixels = np.zeros((3, 2, 4), np.uint8)
    pixels[..., 0] = 200  # red, wholly transparent
    got = decode.decode_image(_encoded(Image.fromarray(pixels), "PNG"))
    np.testing.assert_array_equal(got, np.broadcast_to([200, 0, 0], (3, 2, 3)))


def test_a_bmp_palette_of_few_colours_is_looked_up():
    image = Image.new("P", (3, 2))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2, 2, 1, 0])
    encoded = _encoded(image, "BMP")
    want = [[[10, 20, 30], [40, 50, 60], [70, 80, 90]], [[70, 80, 90], [40, 50, 60], [10, 20, 30]]]
    np.testing.assert_array_equal(decode.decode_image(encoded), want)


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    encoded = _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    got = decode.decode_image(encoded)
    np.testing.assert_array_equal(got, np.broadcast_to([255, 0, 0], (3, 4, 3)))


def test_kinds_mix_in_one_graph():
    images = [_encoded(_noise(1).convert(m), k) for k, m in [("PNG", "L"), ("BMP", "P")]]
    images += [
        _encoded(_noise(2), "GIF"),
        _encoded(_noise(3), "BMP"),
        _encoded(_gradient(), "JPEG"),
    ]
    dataset = tf.data.Dataset.from_tensor_slices(images).map(decode.decode_image)
    assert dataset.element_spec.shape.as_list() == [None, None, 3]
    for got, encoded in zip(dataset, images):
        np.testing.assert_array_equal(got, decode.decode_image(encoded))


@pytest.mark.parametrize(
    "corrupt",
    [
        *(b"", b"B", b"BM", b"BM" + 60 * b"\0", b"a letter to my aunt"),
        *CUT_SHORT,
        _encoded(_noise().convert("P"), "BMP")[:-9],
    ],
)
def test_corrupt_bytes_raise_invalid_argument(corrupt):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode.decode_image(corrupt)


def _error_in_graph(function, content):
    """Returns the error of a function that tf.data maps."""
    stream = tf.data.Dataset.from_tensors(content).map(function, num_parallel_calls=2)
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        next(iter(stream.prefetch(1)))
    return raised.value


@pytest.mark.parametrize("content", [b"a letter", *CUT_SHORT], ids=["text", *KINDS])
@pytest.mark.parametrize(
    "function",
    [
        decode.decode_image,
        lambda content: decode.decode_window(content, tf.constant([0, 0, 9, 9])),
        lambda content: decode.decode_batch(content[tf.newaxis], (40, 30), "png"),
    ],
    ids=["image", "window", "batch"],
)
def test_a_decode_error_is_recognised(function, content):
    assert decode.is_decode_error(_error_in_graph(function, content))


def _failed_assertion(image):
    with tf.control_dependencies([tf.debugging.Assert(tf.size(image) == 0, ["decode_encoded"])]):
        return tf.identity(image)


@pytest.mark.parametrize(
    "function",
    [
        lambda image: tf.ensure_shape(image, [3, 3, 3]),
        lambda image: tf.io.decode_png(tf.strings.as_string(image[0, 0, 0])),
        _failed_assertion,
    ],
    ids=["shape", "decoder elsewhere", "assertion"],
)
def test_another_error_is_not_taken_for_a_decode_error(function):
    error = _error_in_graph(
        lambda content: function(decode.decode_image(content)), _encoded(_noise(), "PNG")
    )
    assert not decode.is_decode_error(error)
