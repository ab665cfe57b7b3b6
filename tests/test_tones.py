"""Colour operations: each image of a batch against Pillow or float64 NumPy."""

import numpy as np
from PIL import Image, ImageOps
import pytest
import tensorflow as tf

from simclr_tf.data import random, tones

GREY = np.array([0.2989, 0.5870, 0.1140])


def _images(b=5, h=19, w=23):
    """Eight-bit images of different ranges, so that stretching and equalizing change them."""
    rng = np.random.default_rng(0)
    low, span = rng.integers(0, 90, (b, 1, 1, 3)), rng.integers(30, 160, (b, 1, 1, 3))
    levels = low + rng.beta(0.7, 2.0, (b, h, w, 3)) * span
    return (np.floor(levels) / 255).astype(np.float32)


def _apply(op, images, *args):
    result = op(tf.transpose(images, [0, 3, 1, 2]), *args)
    return tf.transpose(result, [0, 2, 3, 1]).numpy()


def _pil(op, image, *args):
    levels = np.round(image * 255).astype(np.uint8)
    return np.asarray(op(Image.fromarray(levels), *args)) / 255


def _blend(degenerate, image, factor):
    return np.clip(degenerate + factor * (image.astype(np.float64) - degenerate), 0, 1)


def test_invert_and_solarize_equal_numpy():
    images, thresholds = _images(), np.array([0.0, 0.2, 0.5, 1.0, 256 / 255], np.float32)
    np.testing.assert_allclose(_apply(tones.invert, images), 1 - images, atol=1e-7)
    got = _apply(tones.solarize, images, thresholds)
    for image, threshold, result in zip(images, thresholds, got):
        np.testing.assert_allclose(result, np.where(image < threshold, image, 1 - image), atol=1e-6)


def test_solarize_equals_pillow():
    images = _images()
    got = _apply(tones.solarize, images, np.full(5, 100 / 255, np.float32))
    for image, result in zip(images, got):
        np.testing.assert_allclose(result, _pil(ImageOps.solarize, image, 100), atol=1e-6)


def test_solarize_add_equals_numpy():
    images, additions = _images(), np.linspace(0, 110 / 255, 5).astype(np.float32)
    got = _apply(tones.solarize_add, images, additions)
    for image, addition, result in zip(images, additions, got):
        want = np.where(image < 128 / 255, np.minimum(image + addition, 1), image)
        np.testing.assert_allclose(result, want, atol=1e-6)


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8])
def test_posterize_equals_pillow(bits):
    images = _images()
    got = _apply(tones.posterize, images, np.full(5, bits))
    for image, result in zip(images, got):
        np.testing.assert_allclose(result, _pil(ImageOps.posterize, image, bits), atol=1e-6)


def test_posterize_to_no_bits_is_black():
    assert not _apply(tones.posterize, _images(), np.zeros(5)).any()


@pytest.mark.parametrize(("height", "width"), [(19, 23), (64, 64), (8, 8)])
def test_equalize_equals_pillow(height, width):
    images = _images(5, height, width)
    images[0, ..., 0], images[1] = 0.2, 1.0  # A channel, and an image, of one value.
    images[2, ..., 1] = np.where(images[2, ..., 1] < 0.3, 0.0, 1.0)  # Two values.
    got = _apply(tones.equalize, images)
    for image, result in zip(images, got):
        np.testing.assert_allclose(result, _pil(ImageOps.equalize, image), atol=1e-6)


def test_autocontrast_stretches_each_channel_to_the_whole_range():
    images = _images()
    images[0, ..., 0] = 0.3
    got = _apply(tones.autocontrast, images)
    for image, result in zip(images.astype(np.float64), got):
        low, high = image.min((0, 1)), image.max((0, 1))
        want = np.where(high > low, (image - low) / np.where(high > low, high - low, 1), image)
        np.testing.assert_allclose(result, want, atol=1e-6)
    for image, result in zip(images, got):  # Pillow truncates to whole levels.
        assert np.abs(result - _pil(ImageOps.autocontrast, image)).max() < 1.01 / 255


@pytest.mark.parametrize("name", ["brightness", "contrast", "color", "sharpness"])
def test_enhancements_equal_pillows_definitions_in_float64(name):
    images, factors = _images(), np.array([0.0, 0.1, 1.0, 1.4, 1.9], np.float32)
    got = _apply(getattr(tones, name), images, factors)
    for image, factor, result in zip(images.astype(np.float64), factors, got):
        grey = image @ GREY
        degenerate = {
            "brightness": 0.0,
            "contrast": grey.mean(),
            "color": grey[..., None],
            "sharpness": _smooth(image),
        }[name]
        np.testing.assert_allclose(result, _blend(degenerate, image, factor), atol=1e-5)


def _smooth(image):
    kernel, smooth = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13, image.copy()
    for y in range(1, image.shape[0] - 1):
        for x in range(1, image.shape[1] - 1):
            smooth[y, x] = np.einsum("ij,ijc->c", kernel, image[y - 1 : y + 2, x - 1 : x + 2])
    return smooth


def test_sobel_equals_tensorflows():
    images = _images()
    edges = tf.image.sobel_edges(tf.constant(images))  # (b, h, w, 3, 2)
    want = np.clip(np.linalg.norm(edges, axis=-1), 0, 1)
    np.testing.assert_allclose(_apply(tones.sobel, images), want, atol=1e-5)


def test_noise_is_normal_and_clipped():
    noise = random.normal(tf.constant([1, 2]), (20000,)).numpy()
    assert noise.mean() == pytest.approx(0, abs=0.03) and noise.std() == pytest.approx(1, abs=0.02)
    assert np.mean(np.abs(noise) > 1.96) == pytest.approx(0.05, abs=0.01)
    assert np.all(np.isfinite(noise))
    images = tf.fill([2, 3, 4, 4], 0.9)
    np.testing.assert_allclose(tones.add_noise(images, tf.fill([2, 3, 4, 4], 0.3)), 1.0)
