"""What the signatures of a SavedModel return, what they refuse, and in which sentence."""

from __future__ import annotations

import dataclasses
import io
import resource
import struct
from typing import Any
import zlib

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf
import tiny_runs

import run
from simclr_tf import errors
from simclr_tf.config.sections import serving as settings
from simclr_tf.data import crops, decode
from simclr_tf.models import simclr
from simclr_tf.serving import export, inputs, outputs
from simclr_tf.serving import servable as servables

OF_FLOATS = ("serving_default", "prepared")
OF_BYTES = ("serving_bytes", "serving_bytes_strict")


@pytest.fixture(scope="module")
def model() -> simclr.SimCLR:
    model = simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=3)
    # Initially the logits are almost equal.
    model.linear_head.set_weights([10 * value for value in model.linear_head.get_weights()])
    return model


@pytest.fixture(scope="module")
def serve(model, tmp_path_factory) -> Any:
    """A function that calls a signature of an export with all outputs."""
    folder = export.export(model, str(tmp_path_factory.mktemp("run")), 1, names=settings.OUTPUTS)
    signatures = tf.saved_model.load(folder).signatures

    def call(name: str, values: Any) -> dict[str, np.ndarray]:
        returned = signatures[name](tf.constant(values, tf.string if name in OF_BYTES else None))
        return {output: tensor.numpy() for output, tensor in returned.items()}

    return call


def images(count: int, height: int = 8, width: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(size=(count, height, width, 3)).astype(np.float32)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.uint8(255 * pixels)).save(file, kind)
    return file.getvalue()


def png(height: int, width: int, *, whole: bool = False) -> bytes:
    """Returns a black PNG, of which only a few bytes of pixels are there unless it is whole."""

    def chunk(tag: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(tag + data))
        return struct.pack(">I", len(data)) + tag + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 1) * height if whole else 100), 1)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_all_outputs_are_those_of_the_network(model, serve):
    got = serve("prepared", images(5))
    assert set(got) == set(settings.OUTPUTS)
    want = model(images(5))
    for name in ("features", "projection", "logits"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6)
    features, logits = want["features"].numpy(), want["logits"].numpy()
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(got["embedding"], features / lengths, rtol=1e-5, atol=1e-6)
    powers = np.exp(logits)
    shares = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(got["probabilities"], shares, rtol=1e-5)
    np.testing.assert_array_equal(got["top_classes"], np.argsort(-logits, axis=1))
    assert got["top_classes"].dtype == np.int32


def test_the_likeliest_five_of_many_classes_are_listed():
    many = dataclasses.replace(tiny_runs.ARCHITECTURE, class_names=tuple("abcdefg"))
    model = simclr.SimCLR(many, seed=0)
    got = outputs.compute(model, tf.constant(images(2)), ("logits", "top_classes"))
    want = np.argsort(-got["logits"].numpy(), axis=1)[:, :5]
    np.testing.assert_array_equal(got["top_classes"], want)


@pytest.mark.parametrize(
    ("names", "absent"),
    [
        (("embedding",), ("projection_head", "linear_head")),
        (("probabilities",), ("projection_head",)),
        (("projection",), ()),
    ],
)
def test_an_export_has_the_outputs_that_were_asked_for_and_their_weights(model, names, absent):
    servable = servables.Servable(model, names)
    function = servable._network.get_concrete_function()
    assert set(function.structured_outputs) == set(servable.names) == set(names)
    left_out = {v.ref() for name in absent for v in getattr(model, name).variables}
    weights = {v.ref() for v in servable.weights}
    assert weights == {v.ref() for v in model.variables} - left_out
    assert weights >= {v.ref() for v in function.variables}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *(
            ("serving_default", np.zeros(shape, np.float32))
            for shape in [(0, 9, 9, 3), (0, 0, 0, 3)]
        ),
        ("serving_uint8", np.zeros((0, 5, 9, 3), np.uint8)),
        ("prepared", np.zeros((0, 8, 8, 3), np.float32)),
        *((name, []) for name in OF_BYTES),
    ],
)
def test_an_empty_batch_has_empty_outputs(serve, name, values):
    got, one = serve(name, values), serve("prepared", images(1))
    assert set(got) - {"valid"} == set(one)
    for output in one:
        assert got[output].shape == (0, *one[output].shape[1:])
        assert got[output].dtype == one[output].dtype
    if name == "serving_bytes":
        assert got["valid"].shape == (0,)


