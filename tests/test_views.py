"""Tests of simclr_tf.data.views: what makes up a view, and that a seed decides it."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import errors
from simclr_tf.data import crops, policies, random, views

SEED = tf.constant([3, 5])
PLAIN = policies.Policy(28, ops=())
SHARP = policies.Policy(28, ops=("crop", "flip", "color_jitter"))


def _images(b=4, h=28, w=28):
    """Returns smooth, coloured images whose rows and columns all differ."""
    y, x = np.linspace(0, 1, h)[:, None], np.linspace(0, 1, w)
    images = np.random.default_rng(0).uniform(0, 0.3, size=(b, h, w, 3))
    images += 0.6 * np.stack([y + 0 * x, 0 * y + x, 0.5 + 0.4 * np.sin(6 * x * y)], axis=-1)
    return np.clip(images, 0, 1).astype(np.float32)


def _encoded(image):
    return tf.io.encode_png(tf.image.convert_image_dtype(image, tf.uint8))


def _only(*ops, **settings):
    return dataclasses.replace(PLAIN, ops=ops, **settings)


def _is_grey(x):
    return np.ptp(x, axis=-1).max(axis=(-1, -2)) < 1e-6


def test_views_have_their_own_axis_and_stay_between_0_and_1():
    made = views.make_views(_images(5), SEED, policies.Policy(12), num_views=3)
    assert made.shape == (5, 3, 12, 12, 3)
    assert made.dtype == tf.float32
    assert np.min(made) >= 0 and np.max(made) <= 1


def test_one_seed_makes_one_set_of_views_and_another_seed_another():
    images, policy = np.repeat(_images(1), 3, axis=0), policies.Policy(12)
    first = views.make_views(images, SEED, policy, num_views=2).numpy()
    again = views.make_views(images, SEED, policy, num_views=2).numpy()
    np.testing.assert_array_equal(first, again)
    other = views.make_views(images, tf.constant([3, 6]), policy, num_views=2).numpy()
    every = np.concatenate([first, other]).reshape(12, -1)  # all of one image
    distance = np.abs(every[:, None] - every).max(axis=-1)
    assert np.all(distance[~np.eye(12, dtype=bool)] > 0.05)


def test_views_are_equal_eagerly_in_tf_data_and_under_xla():
    # At this size nothing is compiled unless the caller compiles it.
    images, policy = _images(4), policies.Policy(12, ("crop", "flip", "color_jitter", "noise"))

    def make(images, seed):
        return views.make_views(images, seed, policy, num_views=2)

    eager = make(images, SEED)
    for function in (make, tf.function(make, jit_compile=True, autograph=False)):
        data = tf.data.Dataset.from_tensors((images, SEED)).map(function)
        assert data.element_spec.shape == (4, 2, 12, 12, 3)
        np.testing.assert_allclose(next(iter(data)), eager, atol=1e-5)


# Alternates between operations that a loop over images applies and those that it does not.
ALTERNATING = ("crop", "warp", "flip", "blur", "equalize", "color_drop", "cutout")


@pytest.mark.parametrize(
    "policy",
    [
        policies.Policy(28, additive_brightness=True, branches="one"),
        pytest.param(policies.Policy(28, ops=ALTERNATING), marks=pytest.mark.exhaustive),
        policies.Policy(28, ops=("flip", "blur", "equalize")),
        policies.Policy(28, ops=("crop",)),
        policies.Policy(12),
    ],
    ids=["one branch", "alternating", "ends batched", "crop", "too small to compile"],
)
def test_views_made_one_by_one_are_those_made_together(policy):
    cut = np.random.default_rng(0).uniform(-9, 264, size=(12, 2, *(2 * (policy.image_size,)), 3))

    @functools.partial(tf.function, autograph=False)  # Outside of a graph nothing is compiled.
    def make(one_by_one):
        made = views.make_views(_images(12), SEED, policy, num_views=2, one_by_one=one_by_one)
        images = tf.constant(cut, tf.float32)
        return made, views.distort_views(images, SEED, policy, one_by_one=one_by_one)

    for alone, together in zip(make(one_by_one=True), make(one_by_one=False)):
        assert alone.shape == (12, 2, policy.image_size, policy.image_size, 3)
        np.testing.assert_allclose(alone, together, atol=1e-5)


def test_compiled_views_are_those_made_outside_of_a_graph(monkeypatch):
    policy = policies.Policy(20, ops=("color_jitter", "color_drop", "flip"))
    cut = 255 * _images(4, 20, 20)[:, np.newaxis]
    make = functools.partial(views.distort_views, cut, SEED, policy)
    compiled = tf.function(make, autograph=False)()
    monkeypatch.setattr(type(tf.function(make)), "__call__", None)
    np.testing.assert_allclose(make(), compiled, atol=1e-5)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_views_are_made_of_batches_of_any_size(one_by_one):
    policy = policies.Policy(16, ("crop", "flip", "color_drop"))
    data = tf.data.Dataset.from_tensor_slices(_images(8)).batch(5)
    data = data.map(
        lambda images: views.make_views(images, SEED, policy, num_views=2, one_by_one=one_by_one)
    )
    assert [x.shape for x in data] == [(5, 2, 16, 16, 3), (3, 2, 16, 16, 3)]


def test_a_policy_without_ops_returns_the_images():
    images = _images()
    made = views.make_views(images, SEED, PLAIN, num_views=2)
    np.testing.assert_array_equal(made, np.stack([images, images], axis=1))


def test_without_crop_images_of_another_size_are_resized():
    images = _images(2, 40, 30)
    made = views.make_views(images, SEED, PLAIN, num_views=1)[:, 0]
    want = tf.clip_by_value(tf.image.resize(images, [28, 28], "bicubic"), 0, 1)
    np.testing.assert_allclose(made, want, atol=1e-5)


def test_crops_in_the_batch_equal_crops_of_each_image_alone():
    image, policy = _images(1, 60, 45)[0], _only("crop")
    together = views.make_views(image[np.newaxis], SEED, policy, num_views=6)[0]
    boxes = crops.crop_boxes(random.split_seed(SEED, 2)[0], 6, 60, 45, policy)
    alone = np.clip(crops.crop_views(255.0 * image, boxes, 28) / 255, 0, 1)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(np.diff(together, axis=0)).max(axis=(1, 2, 3)).min() > 0.05


def test_crops_keep_to_the_requested_area():
    y, x = np.meshgrid(np.arange(32.0), np.arange(32.0), indexing="ij")
    ramp = np.stack([y, x, y], axis=-1)[np.newaxis].astype(np.float32) / 31
    policy = dataclasses.replace(_only("crop"), crop_area=(0.5, 0.6))
    made = views.make_views(ramp, SEED, policy, num_views=200)[0].numpy()
    height = 32 * np.ptp(made[..., 0], axis=(1, 2))  # the slope shows how much was kept
    width = 32 * np.ptp(made[..., 1], axis=(1, 2))
    area = height * width / 32**2
    assert np.all((area > 0.42) & (area < 0.63))


def test_half_of_the_views_are_mirrored_and_nothing_else_happens_to_them():
    images = _images(200)
    made = views.make_views(images, SEED, _only("flip"), num_views=2).numpy()
    is_mirrored = np.all(made == images[:, None, :, ::-1], axis=(2, 3, 4))
    is_same = np.all(made == images[:, None], axis=(2, 3, 4))
    assert np.all(is_mirrored ^ is_same)
    assert np.mean(is_mirrored) == pytest.approx(0.5, abs=0.08)
    assert np.mean(is_mirrored[:, 0] == is_mirrored[:, 1]) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(
    ("op", "probability"), [("color_jitter", 0.8), ("color_drop", 0.2), ("blur", 0.5)]
)
def test_each_op_happens_with_its_probability(op, probability):
    images = _images(250)
    made = views.make_views(images, SEED, _only(op), num_views=2).numpy()
    changed = np.abs(made - images[:, None]).max(axis=(2, 3, 4)) > 1e-3
    # A blur of less than about 0.27 px has no effect: a tenth of them.
    assert np.mean(changed) == pytest.approx(probability, abs=0.07)


def test_grey_views_stay_grey_because_jitter_comes_first():
    policy = _only("color_jitter", "color_drop")
    made = views.make_views(_images(250), SEED, policy, num_views=2).numpy()
    assert np.mean(_is_grey(made)) == pytest.approx(0.2, abs=0.05)


def test_blur_comes_after_crop_and_colour():
    images = _images(50)
    before = views.make_views(images, SEED, SHARP, num_views=2).numpy()
    blurred = dataclasses.replace(SHARP, ops=(*SHARP.ops, "blur"))
    after = views.make_views(images, SEED, blurred, num_views=2).numpy()
    difference = np.abs(after - before).max(axis=(2, 3, 4))
    blurred = difference > 1e-6
    assert 0.3 < blurred.mean() < 0.6
    # A blur of the finished view keeps each channel's range; anything earlier would not.
    assert np.all(after.max((2, 3)) <= before.max((2, 3)) + 1e-5)
    assert np.all(after.min((2, 3)) >= before.min((2, 3)) - 1e-5)


def test_switching_one_op_off_does_not_change_the_draws_of_the_others():
    images = _images(50)
    full = views.make_views(images, SEED, SHARP, num_views=2)
    no_flip = views.make_views(images, SEED, SHARP.without("flip"), num_views=2)
    either = np.minimum(
        np.abs(full - no_flip).max(axis=(2, 3, 4)),
        np.abs(full - no_flip[:, :, :, ::-1]).max(axis=(2, 3, 4)),
    )
    assert either.max() < 1e-5


def test_strength_0_removes_jitter_and_grey():
    images = _images(50)
    policy = _only("color_jitter", "color_drop", color_jitter_strength=0.0)
    made = views.make_views(images, SEED, policy, num_views=1)[:, 0]
    np.testing.assert_array_equal(made, images)


def test_images_of_different_sizes_are_cropped_one_by_one_and_distorted_together():
    policy = policies.Policy(28, ("crop", "flip", "color_drop", "noise"))
    sizes = [(40, 30), (17, 90), (28, 28)]
    data = tf.data.Dataset.from_generator(
        lambda: (_encoded(_images(1, *size)[0]) for size in sizes),
        output_signature=tf.TensorSpec([], tf.string),
    )
    data = data.enumerate().map(
        lambda i, encoded: crops.crop_encoded(encoded, tf.stack([i, 7]), policy, num_views=2)
    )
    data = data.batch(3, drop_remainder=True)
    data = data.map(lambda cut: (cut, views.distort_views(cut, SEED, policy)))
    cut, made = next(iter(data))
    assert made.shape == cut.shape == (3, 2, 28, 28, 3)
    assert np.min(made) >= 0 and np.max(made) <= 1
    assert np.abs(made - cut / 255).max(axis=(2, 3, 4)).min() > 1e-3


def _evaluation_by_the_reference(image, size):
    """Follows the rule of the reference in NumPy: rounded sides, offsets rounded up."""
    height, width, _ = image.shape
    if width / height < 1:
        side = int(np.rint(np.float32(0.875) * np.float32(width)))
    else:
        side = int(np.rint(np.float32(0.875) * np.float32(height)))
    y, x = ((height - side) + 1) // 2, ((width - side) + 1) // 2
    crop = image[y : y + side, x : x + side]
    return np.clip(tf.image.resize(crop, [size, size], "bicubic"), 0, 1)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 81), (81, 50), (33, 500), (4, 3)])
def test_evaluation_above_32_pixels_follows_the_reference(height, width):
    images = _images(2, height, width)
    got = crops.evaluation_image(images, 48)
    for image, result in zip(images, got):
        np.testing.assert_allclose(result, _evaluation_by_the_reference(image, 48), atol=1e-6)
        np.testing.assert_array_equal(crops.evaluation_image(image, 48), result)


def test_evaluation_of_small_images_changes_nothing_at_the_right_size():
    images = _images(2, 32, 32)
    np.testing.assert_array_equal(crops.evaluation_image(images, 32), images)


def test_evaluation_of_small_images_resizes_the_centre_square():
    image = _images(1, 40, 21)[0]
    want = tf.clip_by_value(tf.image.resize(image[10:31], [32, 32], "bicubic"), 0, 1)
    np.testing.assert_array_equal(crops.evaluation_image(image, 32), want)


@pytest.mark.parametrize("size", [28, 48])
def test_evaluation_can_be_exported_for_any_batch_and_size(tmp_path, size):
    module = tf.Module()
    module.prepare = tf.function(
        lambda images: crops.evaluation_image(images, size),
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)],
    )
    assert module.prepare.get_concrete_function().output_shapes[1:] == (size, size, 3)
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    for shape in [(2, 70, 33), (1, 28, 28)]:
        images = _images(*shape)
        want = crops.evaluation_image(images, size)
        np.testing.assert_allclose(loaded.prepare(tf.constant(images)), want, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"image_size": 0}, "image_size=0 must be at least 1 pixel."),
        ({"crop_area": (0.0, 1.0)}, r"crop_area=\(0.0, 1.0\) must be"),
        ({"crop_area": (0.5, 0.2)}, r"crop_area=\(0.5, 0.2\) must be"),
        ({"crop_area": (0.5, 1.2)}, r"crop_area=\(0.5, 1.2\) must be"),
        ({"color_jitter_strength": -1.0}, "color_jitter_strength=-1.0 must be at least 0"),
        ({"color_jitter_strength": float("nan")}, "color_jitter_strength=nan must be at least 0"),
    ],
)
def test_an_impossible_policy_is_refused(settings, says):
    with pytest.raises(errors.UserError, match=says):
        policies.Policy(**{"image_size": 28, **settings})
