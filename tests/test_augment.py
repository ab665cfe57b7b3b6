"""Tests of simclr_tf.data.augment and jitter: against tf.image, one image at a time, and NumPy."""

import collections
import itertools

import numpy as np
import pytest
from scipy import stats
import tensorflow as tf

from simclr_tf.data import augment, jitter

SEED = tf.constant([3, 5])


def _images(b=4, h=28, w=28):
    """Noise on a slope, with black, white, grey and pure pixels, where HSV has its corners."""
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(b, h, w, 3)) * np.linspace(0.1, 1, w)[:, None]
    corners = [*itertools.product([0.0, 1.0], repeat=3), (0.5, 0.5, 0.5), (0.7, 0.7, 0.2)]
    for i, color in enumerate(corners[:w]):
        images[:, 0, i] = color
    return images.astype(np.float32)


def _apply(op, images, *args, **kwargs):
    """Runs an op, which takes channels first, on channels-last images."""
    result = op(tf.transpose(images, [0, 3, 1, 2]), *args, **kwargs)
    return tf.transpose(result, [0, 2, 3, 1]).numpy()


def _apply_one_by_one(op, images, *args, **kwargs):
    """Does the same to one image after another, which branches where a batch selects."""
    of_one = tf.function(lambda image, row: op(image, *row, **kwargs), autograph=False)
    args = tf.nest.map_structure(tf.convert_to_tensor, args)
    rows = (tf.nest.map_structure(lambda x, i=i: x[i : i + 1], args) for i in range(len(images)))
    return np.concatenate([_apply(of_one, images[i : i + 1], row) for i, row in enumerate(rows)])


both_ways = pytest.mark.parametrize("apply_op", [_apply, _apply_one_by_one], ids=["all", "each"])


# --- crop boxes


def _boxes_of_tensorflow(height, width, number, area):
    def draw(i):
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            [height, width, 3],
            [[[0.0, 0.0, 1.0, 1.0]]],
            seed=tf.stack([i, 7]),
            min_object_covered=0.0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=area,
            max_attempts=100,
        )
        return tf.concat([begin[:2], size[:2]], 0)

    data = tf.data.Dataset.range(number, output_type=tf.int32).map(draw).batch(number)
    return next(data.as_numpy_iterator())


@pytest.mark.parametrize(
    ("height", "width", "area"),
    [
        (28, 28, (0.4, 1.0)),
        (32, 32, (0.08, 1.0)),
        (32, 32, (0.1, 1.0)),
        (100, 100, (0.02, 0.05)),
        (300, 400, (0.08, 1.0)),
        (90, 30, (0.08, 0.5)),
        (28, 28, (0.2, 0.3)),
    ],
)
def test_crops_are_distributed_as_tensorflow_draws_them(height, width, area):
    number = 5000
    sides = tf.fill([number], height), tf.fill([number], width)
    want_boxes = _boxes_of_tensorflow(height, width, number, area)
    got_boxes = augment.sample_crops(SEED, *sides, area=area).numpy()
    y, x, h, w = np.stack([want_boxes, got_boxes], axis=1).T.astype(float)  # (2, number) each
    statistics = {
        "area": h * w,
        "aspect": w / h,
        "height": h,
        "top": y / np.maximum(height - h, 1),
        "left": x / np.maximum(width - w, 1),
        "bottom": y + h,
        "right": x + w,
    }
    for name, (want, got) in statistics.items():
        assert stats.ks_2samp(want, got).pvalue > 0.01, name
    fraction = got_boxes[:, 2] * got_boxes[:, 3] / (height * width)
    assert area[0] <= fraction.min() < 1.1 * area[0] and fraction.max() <= area[1]


def _crop_shape_probabilities(side, min_area):
    """Returns {(height, width): probability} on a square, by the rules of the kernel."""
    weights = collections.Counter()
    for ratio in np.linspace(3 / 4, 4 / 3, 8001):
        highest = round(side / np.sqrt(ratio))
        while round(highest * ratio) > side:
            highest -= 1
        highest = min(highest, side)
        lowest = min(round(side * np.sqrt(min_area / ratio)), highest)
        for height in range(lowest, highest + 1):
            probability = 1 / (highest - lowest + 1)
            if height * round(height * ratio) < min_area * side**2:
                height += 1
            width = round(height * ratio)
            if height * width >= min_area * side**2 and max(height, width) <= side:
                weights[height, width] += probability
    return {shape: weight / sum(weights.values()) for shape, weight in weights.items()}


@pytest.mark.parametrize("min_area", [0.08, 0.1])
def test_crops_at_28_pixels_have_the_exact_probabilities_of_the_kernels_rules(min_area):
    number = 100_000
    want = _crop_shape_probabilities(28, min_area)
    sides = tf.fill([number], 28), tf.fill([number], 28)
    boxes = augment.sample_crops(SEED, *sides, area=(min_area, 1.0)).numpy()
    counts = collections.Counter(map(tuple, boxes[:, 2:].tolist()))
    assert set(counts) <= set(want)
    shapes = [shape for shape in want if number * want[shape] > 20]
    deviations = [(counts[s] - number * want[s]) ** 2 / (number * want[s]) for s in shapes]
    assert stats.chi2.sf(sum(deviations), len(shapes)) > 0.01


