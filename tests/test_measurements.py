"""Studies that train nothing: histograms of crops, and gradients at easy and hard positives."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.evaluation import color_histograms
from simclr_tf.losses import positive_gradients
from simclr_tf.studies import definition, measurements


def test_histograms_are_those_of_numpy():
    views = np.random.default_rng(0).uniform(size=(3, 6, 6, 3)).astype(np.float32)
    views[0, 0, 0] = 1.0  # The upper end belongs to the last bin.
    found = color_histograms.histograms(views)
    for view, of_view in zip(views, found, strict=True):
        of_channels = np.split(of_view, 3)
        for channel, fractions in enumerate(of_channels):
            counts, _ = np.histogram(
                view[..., channel], bins=color_histograms.BINS, range=(0.0, 1.0)
            )
            np.testing.assert_allclose(fractions, counts / 36)


def test_a_view_is_recognised_if_only_its_own_image_has_the_nearest_histogram():
    colors = np.array([[0.1, 0.2, 0.3], [0.9, 0.2, 0.3], [0.1, 0.8, 0.3], [0.1, 0.8, 0.3]])
    first = np.ones((4, 5, 5, 3)) * colors[:, None, None]
    # The last two images have the same histogram.
    assert list(color_histograms.recognised(first, first)) == [True, True, False, False]
    # The other views of the first two images are exchanged.
    assert list(color_histograms.recognised(first, first[[1, 0, 2, 3]])) == [False] * 4


def test_crops_are_recognised_whatever_their_pixels_order():
    rng = np.random.default_rng(0)
    first = rng.uniform(size=(6, 1, 1, 3)) + rng.normal(0, 0.02, (6, 8, 8, 3))
    first = first.clip(0, 1)
    shuffled = first.reshape(6, 64, 3)[:, rng.permutation(64)].reshape(6, 8, 8, 3)
    assert color_histograms.recognised(first, shuffled).all()


@pytest.mark.parametrize("cosine", [-0.4, 0.0, 0.9])
def test_gradients_are_those_of_the_formula(cosine):
    images, dimensions, temperature = 6, 8, 0.3
    norms = positive_gradients.norms(
        cosine, images=images, dimensions=dimensions, temperature=temperature, seed=1
    )
    drawn = tf.random.stateless_normal([2, images, dimensions], [1, 0]).numpy().astype(np.float64)
    first = drawn[0] / np.linalg.norm(drawn[0], axis=1, keepdims=True)
    across = drawn[1] - first * np.sum(drawn[1] * first, 1, keepdims=True)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    second = cosine * first + np.sqrt(1 - cosine**2) * across

    def loss(w):
        z = np.concatenate([w / np.linalg.norm(w, axis=1, keepdims=True), second])
        exponentials = np.exp(z @ z.T / temperature)
        np.fill_diagonal(exponentials, 0)
        positives = np.roll(np.arange(2 * images), images)
        return -np.sum(np.log(exponentials[np.arange(2 * images), positives] / exponentials.sum(1)))

    expected = np.zeros_like(first)
    for index in np.ndindex(*first.shape):
        step = np.zeros_like(first)
        step[index] = 1e-5
        expected[index] = (loss(first + step) - loss(first - step)) / 2e-5
    np.testing.assert_allclose(norms, np.linalg.norm(expected, axis=1), rtol=2e-3)


def test_every_measurement_has_a_name_for_files_of_studies():
    assert set(measurements.MEASUREMENTS) == set(definition.MEASUREMENTS)