def test_integers_from_0_to_255_are_taken_by_a_signature_of_their_own(serve):
    pixels = np.random.default_rng(1).integers(0, 256, (3, 12, 9, 3), np.uint8)
    got = serve("serving_uint8", pixels)
    want = serve("serving_default", pixels / np.float32(255))
    for name, values in want.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-5)


def test_images_of_the_right_size_are_not_resized(serve):
    got, want = serve("prepared", images(2)), serve("serving_default", images(2))
    np.testing.assert_allclose(got["features"], want["features"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OF_FLOATS)
@pytest.mark.parametrize("value", [255.0, 1.01, -0.01, np.nan])
def test_values_that_are_not_between_0_and_1_are_refused_with_the_remedy(serve, name, value):
    batch = images(2)
    batch[1, 2, 3, 1] = value
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        serve(name, batch)
    for words in ("divide values from 0 to 255 by 255", "serving_uint8", "clip"):
        assert words in str(raised.value)
    if value == 255:
        assert "[255]" in str(raised.value)


@pytest.mark.parametrize("name", OF_FLOATS)
def test_values_beyond_0_and_1_by_rounding_are_clipped(serve, name):
    batch = np.round(images(2))
    np.testing.assert_allclose(
        serve(name, batch + np.where(batch > 0, 0.0039, -0.0039).astype(np.float32))["features"],
        serve(name, batch)["features"],
        rtol=1e-5,
        atol=1e-6,
    )


def test_images_of_another_size_are_not_taken_as_prepared(serve):
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError), match=r"8, ?8, ?3"):
        serve("prepared", images(2, 9, 8))


@pytest.mark.parametrize(
    ("sides", "sentence"),
    [
        ((0, 5), "The image has no pixels"),
        ((1, 101), "The longer side of the image is more than 100 times the shorter one"),
        ((101, 1), "The longer side of the image is more than 100 times the shorter one"),
    ],
)
@pytest.mark.parametrize("name", ["serving_default", "serving_uint8"])
def test_images_without_a_square_to_keep_are_refused(serve, name, sides, sentence):
    dtype = np.uint8 if name == "serving_uint8" else np.float32
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        serve(name, np.zeros((1, *sides, 3), dtype))


def test_the_narrowest_images_are_taken(serve):
    assert serve("serving_default", images(1, 100, 1))["features"].shape == (1, 64)
    assert serve("serving_bytes", [encoded(images(1, 100, 1)[0])])["valid"].all()