def test_crops_of_a_batch_of_sizes_fit_each_size():
    rng = np.random.default_rng(1)
    heights, widths = rng.integers(1, 300, size=(2, 2000)).astype(np.int32)
    y, x, h, w = augment.sample_crops(SEED, heights, widths).numpy().T
    assert np.all((y >= 0) & (x >= 0) & (h >= 1) & (w >= 1))
    assert np.all((y + h <= heights) & (x + w <= widths))
    assert np.all(h * w >= 0.0799 * heights * widths)


def test_the_position_of_a_crop_is_drawn_for_each_axis_and_apart_from_its_size():
    number = 4000
    sides = tf.fill([number], 200), tf.fill([number], 300)
    y, x, h, w = augment.sample_crops(SEED, *sides, area=(0.1, 0.5)).numpy().T.astype(float)
    drawn = {"top": y / (200 - h), "left": x / (300 - w), "height": h, "aspect": w / h}
    correlation = np.corrcoef(list(drawn.values()))
    for place in (0, 1):
        others = np.delete(correlation[place], place)
        assert np.abs(others).max() < 0.06, (list(drawn)[place], others)


def test_an_image_that_no_crop_fits_is_used_whole():
    boxes = augment.sample_crops(SEED, tf.fill([50], 20), tf.fill([50], 400))
    np.testing.assert_array_equal(boxes, [[0, 0, 20, 400]] * 50)


# --- crop and resize


@pytest.mark.parametrize("size", [7, 28, 32, 96])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (40, 65)])
def test_crop_and_resize_equals_resizing_each_crop_alone(height, width, size):
    images = _images(60, height, width)
    sides = tf.fill([57], height), tf.fill([57], width)
    crops = augment.sample_crops(SEED, *sides).numpy().tolist()
    crops += [[0, 0, height, width], [5, 9, 1, 1], [height - 2, 0, 2, width]]
    got = _apply(augment.crop_and_resize, images, tf.constant(crops), size)
    for image, (y, x, h, w), crop in zip(images, crops, got):
        want = tf.image.resize(image[y : y + h, x : x + w], [size, size], "bicubic")
        np.testing.assert_allclose(crop, want, atol=1e-5)


def test_a_whole_crop_at_its_own_size_changes_nothing():
    images = _images()
    got = _apply(augment.crop_and_resize, images, augment.whole_boxes([28] * 4, [28] * 4), 28)
    np.testing.assert_array_equal(got, images)


# --- flip and grey


@both_ways
def test_flip_mirrors_only_the_images_with_a_flag(apply_op):
    images = _images()
    got = apply_op(augment.flip, images, tf.constant([True, False, False, True]))
    want = np.stack([images[0, :, ::-1], images[1], images[2], images[3, :, ::-1]])
    np.testing.assert_array_equal(got, want)


@both_ways
def test_color_drop_makes_grey_as_tensorflow_does(apply_op):
    images = _images()
    got = apply_op(jitter.color_drop, images, tf.constant([True, False, True, False]))
    want = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(images))
    np.testing.assert_allclose(got[::2], want[::2], atol=1e-6)
    np.testing.assert_array_equal(got[1::2], images[1::2])


# --- colour jitter


def _jitter_one(image, order, brightness, contrast, saturation, hue):
    """Applies the ops of the reference to one image, with a clip after each."""
    ops = {
        jitter.BRIGHTNESS: lambda x: x * brightness,
        jitter.CONTRAST: lambda x: tf.image.adjust_contrast(x, contrast),
        jitter.SATURATION: lambda x: tf.image.adjust_saturation(x, saturation),
        jitter.HUE: lambda x: tf.image.adjust_hue(x, hue),
    }
    for op in order:
        image = tf.clip_by_value(ops[op](image), 0.0, 1.0)
    return image.numpy()


@both_ways
@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_jitter_equals_the_chain_of_tf_image_in_all_24_orders(strength, apply_op):
    images = _images(72)
    orders = np.array(list(itertools.permutations(range(4))) * 3, np.int32)
    params = jitter.sample_jitter(SEED, 72, strength=strength, probability=1.0)
    params = params._replace(order=tf.constant(orders))
    got = apply_op(jitter.jitter, images, params)
    columns = params.brightness, params.contrast, params.saturation, params.hue
    for i, image in enumerate(images):
        want = _jitter_one(image, orders[i], *(column[i].numpy() for column in columns))
        np.testing.assert_allclose(got[i], want, atol=1e-5, err_msg=str(orders[i]))


@both_ways
def test_jitter_does_not_change_images_without_a_flag(apply_op):
    images = _images(8)
    params = jitter.sample_jitter(SEED, 8, strength=1.0, probability=0.5)
    apply = params.apply.numpy()
    assert 0 < apply.sum() < 8
    got = apply_op(jitter.jitter, images, params)
    np.testing.assert_allclose(got[~apply], images[~apply], atol=1e-6)
    assert np.all(np.abs(got - images).max(axis=(1, 2, 3))[apply] > 0.05)


