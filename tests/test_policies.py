"""Policies by name, and their views: the same on host and device, whole or in subsets."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import config, errors
from simclr_tf.data import augment, operation_names, policies, random, views
from simclr_tf.runs import builders

SEED = tf.constant([3, 5])


def _images(b=6, h=28, w=34):
    return np.random.default_rng(0).uniform(size=(b, h, w, 3)).astype(np.float32)


def test_every_operation_has_its_name_and_a_description():
    assert list(policies.OPERATIONS) == list(operation_names.OPERATIONS)
    assert all(operation_names.OPERATIONS.values())


@pytest.mark.parametrize(
    ("augmentation", "ops"),
    [
        ("supervised", ("crop", "flip")),
        ("crop,color", ("crop", "color_jitter", "color_drop")),
        ("sobel , rotate", ("sobel", "rotate")),
        ("crop,autoaugment", ("crop", "autoaugment")),
        ("sobel,crop", ("sobel", "later_crop")),
        ("stacked_randaugment", operation_names.POLICIES["stacked_randaugment"]),
    ],
)
def test_a_policy_is_a_name_or_a_list(augmentation, ops):
    assert operation_names.parse(augmentation) == ops
    config.validate(config.Config(augmentation=augmentation))


@pytest.mark.parametrize(
    ("augmentation", "says"),
    [
        ("randaugmnt", "did you mean randaugment"),
        ("crop,blurr", "'blurr', which is not an operation .did you mean blur.*; give a policy"),
        ("", "'', which is not an operation; give a policy .simclr, supervised, autoaugment"),
        ("crop,blur,blur", "names blur twice"),
        ("crop,color,color_drop", "names color_drop twice"),
        ("crop,blur,crop", "names crop twice"),
    ],
)
def test_what_is_not_a_policy_is_refused(augmentation, says):
    with pytest.raises(errors.UserError, match=says):
        config.validate(config.Config(augmentation=augmentation))


@pytest.mark.parametrize(
    ("augmentation", "switch", "named"),
    [("crop,blur", "use_blur", "blur"), ("sobel,crop", "use_crop", "crop")],
)
def test_a_list_with_an_operation_that_a_setting_leaves_out_is_refused(augmentation, switch, named):
    says = f"{augmentation} names {named}, which --no{switch} leaves out; give --{switch}, or"
    off: dict[str, Any] = {switch: False}
    with pytest.raises(errors.UserError, match=says):
        config.validate(config.Config(augmentation=augmentation, **off))
    config.validate(config.Config(augmentation="simclr", **off))


def test_settings_of_a_run_become_its_policy():
    made = builders.policy_of(
        config.Config(
            image_size=32,
            augmentation="stacked_randaugment",
            use_blur=False,
            crop_area_min=0.3,
            color_jitter_strength=0.5,
            brightness="additive",
            jitter_order="fixed",
            randaugment_layers=3,
            randaugment_level=4.0,
            augmentation_branches="one",
        )
    )
    ops = ("crop", "flip", "color_jitter", "randaugment", "color_drop", "warp")
    assert made == policies.Policy(32, ops, (0.3, 1.0), 0.5, True, False, 3, 4.0, "one")


def test_pretraining_and_fine_tuning_have_their_own_policies():
    pretraining, fine_tuning = config.Config(), config.Config(train_mode="finetune")
    assert builders.policy_of(pretraining).ops == operation_names.POLICIES["simclr"]
    assert builders.policy_of(fine_tuning).ops == operation_names.POLICIES["supervised"]


EACH = ["crop", *operation_names.OPERATIONS]


def _views(name, images, indices=None):
    """Returns the views of images, which are all or some of a batch of six."""
    # Views this small are compiled only by the caller; those of 12 pixels would not be blurred.
    policy = policies.Policy(20 if name == "blur" else 12, operation_names.parse(name))
    subset = None if indices is None else views.Subset(indices, 6)
    return views.make_views(images, SEED, policy, num_views=2, subset=subset)


@functools.cache
def _all_views(name):
    return _views(name, _images()).numpy()


@pytest.mark.parametrize("name", EACH)
def test_views_of_a_subset_are_those_of_the_whole_batch(name):
    whole = _all_views(name)
    size = 20 if name == "blur" else 12
    assert whole.shape == (6, 2, size, size, 3) and whole.min() >= 0 and whole.max() <= 1
    some = _views(name, _images()[3:5], tf.range(3, 5))
    np.testing.assert_allclose(some, whole[3:5], atol=1e-5)


# On both stacks, test_views.py compiles the operations of SimCLR.
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", EACH)
def test_views_under_xla_are_those_without(name):
    compiled = tf.function(_views, jit_compile=True)
    some = compiled(name, tf.constant(_images()[:2]), tf.range(2))
    np.testing.assert_allclose(some, _all_views(name)[:2], atol=1e-5)


@pytest.mark.parametrize("name", ["noise", "sobel", "cutout", "rotate"])
def test_operations_without_a_probability_change_every_view(name):
    images = _images(20, 28, 28)
    made = views.make_views(images, SEED, policies.Policy(28, (name,)), num_views=2).numpy()
    changed = np.abs(made - images[:, None]).max((2, 3, 4)) > 1e-3
    probability = 0.75 if name == "rotate" else 1.0
    assert changed.mean() == pytest.approx(probability, abs=0.2 if name == "rotate" else 0.03)


@pytest.mark.parametrize("name", ["solarize", "equalize", "posterize"])
def test_the_broader_operations_happen_to_a_fifth(name):
    images = _images(300, 20, 20)
    made = views.make_views(images, SEED, policies.Policy(20, (name,)), num_views=2).numpy()
    changed = np.abs(made - images[:, None]).max((2, 3, 4)) > 1e-3
    assert changed.mean() == pytest.approx(0.2, abs=0.05)


def test_on_one_branch_the_second_view_is_only_cropped():
    policy = policies.Policy(20, ("crop", "color_jitter", "sobel"))
    one = dataclasses.replace(policy, branches="one")
    made = views.make_views(_images(), SEED, one, num_views=2).numpy()
    crops = views.make_views(_images(), SEED, policies.Policy(20, ("crop",)), num_views=2).numpy()
    np.testing.assert_allclose(made[:, 1], crops[:, 1], atol=1e-6)
    assert np.abs(made[:, 0] - crops[:, 0]).max((1, 2, 3)).min() > 0.05
    some = views.make_views(
        _images()[2:4], SEED, one, num_views=2, subset=views.Subset(tf.range(2, 4), 6)
    )
    np.testing.assert_allclose(some, made[2:4], atol=1e-5)


def test_a_crop_after_other_operations_crops_what_they_made():
    images = _images(5, 20, 20)
    made = views.make_views(images, SEED, policies.Policy(20, ("sobel", "later_crop")), num_views=1)
    edges = views.make_views(images, SEED, policies.Policy(20, ("sobel",)), num_views=1)
    _, for_rest = random.split_seed(SEED, 2)
    seeds = random.split_seed(for_rest, len(policies.OPERATIONS))
    seed = dict(zip(policies.OPERATIONS, seeds, strict=True))["later_crop"]
    boxes = augment.sample_crops(seed, tf.fill([5], 20), tf.fill([5], 20))
    for view, image, (y, x, height, width) in zip(made[:, 0], edges[:, 0], boxes, strict=True):
        crop = tf.image.resize(image[y : y + height, x : x + width], [20, 20], "bicubic")
        np.testing.assert_allclose(view, tf.clip_by_value(crop, 0, 1), atol=2e-5)


def test_on_one_branch_the_second_view_is_cropped_although_its_crop_is_not_first():
    def views_of(*ops):
        policy = policies.Policy(20, ops, branches="one")
        return views.make_views(_images(6, 20, 20), SEED, policy, num_views=2).numpy()

    made, crops = views_of("sobel", "later_crop"), views_of("later_crop")
    np.testing.assert_allclose(made[:, 1], crops[:, 1], atol=1e-6)
    for one, other in [(crops[:, 1], _images(6, 20, 20)), (crops[:, 0], crops[:, 1])]:
        assert np.abs(one - other).max((1, 2, 3)).min() > 0.05


def test_ops_follow_the_order_of_the_list():
    images = _images(8, 20, 20)
    one = views.make_views(images, SEED, policies.Policy(20, ("noise", "sobel")), num_views=1)
    other = views.make_views(images, SEED, policies.Policy(20, ("sobel", "noise")), num_views=1)
    assert np.abs(one - other).max() > 0.1


@pytest.mark.parametrize("additive", [False, True])
def test_brightness_in_a_fixed_order_is_what_the_paper_or_its_second_code_does(additive):
    grey = np.full([400, 20, 20, 3], 0.5, np.float32)  # Only brightness changes grey.
    policy = policies.Policy(
        20, ("color_jitter",), additive_brightness=additive, random_jitter_order=False
    )
    made = views.make_views(grey, SEED, policy, num_views=1).numpy()[:, 0, 0, 0, 0]
    changed = made[np.abs(made - 0.5) > 1e-4]
    assert len(changed) / 400 == pytest.approx(0.8, abs=0.07)
    # A sum of up to 0.8 leaves [0, 1] at 0.3 of the draws; a factor up to 1.8 hardly ever.
    assert np.mean((changed == 0) | (changed == 1)) == pytest.approx(
        0.375 if additive else 0, abs=0.08
    )
    low, high = (0.0, 1.0) if additive else (0.1, 0.9)
    assert changed.min() == pytest.approx(low, abs=0.02)
    assert changed.max() == pytest.approx(high, abs=0.02)