GOOD = [encoded(one, kind) for one, kind in zip(images(4, 16, 24), ("PNG", "JPEG", "BMP", "GIF"))]
# Images that cannot be used, and the sentence that says so.
BAD = {
    "nothing": (b"", "The image is not a JPEG, PNG, GIF or BMP file"),
    "text": (b"a letter", "The image is not a JPEG, PNG, GIF or BMP file"),
    "another kind": (encoded(images(1)[0], "WEBP"), "is a WebP image, which TensorFlow alone"),
    "a header that is cut off": (GOOD[0][:20], "header of the image is corrupt or truncated"),
    "a PNG that is cut off": (GOOD[0][:90], "Invalid PNG data"),
    "a JPEG that is cut off": (GOOD[1][:-200], "Invalid JPEG data"),
    "a strip": (png(10_000, 1), r"more than 100 times the shorter one; crop it"),
    "many pixels": (png(20_000, 20_000), "has more than 100,000,000 pixels"),
    "sides beyond 32 bits": (png(2**31 - 1, 2**31 - 1), "has more than 100,000,000 pixels"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_image_is_marked_and_the_others_are_answered(serve, case):
    bad, _ = BAD[case]
    got = serve("serving_bytes", [GOOD[0], bad, *GOOD[1:]])
    np.testing.assert_array_equal(got.pop("valid"), [True, False, True, True, True])
    want = serve("serving_bytes_strict", GOOD)
    assert set(got) == set(want)
    for name, values in got.items():
        assert (values[1] == (-1 if name == "top_classes" else 0)).all()
        np.testing.assert_allclose(np.delete(values, 1, axis=0), want[name], rtol=1e-4, atol=1e-5)


def test_a_batch_of_bad_images_is_marked(serve):
    got = serve("serving_bytes", [b"", b"a letter"])
    assert not got["valid"].any() and not got["features"].any()


@pytest.mark.parametrize("case", BAD)
def test_a_strict_signature_refuses_a_bad_image(serve, case):
    bad, sentence = BAD[case]
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        serve("serving_bytes_strict", [GOOD[0], bad])


@pytest.mark.exhaustive
def test_a_decompression_bomb_takes_no_memory(serve):
    bomb = png(11_000, 11_000, whole=True)  # Of 121 million zeros.
    serve("serving_bytes", [GOOD[0]])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not serve("serving_bytes", 4 * [bomb])["valid"].any()
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # In KiB.
    assert taken < 200_000  # One of them, decoded, takes 363 MB.


@pytest.mark.parametrize("size", [8, 40])
def test_a_file_is_prepared_as_in_evaluation_whatever_is_beside_it(size):
    files = [encoded(one, kind) for one in images(2, 50, 70) for kind in ("PNG", "JPEG")] * 4
    prepare = tf.function(
        lambda some: inputs.prepare_bytes(some, size, strict=False)[0],
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    together = prepare(tf.constant(files))
    for index in range(4):
        alone = prepare(tf.constant(files[index : index + 1]))
        np.testing.assert_array_equal(alone[0], together[index])
        decoded = decode.decode_image(files[index])
        np.testing.assert_allclose(alone[0], crops.evaluation_image(decoded, size), atol=1e-6)


def test_outputs_do_not_depend_on_the_rest_of_the_batch(serve):
    """What TensorFlow computes for other batch sizes differs in the last digits only."""
    eight = [encoded(one) for one in images(8, 16, 16)]
    want = serve("serving_bytes", eight + 8 * [eight[0]])
    others = serve("serving_bytes", eight + 4 * [GOOD[1], b"a letter"])
    for name, values in want.items():
        np.testing.assert_array_equal(others[name][:8], values[:8])
        for index in range(8):
            alone = serve("serving_bytes", eight[index : index + 1])[name]
            np.testing.assert_allclose(alone[0], values[index], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            serve("serving_bytes", eight)[name], values[:8], rtol=1e-5, atol=1e-6
        )


def test_outputs_of_a_head_that_the_network_lacks_are_refused(tmp_path):
    bare = simclr.SimCLR(dataclasses.replace(tiny_runs.ARCHITECTURE, class_names=None), seed=0)
    with pytest.raises(errors.UserError, match="asks for logits and top_classes, and the network"):
        export.export(bare, str(tmp_path), 1, names=("features", "logits", "top_classes"))
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "an unknown output": (["--export_outputs=features,logit"], ["'logit'", "logits", "give auto"]),
    "outputs of the other format": (
        ["--export_outputs=embedding", "--format=official"],
        ["--export_outputs=embedding has no effect with --format=official", "leave it out"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_outputs_that_an_export_cannot_have_are_refused(case, capsys):
    arguments, words = REFUSED[case]
    assert run.main(["run.py", "--mode=export", "--model_dir=nowhere", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    assert [word for word in words if word not in message] == [], message