@pytest.mark.parametrize(
    ("strength", "low", "high", "hue"), [(0.5, 0.6, 1.4, 0.1), (1, 0.2, 1.8, 0.2), (3, 0, 3.4, 0.5)]
)
def test_jitter_is_sampled_uniformly_from_the_ranges_of_the_reference(strength, low, high, hue):
    params = jitter.sample_jitter(SEED, 20000, strength=strength)
    assert np.mean(params.apply) == pytest.approx(0.8, abs=0.01)
    for factor in (params.brightness, params.contrast, params.saturation):
        assert stats.kstest(factor, "uniform", (low, high - low)).pvalue > 0.01
    assert stats.kstest(params.hue, "uniform", (-hue, 2 * hue)).pvalue > 0.01
    _, counts = np.unique(params.order, axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 0.01


def test_the_parameters_of_a_jitter_are_independent():
    params = jitter.sample_jitter(SEED, 20000, strength=1.0)
    columns = [np.asarray(x, float) for x in params if x.shape.rank == 1]
    columns += [np.asarray(params.order[:, 0], float)]
    correlations = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlations).max() < 0.03


# --- blur


def _blur_one(image, sigma, kernel_size):
    """Sums over two dimensions at once, pixel by pixel, in float64."""
    radius = kernel_size // 2
    padded = np.pad(image.astype(np.float64), [(radius, radius)] * 2 + [(0, 0)], "reflect")
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2.0 * sigma**2))
    kernel /= kernel.sum()
    height, width, _ = image.shape
    return sum(
        kernel[i, j] * padded[i : i + height, j : j + width]
        for i in range(kernel_size)
        for j in range(kernel_size)
    )


@both_ways
@pytest.mark.parametrize("kernel_size", [1, 3, 9])
def test_blur_equals_a_direct_sum_with_each_images_own_sigma(kernel_size, apply_op):
    images, sigmas = _images(4, 20, 30), np.array([0.1, 0.6, 1.3, 2.0], np.float32)
    flags = tf.fill([4], True)
    got = apply_op(augment.gaussian_blur, images, sigmas, flags, kernel_size=kernel_size)
    for image, sigma, blurred in zip(images, sigmas, got):
        np.testing.assert_allclose(blurred, _blur_one(image, sigma, kernel_size), atol=1e-6)


def test_blur_equals_that_of_tensorflow_addons():
    tfa_image = pytest.importorskip("tensorflow_addons.image")
    images, sigmas = _images(3), np.array([0.3, 1.0, 2.0], np.float32)
    got = _apply(augment.gaussian_blur, images, sigmas, tf.fill([3], True), kernel_size=7)
    for image, sigma, blurred in zip(images, sigmas, got):
        want = tfa_image.gaussian_filter2d(image, 7, float(sigma), padding="REFLECT")
        np.testing.assert_allclose(blurred, want, atol=1e-5)


@both_ways
def test_blur_does_not_change_images_without_a_flag(apply_op):
    images, apply = _images(), np.array([True, False, True, False])
    got = apply_op(augment.gaussian_blur, images, tf.fill([4], 2.0), apply, kernel_size=5)
    np.testing.assert_array_equal(got[1::2], images[1::2])
    assert np.abs(got - images)[::2].max() > 0.1


def test_blur_does_not_darken_the_border():
    white = np.ones((1, 24, 24, 3), np.float32)
    got = _apply(
        augment.gaussian_blur, white, tf.constant([2.0]), tf.constant([True]), kernel_size=9
    )
    np.testing.assert_allclose(got, white, atol=1e-6)


def test_blur_kernels_are_an_odd_tenth_of_the_image():
    sizes = {19: 1, 28: 3, 32: 3, 64: 7, 96: 9, 128: 13, 224: 23}
    assert {size: augment.blur_kernel_size(size) for size in sizes} == sizes


def test_blur_is_sampled_for_half_of_the_images_each_with_its_own_sigma():
    sigma, apply = augment.sample_blur(SEED, 20000)
    assert np.mean(apply) == pytest.approx(0.5, abs=0.015)
    assert stats.kstest(sigma, "uniform", (0.1, 1.9)).pvalue > 0.01
    assert abs(np.corrcoef(sigma, apply)[0, 1]) < 0.03


# --- seeds


def test_parameters_are_the_same_eagerly_and_under_xla():
    def sample(seed):
        return (
            augment.sample_crops(seed, tf.fill([100], 28), tf.fill([100], 40)),
            augment.sample_blur(seed, 100),
            jitter.sample_jitter(seed, 100, strength=1.0),
            augment.sample_flags(seed, 100, probability=0.5),
        )

    compiled = tf.function(sample, jit_compile=True)(SEED)
    for want, got in zip(tf.nest.flatten(sample(SEED)), tf.nest.flatten(compiled)):
        np.testing.assert_allclose(got, want, atol=1e-6)
    other = tf.nest.flatten(sample(tf.constant([3, 6])))
    assert all(np.any(x != y) for x, y in zip(other, tf.nest.flatten(compiled)))
