"""Corrupted images: functions of seed, image, corruption and severity."""

import sys

import numpy as np
import pytest

from simclr_tf import errors
from simclr_tf.data import corruption_names, corruptions

pytestmark = pytest.mark.exhaustive
package = pytest.importorskip("imagecorruptions", reason="the extra [robustness] is not installed")


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """Runs the glass blur, which takes 12 seconds to compile, without compiling it."""
    inner = package.corruptions._shuffle_pixels_njit_glass_blur
    monkeypatch.setattr(
        package.corruptions,
        "_shuffle_pixels_njit_glass_blur",
        getattr(inner, "py_func", inner),
    )


@pytest.fixture(scope="module")
def images():
    """Smooth images (4, 32, 32, 3) with edges, such as natural ones."""
    y, x = np.mgrid[0:32, 0:32] / 31
    waves = [np.sin((3 + i) * x + 2 * y) + np.cos(5 * y - i * x) for i in range(4)]
    scaled = np.stack([np.stack([w, -w, w**2 - 1], -1) for w in waves]) * 40 + 110
    scaled[:, 8:20, 10:25] += 60
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _distance(images, name, severity):
    corrupted = corruptions.corrupt(images, np.arange(4), name, severity, seed=0)
    assert corrupted.shape == images.shape and corrupted.dtype == np.uint8
    return np.mean((corrupted.astype(float) - images) ** 2) ** 0.5


def test_images_with_a_higher_severity_differ_more_from_the_original(images):
    distances = {
        name: [_distance(images, name, severity) for severity in (1, 3, 5)]
        for name in corruption_names.COMMON
    }
    assert min(min(values) for values in distances.values()) > 1
    rising = [name for name, (low, middle, high) in distances.items() if low < middle < high]
    assert len(rising) >= 13, distances  # Frost and fog are drawn, and may be weak by chance.


def test_the_package_has_the_15_corruptions_of_the_benchmark_and_4_more():
    assert list(corruption_names.COMMON) == package.get_corruption_names("common")
    assert set(corruption_names.NAMES) == set(package.get_corruption_names("all"))


# Of these, the first four draw from the global generator and the others from their own.
@pytest.mark.parametrize("name", ["gaussian_noise", "snow", "frost", "impulse_noise", "glass_blur"])
def test_a_corrupted_image_depends_on_seed_and_position_and_on_nothing_else(images, name):
    positions = np.array([3, 70_000, 5, 9])
    together = corruptions.corrupt(images, positions, name, 3, seed=0)
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    alone = corruptions.corrupt(images[1:2], positions[1:2], name, 3, seed=0)
    np.testing.assert_array_equal(alone[0], together[1])
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    for other in (
        corruptions.corrupt(images[1:2], positions[1:2], name, 3, seed=1),
        corruptions.corrupt(images[1:2], positions[2:3], name, 3, seed=0),
    ):
        assert not np.array_equal(other, alone)


def test_several_processes_make_the_same_images(images, monkeypatch):
    many, positions = np.tile(images, [5, 1, 1, 1]), np.arange(20)
    expected = corruptions.corrupt(many, positions, "gaussian_noise", 2, seed=0)
    monkeypatch.setattr(corruptions, "_FEW", 0)
    monkeypatch.setattr(corruptions, "_cores", lambda: 2)
    with corruptions.workers(20) as workers:
        assert workers.in_processes
        found = workers.corrupt(many, positions, "gaussian_noise", 2, seed=0)
    np.testing.assert_array_equal(found, expected)


def test_a_missing_package_is_a_sentence_with_the_remedy(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    corruptions._package.cache_clear()
    assert not corruption_names.is_installed()
    with pytest.raises(errors.UserError, match="pip install imagecorruptions-imaug"):
        corruptions.corrupt(images, np.arange(4), "fog", 1, seed=0)
