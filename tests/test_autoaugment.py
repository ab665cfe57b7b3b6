"""AutoAugment and RandAugment: what is drawn, and that each image gets its own operations."""

import numpy as np
import pytest
from scipy import stats
import tensorflow as tf

from simclr_tf.data import autoaugment, tones

SEED = tf.constant([3, 5])


def _images(b=4, s=16):
    return np.random.default_rng(0).uniform(size=(b, 3, s, s)).astype(np.float32)


def _params(names, magnitudes):
    """Returns one op for each image."""
    op = tf.constant([[autoaugment.OPS.index(name)] for name in names])
    magnitude = tf.constant([[m] for m in magnitudes], tf.float32)
    return autoaugment.PolicyParams(op, magnitude, tf.fill([len(names), 1, 2], 0.4))


def test_each_image_gets_its_own_op():
    images = _images(5)
    names = ["none", "invert", "solarize", "equalize", "brightness"]
    got = autoaugment.apply_policy(images, _params(names, [0, 0, 0.4, 0, 0.3])).numpy()
    np.testing.assert_array_equal(got[0], images[0])
    np.testing.assert_allclose(got[1], 1 - images[1], atol=1e-6)
    np.testing.assert_array_equal(got[2:3], tones.solarize(images[2:3], tf.constant([0.4])))
    np.testing.assert_array_equal(got[3:4], tones.equalize(images[3:4]))
    np.testing.assert_allclose(got[4], 0.3 * images[4], atol=1e-6)


def test_ops_follow_one_another():
    images = _images(1)
    op = tf.constant([[autoaugment.OPS.index("solarize"), autoaugment.OPS.index("invert")]])
    params = autoaugment.PolicyParams(op, tf.constant([[0.4, 0.0]]), tf.zeros([1, 2, 2]))
    want = 1 - tones.solarize(images, tf.constant([0.4]))
    np.testing.assert_allclose(autoaugment.apply_policy(images, params), want, atol=1e-6)


@pytest.mark.parametrize("name", autoaugment.OPS[1:])
def test_every_op_changes_an_image_and_stays_in_range(name):
    level = 3 if name == "solarize" else 9  # At 9 it inverts nothing here.
    magnitude = autoaugment.magnitude_of(name, level, translate=0.4)
    got = autoaugment.apply_policy(_images(1) * 0.8, _params([name], [magnitude])).numpy()
    assert got.min() >= 0 and got.max() <= 1
    assert np.abs(got - 0.8 * _images(1)).max() > 0.02


def test_translations_and_cutouts_are_fractions_of_the_side():
    images = _images(2, 20)
    got = autoaugment.apply_policy(images, _params(["translate_x", "cutout"], [0.25, 0.2])).numpy()
    np.testing.assert_array_equal(got[0, :, :, :15], images[0, :, :, 5:])
    covered = np.all(np.isclose(got[1], 128 / 255), axis=0)
    assert covered.sum() == 64 and covered[4:12, 4:12].all()  # 2 * 4 pixels around (8, 8)


@pytest.mark.parametrize(
    ("op", "level", "want"),
    [
        ("rotate", 10, 30.0),
        ("shear_x", 5, 0.15),
        ("translate_y", 5, 0.2),
        ("color", 0, 0.1),
        ("sharpness", 10, 1.9),
        ("posterize", 6, 2.0),
        ("solarize", 3, 76 / 255),
        ("solarize_add", 7, 77 / 255),
        ("invert", 7, 0.0),
    ],
)
def test_levels_have_the_meaning_of_the_published_code(op, level, want):
    assert autoaugment.magnitude_of(op, level, translate=0.4) == pytest.approx(want)


def test_for_cifar_higher_levels_solarize_and_posterize_more():
    assert autoaugment.magnitude_of("solarize", 10, translate=0, higher_is_stronger=True) == 0
    assert autoaugment.magnitude_of("posterize", 7, translate=0, higher_is_stronger=True) == 2


def test_randaugment_draws_all_ops_equally_often_and_applies_half():
    params = autoaugment.sample_randaugment(SEED, 20000, num_layers=3, level=5)
    assert params.op.shape == (20000, 3)
    op = params.op.numpy().ravel()
    assert np.mean(op == 0) == pytest.approx(0.5, abs=0.01)
    counts = np.bincount(op, minlength=len(autoaugment.OPS))[1:]
    assert stats.chisquare(counts).pvalue > 0.01
    rotated = params.magnitude.numpy().ravel()[op == autoaugment.OPS.index("rotate")]
    assert set(np.round(rotated, 4)) == {15.0, -15.0}
    assert np.mean(rotated > 0) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("policy", ["imagenet", "cifar10"])
def test_autoaugment_draws_its_25_sub_policies(policy):
    ops, probabilities, magnitudes = (np.array(x) for x in autoaugment._TABLES[policy])
    assert ops.shape == probabilities.shape == magnitudes.shape == (25, 2)
    params = autoaugment.sample_autoaugment(SEED, 50000, policy=policy)
    drawn = params.op.numpy()
    # The expected frequency of each pair of ops, from the table.
    want = {}
    for pair, chance in zip(ops, probabilities):
        for first in (0, 1):
            for second in (0, 1):
                weight = np.prod(np.where([first, second], chance, 1 - chance)) / 25
                key = (pair[0] * first, pair[1] * second)
                want[key] = want.get(key, 0) + weight
    found = {key: np.mean((drawn == key).all(1)) for key in want}
    assert sum(found.values()) == pytest.approx(1)
    for key, probability in want.items():
        assert found[key] == pytest.approx(probability, abs=0.006), key


def test_the_ops_of_cifar_are_those_of_its_paper():
    ops, _, magnitudes = autoaugment._TABLES["cifar10"]
    names = {autoaugment.OPS[i] for pair in ops for i in pair}
    assert "translate_y" in names and "cutout" not in names
    moved = np.array(magnitudes)[np.array(ops) == autoaugment.OPS.index("translate_y")]
    assert max(moved) == pytest.approx(0.9 * 10 / 32)  # Ten of 32 pixels at level 10.
