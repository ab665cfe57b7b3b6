"""Scales and operations of any number of channels, against NumPy in float64."""

import dataclasses
import io
import json
import types
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf import config as config_lib
from simclr_tf import errors, pixel_format
from simclr_tf.commands import embed, embedded
from simclr_tf.data import (
    channel_tones,
    operation_names,
    policies,
    scale,
    scaling,
    shown,
    value_counts,
    views,
)
from simclr_tf.models import simclr
from simclr_tf.runs import pixels
from simclr_tf.serving import reference_format

CHANNELS = (1, 2, 4, 13)


def _images(channels, count=3, side=10, seed=0):
    return np.random.default_rng(seed).uniform(size=(count, channels, side, side))


def _values(dtype, channels, seed=0):
    """Returns values with a long tail, different in each channel, (n, h, w, c)."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, 40.0, (6, 12, 9, channels)) * (1 + np.arange(channels))
    if dtype in ("int16", "float32"):
        values -= 100
    top = 255 if dtype == "uint8" else 32_000
    return np.clip(values, -32_000, top).astype(dtype)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", pixel_format.DTYPES)
def test_percentiles_are_those_of_numpy(channels, dtype):
    values = _values(dtype, channels)
    counter = value_counts.Counter(channels, dtype)
    for image in values:
        counter.add(image)
    flat = values.reshape(-1, channels).astype(np.float64)
    # Floats are counted in bins of 2^-9 of their size.
    closeness = {"rtol": 2**-9, "atol": 1e-3} if dtype == "float32" else {"rtol": 1e-12}
    for percent in (0, 0.5, 37, 99.5, 100):
        want = np.percentile(flat, percent, axis=0)
        np.testing.assert_allclose(counter.percentiles(percent), want, **closeness)
    np.testing.assert_array_equal(counter.least, flat.min(0))
    np.testing.assert_array_equal(counter.greatest, flat.max(0))


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", pixel_format.DTYPES)
def test_values_are_scaled_by_channel_and_clipped(channels, dtype):
    values = _values(dtype, channels)
    low, high = (np.percentile(values, p, axis=(0, 1, 2)) for p in (5, 90))
    pixels = pixel_format.of_dtype(channels, dtype).scaled(tuple(low), tuple(high), "percentile")
    want = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(scaling.to_unit(values, pixels), want, atol=2e-6)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", pixel_format.DTYPES)
def test_mean_and_deviation_are_those_of_the_scaled_values(channels, dtype):
    values = _values(dtype, channels)
    counter = value_counts.Counter(channels, dtype)
    for image in values:
        counter.add(image)
    low, high = (np.percentile(values, p, axis=(0, 1, 2)) for p in (5, 90))
    scaled = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)
    mean, deviation = counter.moments(low, high)
    # Floats are counted in bins of 2^-9 of their size.
    atol = 1e-3 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), atol=atol)
    np.testing.assert_allclose(deviation, scaled.std((0, 1, 2)), atol=atol)


def _source(images, pixels):
    class Source:
        def __init__(self):
            self.pixels = pixels

        def examples(self, split):
            contents = []
            for image in images:
                content = io.BytesIO()
                np.save(content, image)
                contents.append(content.getvalue())
            return tf.data.Dataset.from_tensor_slices({"image": contents})

    return Source()


def test_a_scale_is_measured_over_all_images():
    values = _values("uint16", 4)
    source = _source(values, pixel_format.of_dtype(4, "uint16"))
    counted = []
    found, notes = scale.measure(source, "train", "percentile", percentile=2.0, done=counted.append)
    flat = values.reshape(-1, 4).astype(np.float64)
    np.testing.assert_allclose(found.low, np.percentile(flat, 2, axis=0))
    np.testing.assert_allclose(found.high, np.percentile(flat, 98, axis=0))
    assert (found.scale, notes, counted) == ("percentile", (), [1, 2, 3, 4, 5, 6])
    found, _ = scale.measure(source, "train", "minmax", percentile=2.0)
    np.testing.assert_array_equal(found.low, flat.min(0))
    np.testing.assert_array_equal(found.high, flat.max(0))


def test_standardizing_is_measured_with_every_scale():
    values = _values("uint16", 2)
    values[..., 1] = 7
    source = _source(values, pixel_format.of_dtype(2, "uint16"))
    for one in ("percentile", "minmax", "dtype"):
        found, _ = scale.measure(source, "train", one, percentile=2.0, standardize=True)
        scaled = scaling.to_unit(values, found).numpy().astype(np.float64)
        np.testing.assert_allclose(found.mean, scaled.mean((0, 1, 2)), atol=1e-6)
        np.testing.assert_allclose(found.deviation[0], scaled[..., 0].std(), atol=1e-6)
        assert found.deviation[1] == 1  # Of a constant channel.
    assert (found.low, found.high) == ((0.0, 0.0), (65535.0, 65535.0))


def test_pictures_are_measured_as_they_are_decoded():
    colour, grey = (np.random.default_rng(0).integers(0, 256, (6, 5, c), np.uint8) for c in (3, 1))
    contents = [tf.io.encode_png(image).numpy() for image in (colour, grey)]
    examples = tf.data.Dataset.from_tensor_slices({"image": contents})
    source: Any = types.SimpleNamespace(pixels=pixel_format.RGB, examples=lambda split: examples)
    found, _ = scale.measure(source, "train", "dtype", percentile=0, standardize=True)
    assert found.is_rgb
    both = np.concatenate([colour, grey.repeat(3, 2)]).reshape(-1, 3) / 255
    np.testing.assert_allclose(found.mean, both.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, both.std(0), rtol=1e-12)
    stored = json.loads(json.dumps(dataclasses.asdict(found)))
    assert pixel_format.from_json(stored) == found
    older = {name: stored[name] for name in stored if name not in ("mean", "deviation")}
    assert pixel_format.from_json(older) == pixel_format.RGB


def test_embeddings_say_the_mean_of_pictures_and_otherwise_nothing_of_them():
    pixels = pixel_format.RGB.standardized((0.5,) * 3, (0.25,) * 3)
    architecture = dataclasses.replace(tiny_runs.ARCHITECTURE, pixels=pixels)
    assert pixel_format.from_json(embed._json_of(architecture)["pixels"]) == pixels
    assert "pixels" not in embed._json_of(tiny_runs.ARCHITECTURE)


def test_the_network_standardizes_its_images():
    plain = pixel_format.of_dtype(2, "uint16")
    standardized = plain.standardized((0.25, 0.5), (0.125, 2.0))
    models = [
        simclr.SimCLR(dataclasses.replace(tiny_runs.ARCHITECTURE, pixels=one), seed=0)
        for one in (plain, standardized)
    ]
    images = np.random.default_rng(0).uniform(size=(3, 8, 8, 2)).astype(np.float32)
    by_hand = (images - np.float32([0.25, 0.5])) / np.float32([0.125, 2])
    for call in ("infer", "call", "classify"):
        want, made = (
            getattr(model, call)(given)
            for model, given in zip(models, (by_hand, images), strict=True)
        )
        tf.nest.map_structure(np.testing.assert_allclose, made, want)


@pytest.mark.parametrize(
    ("format_", "problem"),
    [
        (
            pixel_format.of_dtype(4, "uint16"),
            "is for networks of 8-bit RGB .* 4 channels",
        ),
        (pixel_format.RGB.standardized((0.5,) * 3, (0.2,) * 3), "no place for the mean .*=serving"),
    ],
)
def test_the_official_format_is_for_plain_pictures(monkeypatch, format_, problem):
    monkeypatch.setattr(reference_format.mapping, "network_of", lambda architecture: None)
    model: Any = types.SimpleNamespace(architecture=types.SimpleNamespace(pixels=format_))
    with pytest.raises(errors.UserError, match=problem):
        reference_format.reference_model(model)


def test_channels_without_a_range_are_named():
    values = _values("uint16", 3)
    values[..., 1] = 7
    values[..., 2] = 5
    values[0, 0, 0, 2] = 90
    pixels = pixel_format.of_dtype(3, "uint16").with_names(("a", "b", "c"))
    found, notes = scale.measure(_source(values, pixels), "train", "percentile", percentile=0.5)
    assert notes == (
        "Nearly all values of the channel c are equal, so the least and the greatest value become "
        "0 and 1.",
        "All values of the channel b are equal, so they become 0.",
    )
    assert (found.low[1:], found.high[1:]) == ((7.0, 5.0), (8.0, 90.0))


def test_a_scale_of_none_is_refused_for_values_beyond_0_and_1():
    pixels = pixel_format.of_dtype(2, "float32")
    good = _source(_images(2).transpose(0, 2, 3, 1).astype(np.float32), pixels)
    found, _ = scale.measure(good, "train", "none", percentile=0.5)
    assert (found.low, found.high) == ((0.0, 0.0), (1.0, 1.0))
    bad = _source(_values("float32", 2), pixels)
    with pytest.raises(errors.ArgumentError, match="must be from 0 to 1, and these are from -9"):
        scale.measure(bad, "train", "none", percentile=0.5)


@pytest.mark.parametrize("channels", CHANNELS)
def test_brightness_and_contrast_are_those_of_float64(channels):
    images = _images(channels)
    for own in {1, channels}:
        factors = np.random.default_rng(1).uniform(0.2, 1.8, (3, own, 1, 1))
        made = channel_tones.brightness(tf.constant(images, tf.float32), factors.astype("f"))
        np.testing.assert_allclose(made, np.clip(images * factors, 0, 1), atol=1e-6)
        made = channel_tones.contrast(tf.constant(images, tf.float32), factors.astype("f"))
        mean = images.mean((2, 3), keepdims=True)
        want = np.clip(mean + factors * (images - mean), 0, 1)
        np.testing.assert_allclose(made, want, atol=1e-6)


@pytest.mark.parametrize("own", [1, 4])
def test_factors_have_the_range_and_the_share_of_the_jitter(own):
    factors = channel_tones.sample_factors([3, 1], 20_000, own, strength=0.5).numpy()
    unchanged = (factors == 1).all((1, 2, 3))
    assert abs(unchanged.mean() - 0.2) < 0.01
    changed = factors[~unchanged]
    assert changed.shape == (len(changed), own, 1, 1)
    assert changed.min() >= 0.6 and changed.max() < 1.4
    assert abs(changed.mean() - 1) < 0.01 and abs(changed.std() - 0.8 / 12**0.5) < 0.01


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_fifth_of_the_channels_is_dropped_but_never_all(channels):
    kept = channel_tones.sample_drop([5, 2], 20_000, channels).numpy()[:, :, 0, 0]
    assert kept.max(1).min() == 1
    dropped = (1 - kept).mean()
    # Half of the images; of these the channel with the largest number is kept.
    want = 0.5 * (0.2 - 0.2**channels / channels)
    assert abs(dropped - want) < 0.01
    images = _images(channels, 1)
    made = channel_tones.drop(tf.constant(images, tf.float32), kept[:1, :, None, None])
    np.testing.assert_allclose(made, images * kept[:1, :, None, None], atol=1e-7)


_ANY = [
    name
    for name in operation_names.OPERATIONS
    if name not in operation_names.NEED_COLOUR and name != operation_names.LATER_CROP
]


@pytest.mark.parametrize("channels", CHANNELS)
def test_every_operation_that_suits_leaves_shape_and_range(channels):
    pixels = pixel_format.of_dtype(channels, "uint16")
    images = np.random.default_rng(0).integers(0, 65_536, (2, 14, 15, channels), np.uint16)
    ops = [name for name in _ANY if operation_names.suits(name, channels)]
    policy = policies.Policy(12, ops=("crop", *ops), pixels=pixels)
    made = views.make_views(tf.constant(images), tf.constant([1, 2]), policy, num_views=2)
    assert made.shape == (2, 2, 12, 12, channels)
    assert made.numpy().min() >= 0 and made.numpy().max() <= 1


@pytest.mark.parametrize("channels", CHANNELS)
def test_views_without_operations_are_the_scaled_images(channels):
    values = _values("uint16", channels)[:2, :9]
    low, high = values.min((0, 1, 2)) + 5.0, values.max((0, 1, 2)) - 5.0
    pixels = pixel_format.of_dtype(channels, "uint16").scaled(tuple(low), tuple(high), "minmax")
    policy = policies.Policy(9, ops=(), pixels=pixels)
    made = views.make_views(tf.constant(values), tf.constant([1, 2]), policy, num_views=1)
    want = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(made[:, 0], want, atol=1e-5)
    again = views.distort_views(scaling.to_unit(values, pixels)[:, None], [1, 2], policy)
    np.testing.assert_allclose(again, made, atol=1e-5)


def test_8_bit_rgb_with_the_range_of_its_type_is_decoded_as_pictures_always_were():
    pixels = pixel_format.of_dtype(3, "uint8")
    assert pixels.is_rgb and pixels == pixel_format.RGB
    assert pixels.with_names(("x", "y", "z")).is_rgb
    assert not pixels.scaled((1.0, 0.0, 0.0), pixels.high, "minmax").is_rgb


@pytest.mark.parametrize(
    ("channels", "policy", "part"),
    [
        (1, "simclr", "simclr_grey, or its other operations (--augmentation=crop,flip,blur)"),
        (13, "randaugment", "simclr_multispectral"),
        (4, "crop,color", "simclr_multispectral, or its other operations (--augmentation=crop)"),
        (
            13,
            "color_jitter,color_drop",
            "color_jitter and color_drop, which need red, green and blue",
        ),
        (1, "color_drop,channel_drop", "color_drop and channel_drop, which need red, green and"),
        (1, "channel_drop", "channel_drop, which needs several channels, and the images have 1"),
        (1, "simclr_microscopy", "crop,flip,flip_vertical,rotate,channel_brightness,contrast,"),
    ],
)
def test_a_policy_that_does_not_suit_is_refused_with_one_that_does(channels, policy, part):
    with pytest.raises(errors.ArgumentError) as caught:
        operation_names.for_channels(policy, channels)
    assert part in str(caught.value)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_the_fitting_policy_suits(channels):
    operation_names.for_channels(operation_names.fitting(channels), channels)
    if channels > 1:
        operation_names.for_channels("simclr_microscopy", channels)
        operation_names.for_channels("simclr_multispectral", channels)


def test_channels_are_shown_by_number_or_name():
    pixels = pixel_format.of_dtype(4, "uint16").with_names(("blue", "green", "red", "nir"))
    assert shown.choose(pixels, None) == (2, 1, 0)
    assert shown.choose(pixels, "3,2,1") == (3, 2, 1)
    assert shown.choose(pixels, "nir") == (3,)
    assert shown.choose(pixels, "each") == (0,)
    assert shown.choose(pixel_format.of_dtype(5, "uint8"), None) == (0,)
    images = np.random.default_rng(0).uniform(size=(2, 3, 3, 4))
    np.testing.assert_array_equal(shown.as_rgb(images, (3, 2, 1)), images[..., [3, 2, 1]])
    np.testing.assert_array_equal(shown.as_rgb(tf.constant(images), (3,)), images[..., [3, 3, 3]])
    rows = shown.rows("views", images, pixels, "each")
    assert [caption for caption, _ in rows] == [f"views; channel {name}" for name in pixels.names]
    ((caption, drawn),) = shown.rows("views", images, pixels, "3,2,1")
    assert caption == "views; channels nir, red, green as red, green and blue"
    np.testing.assert_array_equal(drawn, images[..., [3, 2, 1]])
    ((caption, drawn),) = shown.rows("views", images[..., :3], pixel_format.RGB, None)
    assert (caption, drawn.shape[-1]) == ("views", 3)


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ("0,1", "names 2 channels; name three"),
        ("9", "names '9', and the channels are 0 to 3"),
        ("swir", "names 'swir', and the channels are 0 to 3."),
    ],
)
def test_channels_that_cannot_be_shown_are_refused(wanted, problem):
    with pytest.raises(errors.ArgumentError) as caught:
        shown.choose(pixel_format.of_dtype(4, "uint16"), wanted)
    assert problem in str(caught.value)


def test_names_of_channels_are_listed_where_they_have_some():
    pixels = pixel_format.of_dtype(2, "uint16").with_names(("nir", "swir"))
    with pytest.raises(errors.ArgumentError, match=r"are 0 to 1 \(nir, swir\)\.$"):
        shown.choose(pixels, "red,nir,nir")


def test_pictures_of_embeddings_draw_the_channels_of_the_run(monkeypatch):
    stored = {"pixels": dataclasses.asdict(pixel_format.of_dtype(4, "uint16"))}
    manifest = types.SimpleNamespace(architecture=stored, checkpoint="there/ckpt-4")
    found: Any = types.SimpleNamespace(manifest=manifest)
    run = config_lib.Config(show_channels="3,2,1")
    monkeypatch.setattr(embedded.directory, "read_config", {"there": run}.get)
    assert embedded.shown_channels(found, config_lib.Config()) == (3, 2, 1)
    assert embedded.shown_channels(found, config_lib.Config(show_channels="2")) == (2,)
    manifest.checkpoint = "gone/ckpt-4"
    assert embedded.shown_channels(found, config_lib.Config()) == (0,)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({}, None),
        ({"scale": "minmax", "channel_names": "a,b"}, None),
        (
            {"scale": "percentile"},
            "scale='percentile' cannot be changed in an evaluation: .* minmax",
        ),
        (
            {"channel_names": "b,a"},
            "have the channels b,a, and .* take a,b; put the channels",
        ),
        ({"channel_names": "c,d"}, "channel_names='c,d' are not those .* which are a,b; leave"),
        ({"standardize": True}, "standardize=True cannot be changed .* trained without it; leave"),
    ],
)
def test_an_evaluation_has_the_pixels_of_its_weights(monkeypatch, asked, problem):
    known = pixel_format.of_dtype(2, "uint16").with_names(("a", "b"))
    known = known.scaled((0.0, 0.0), (9.0, 9.0), "minmax")
    architecture = types.SimpleNamespace(pixels=known)
    weights: Any = types.SimpleNamespace(architecture=architecture, origin="there")
    source = types.SimpleNamespace(name="images", channel_names=None)
    data: Any = types.SimpleNamespace(source=source, train_split="train")
    checked = []
    monkeypatch.setattr(pixels.first_format, "check_suits", lambda *given: checked.append(given))
    config = config_lib.Config(mode="eval", **asked)
    if problem is None:
        assert pixels.settle(config, data, weights) == (known, False)
        assert checked == [(source, "train", known, "there")]
        return
    with pytest.raises(errors.UserError, match=problem):
        pixels.settle(config, data, weights)


def test_weights_keep_their_scale_unless_another_is_asked_for():
    plain = pixel_format.of_dtype(2, "uint16")
    standardized = plain.standardized((0.5, 0.5), (1.0, 1.0))
    for standardize, kept in ((False, (True, True)), (True, (False, True))):
        config = config_lib.Config(standardize=standardize)
        assert tuple(pixels.keeps_scale(config, one) for one in (plain, standardized)) == kept
    assert not pixels.keeps_scale(config_lib.Config(scale="minmax"), standardized)
