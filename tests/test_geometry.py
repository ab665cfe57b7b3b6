"""Geometric operations: each image of a batch against an oracle."""

import numpy as np
import pytest
from scipy import stats
import tensorflow as tf

from simclr_tf.data import geometry

SEED = tf.constant([3, 5])


def _images(b=4, s=21):
    return np.random.default_rng(0).uniform(size=(b, s, s, 3)).astype(np.float32)


def _apply(op, images, *args, **kwargs):
    result = op(tf.transpose(images, [0, 3, 1, 2]), *args, **kwargs)
    return tf.transpose(result, [0, 2, 3, 1]).numpy()


def _projective(image, row, fill=geometry.GREY):
    """Transforms one image by TensorFlow's kernel."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[np.newaxis],
        transforms=tf.concat([row, [0.0, 0.0]], 0)[np.newaxis],
        output_shape=image.shape[:2],
        fill_value=fill,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]


def test_turns_equal_rot90():
    images = _images()
    got = _apply(geometry.turn, images, tf.range(4))
    for k, image in enumerate(images):
        np.testing.assert_array_equal(got[k], np.rot90(image, k))


def test_turns_are_equally_likely():
    counts = np.bincount(geometry.sample_turns(SEED, 8000), minlength=4)
    assert len(counts) == 4 and stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("kind", ["rotation", "shear", "translation"])
def test_transforms_equal_tensorflows_kernel(kind):
    images, by = _images(6), tf.constant([-29.3, -11.1, 0.0, 3.3, 17.2, 29.9])
    maps = {
        "rotation": lambda: geometry.rotation(by, 21, 21),
        "shear": lambda: geometry.shear(by / 100, by / 77),
        "translation": lambda: geometry.translation(by / 4, by / 3),
    }[kind]()
    got = _apply(geometry.transform, images, maps)
    for image, row, result in zip(images, maps, got):
        np.testing.assert_array_equal(result, _projective(image, row))


def test_rotation_and_translation_equal_tensorflow_addons():
    tfa_image = pytest.importorskip("tensorflow_addons.image")
    images, degrees = _images(3), np.array([-25.3, 10.7, 29.9], np.float32)
    got = _apply(geometry.transform, images, geometry.rotation(tf.constant(degrees), 21, 21))
    want = tfa_image.rotate(images, np.deg2rad(degrees), fill_value=geometry.GREY)
    np.testing.assert_array_equal(got, want)
    by = tf.constant([-3.0, 2.0, 5.0])
    got = _apply(geometry.transform, images, geometry.translation(by, -by))
    for image, x, result in zip(images, by, got):
        want = tfa_image.translate_xy(np.round(image * 255).astype(np.uint8), [-x, x], 128)
        np.testing.assert_array_equal(np.round(result * 255), want)


def test_an_identity_map_changes_nothing():
    images = _images()
    zeros = tf.zeros([4])
    for maps in (geometry.rotation(zeros, 21, 21), geometry.shear(zeros, zeros)):
        np.testing.assert_array_equal(_apply(geometry.transform, images, maps), images)


def test_cutout_covers_its_box_and_nothing_else():
    images, boxes = _images(3), [[0, 0, 5, 4], [10, 3, 21 - 10, 2], [7, 7, 0, 0]]
    got = _apply(geometry.cutout, images, tf.constant(boxes), fill=0.25)
    for image, (y, x, h, w), result in zip(images, boxes, got):
        want = image.copy()
        want[y : y + h, x : x + w] = 0.25
        np.testing.assert_array_equal(result, want)


def test_cutout_equals_that_of_tensorflow_addons():
    tfa_image = pytest.importorskip("tensorflow_addons.image")
    images, centres = _images(4, 20), np.array([[3, 4], [10, 10], [0, 19], [15, 2]], np.int32)
    boxes = geometry.boxes_around(tf.constant(centres), tf.fill([4], 4), 20)
    got = _apply(geometry.cutout, images, boxes, fill=0.0)
    np.testing.assert_array_equal(got, tfa_image.cutout(images, (8, 8), centres))


def test_cutouts_are_squares_centred_anywhere():
    boxes = geometry.sample_cutout(SEED, 4000, 40, fraction=0.5).numpy()
    assert np.all(boxes[:, :2] >= 0) and np.all(boxes[:, :2] + boxes[:, 2:] <= 40)
    inside = np.all((boxes[:, :2] > 0) & (boxes[:, :2] + boxes[:, 2:] < 40), axis=1)
    np.testing.assert_array_equal(boxes[inside, 2:], 20)
    centre = boxes[inside, 0] + 10
    counts = np.bincount(centre - centre.min())
    assert stats.chisquare(counts).pvalue > 0.01


def test_warp_equals_that_of_tensorflow_addons():
    tfa_image = pytest.importorskip("tensorflow_addons.image")
    images = _images(5, 24)
    moves = geometry.sample_warp(SEED, 5, 24)
    moves = tf.concat([moves[:4], tf.zeros([1, 4, 2])], 0)
    got = _apply(geometry.warp, images, moves, tf.fill([5], True))
    points = np.array([[i * 8, j * 8] for i in (1, 2) for j in (1, 2)], np.float32)
    for image, move, result in zip(images, moves, got):
        want = tfa_image.sparse_image_warp(
            image[np.newaxis], points[np.newaxis], (points + move)[np.newaxis]
        )[0][0]
        np.testing.assert_allclose(result, want, atol=2e-4)  # It solves the spline in float32.
    np.testing.assert_allclose(got[4], images[4], atol=1e-6)


def test_warp_does_not_change_images_without_a_flag():
    images, moves = _images(4, 24), geometry.sample_warp(SEED, 4, 24)
    got = _apply(geometry.warp, images, moves, tf.constant([True, False, True, False]))
    np.testing.assert_array_equal(got[1::2], images[1::2])
    assert np.abs(got - images)[::2].max() > 0.05


def test_warps_move_points_by_about_a_tenth_of_the_side():
    moves = geometry.sample_warp(SEED, 20000, 224).numpy()
    # The product of a uniform length up to 23 and a normal direction.
    assert np.std(moves) == pytest.approx(23 / np.sqrt(3), rel=0.03)
    assert np.mean(moves) == pytest.approx(0, abs=0.2)
