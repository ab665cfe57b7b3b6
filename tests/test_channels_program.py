"""The whole program on images of 13 channels and of 12 bits, from training to serving."""

import pathlib

import numpy as np
import pytest
from sklearn import datasets
import tensorflow as tf
import test_stored
import tiny_runs

import run
from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.commands import conversion
from simclr_tf.embeddings import reading
from simclr_tf.models import stem_channels
from simclr_tf.report import run_files
from simclr_tf.runs import directory, weights
from simclr_tf.serving import forms

BANDS = tuple(f"B{number}" for number in range(13))
FLAGS = {
    "train_steps": 2,
    "checkpoint_steps": 2,
    "linear_eval": False,
    "augmentation": "crop,flip,channel_brightness,channel_drop",
}


def bands(index: int) -> np.ndarray:
    """Returns an image of 13 channels (12, 14, 13) uint16 that is made of a digit.

    Each channel is a mix of its own of the digit and of a slope, on a level of its own, with noise.
    """
    rng = np.random.default_rng(index)
    digit = np.kron(datasets.load_digits().images[index] / 16, np.ones((2, 2)))[:12, :14]
    slope = np.broadcast_to(np.linspace(0, 1, 14), (12, 14))
    shares = np.random.default_rng(99).uniform(size=(2, 13))
    mixed = digit[..., np.newaxis] * shares[0] + slope[..., np.newaxis] * shares[1]
    values = 1000 + 100 * np.arange(13) + 3000 * mixed + rng.normal(0, 40, mixed.shape)
    return values.clip(0, 65_535).astype(np.uint16)


def _write(root: pathlib.Path, encode, suffix: str) -> pathlib.Path:
    for index in range(36):
        path = _path(root, index)
        path.with_name(f"{index}{suffix}").write_bytes(encode(bands(index)))
    return root


def _path(root: pathlib.Path, index: int) -> pathlib.Path:
    """Returns the path of an image without its suffix, in a folder that exists."""
    split, label = "train" if index < 24 else "test", datasets.load_digits().target[index] % 3
    path = root / split / f"c{label}" / str(index)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _pages(image: np.ndarray) -> bytes:
    return test_stored.tiff(np.moveaxis(image, -1, 0))


def _grey(image: np.ndarray) -> bytes:
    """Returns the content of a PNG of 16 bits, of which 12 are used."""
    return tf.io.encode_png(image[..., :1] // 2).numpy()


def write_for_pages(folder: pathlib.Path) -> None:
    """Writes the folders of images that docs/channels.md trains on."""
    _write(folder / "scenes", _pages, ".tif")
    _write(folder / "cells", lambda image: test_stored.npy(image.repeat(3, 0).repeat(3, 1)), ".npy")
    _write(folder / "scans", _grey, ".png")
    for index in range(36):
        path = _path(folder / "scenes-bands", index)
        for number, name in enumerate(("B2", "B3", "B4", "B8", "B8A")):
            plane = test_stored.tiff(bands(index)[..., number])
            path.with_name(f"{index}_{name}.tif").write_bytes(plane)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder of TIFF files with 13 pages of 16 bits each."""
    return _write(tmp_path_factory.mktemp("scenes"), _pages, ".tif")


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    """A run on them."""
    model_dir = tmp_path_factory.mktemp("runs") / "bands"
    names = ",".join(BANDS)
    flags = {**FLAGS, "channel_names": names, "standardize": True}
    code = tiny_runs.main("train_then_eval", model_dir, scenes, **flags)
    assert code == 0
    return model_dir


@pytest.fixture(scope="module")
def embeddings(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("embeddings") / "all"
    flags = ["--mode=embed", f"--embeddings={folder}", "--eval_batch_size=12"]
    assert run.main(["run.py", f"--checkpoint={trained}", *flags]) == 0
    return folder


@pytest.fixture(scope="module")
def served(trained):
    return tf.saved_model.load(str(trained / "saved_model/2"))


def test_the_scale_is_that_of_the_training_images_and_is_stored(trained):
    pixels = directory.read_architecture(str(trained)).pixels
    assert (pixels.channels, pixels.dtype, pixels.scale) == (13, "uint16", "percentile")
    assert pixels.names == BANDS
    flat = np.stack([bands(index) for index in range(24)]).reshape(-1, 13).astype(np.float64)
    np.testing.assert_allclose(pixels.low, np.percentile(flat, 0.5, axis=0))
    np.testing.assert_allclose(pixels.high, np.percentile(flat, 99.5, axis=0))
    scaled = np.clip((flat - pixels.low) / np.subtract(pixels.high, pixels.low), 0, 1)
    np.testing.assert_allclose(pixels.mean, scaled.mean(0))
    np.testing.assert_allclose(pixels.deviation, scaled.std(0))
    result = tiny_runs.json_of(trained / "result.json")
    assert 0 <= result["eval/label_top_1_accuracy"] <= 1
    assert (trained / "views.png").exists()


def test_all_signatures_scale_the_stored_values_themselves(served, embeddings):
    found = reading.open_folder(str(embeddings))
    of_name = dict(zip(found.names, np.concatenate(list(found.parts)), strict=True))
    names = sorted(of_name, key=lambda name: int(pathlib.Path(name).stem))
    want = np.stack([of_name[name] for name in names])
    images = np.stack([bands(index) for index in range(36)])
    signatures = served.signatures
    assert set(signatures) == {
        *("serving_default", "serving_uint16", "prepared"),
        *("serving_bytes", "serving_bytes_strict"),
    }
    made = {
        "serving_default": signatures["serving_default"](images=images.astype(np.float32)),
        "serving_uint16": signatures["serving_uint16"](images=tf.constant(images)),
        "serving_bytes": signatures["serving_bytes"](
            image_bytes=tf.constant([test_stored.npy(image) for image in images])
        ),
    }
    for name, outputs in made.items():
        np.testing.assert_allclose(outputs["features"], want, rtol=1e-3, atol=1e-5, err_msg=name)
    valid = signatures["serving_bytes"](
        image_bytes=tf.constant([test_stored.npy(images[0]), _pages(images[0]), b"nothing"])
    )["valid"]
    assert valid.numpy().tolist() == [True, False, False]


def test_the_bundle_names_channels_and_units(trained):
    described = tiny_runs.json_of(trained / "saved_model/2/assets.extra/model.json")
    pixels = directory.read_architecture(str(trained)).pixels
    assert described["pixels"]["dtype"] == "uint16"
    assert described["pixels"]["channels"][3] == {
        "name": "B3",
        "becomes_0": pixels.low[3],
        "becomes_1": pixels.high[3],
    }
    assert "13 channels of uint16" in described["preprocessing"]["description"]
    assert "subtracts the mean of each channel" in described["preprocessing"]["description"]
    assert described["pixels"]["mean"] == list(pixels.mean)
    assert described["pixels"]["deviation"] == list(pixels.deviation)
    assert described["signatures"]["serving_default"]["shape"] == [None, None, None, 13]


def test_an_image_is_found_by_itself(embeddings, scenes, capsys, tmp_path):
    (query,) = scenes.glob("test/*/30.tif")
    flags = [f"--embeddings={embeddings}", f"--query={query}", f"--model_dir={tmp_path}"]
    assert run.main(["run.py", "--mode=search", "--show_channels=3,2,1", *flags]) == 0
    first = (tmp_path / "neighbours.csv").read_text().splitlines()[1].split(",")
    assert first[2].endswith("/30.tif") and float(first[-1]) > 0.9999


def test_an_image_with_other_channels_is_named(trained, scenes, tmp_path, capsys):
    other = tmp_path / "scenes/test/c0/other.tif"
    other.parent.mkdir(parents=True)
    other.write_bytes(_pages(bands(0)[..., :5]))
    other.with_name("same.tif").write_bytes(_pages(bands(0)))
    flags = [
        f"--checkpoint={trained}",
        "--dataset=image_folder",
        f"--data_dir={tmp_path / 'scenes'}",
    ]
    folder = f"--embeddings={tmp_path / 'new'}"
    assert run.main(["run.py", "--mode=embed", folder, "--labels=none", *flags]) == 2
    printed = capsys.readouterr().err
    assert "other.tif of 'test[0:2]' has 5 channels, and 13 are expected" in printed
    other.with_name("same.tif").unlink()
    assert run.main(["run.py", "--mode=embed", folder, "--labels=none", *flags]) == 2
    printed = capsys.readouterr().err
    assert "have 5 channels of uint16 (as test/c0/other.tif), and the weights of" in printed
    assert "take 13 channels of uint16" in printed


@pytest.mark.exhaustive
def test_views_are_drawn_channel_by_channel(scenes, tmp_path, capsys):
    flags = [f"--data_dir={scenes}", f"--model_dir={tmp_path}", "--show_channels=each"]
    flags += ["--dataset=image_folder", "--image_size=8", "--augmentation=crop,blur"]
    assert run.main(["run.py", "--mode=show_views", *flags]) == 0
    printed = capsys.readouterr().out
    assert "Not for images of 13 channels of uint16: color_jitter, color_drop, auto" in printed
    sheet = tf.io.decode_png((tmp_path / "operations.png").read_bytes())
    # A row for each channel of each operation that suits, of no operation, a crop and 3 images.
    assert sheet.shape[0] > 13 * 100 * 10


@pytest.mark.exhaustive
@pytest.mark.usefixtures("no_export")
def test_grey_images_of_12_bits_are_trained_embedded_and_scaled(tmp_path, capsys):
    data, model_dir = _write(tmp_path / "scans", _grey, ".png"), tmp_path / "run"
    assert tiny_runs.main("train", model_dir, data, **{**FLAGS, "augmentation": "auto"}) == 0
    assert "crop, flip, brightness, contrast, blur" in capsys.readouterr().out
    pixels = directory.read_architecture(str(model_dir)).pixels
    assert (pixels.channels, pixels.dtype) == (1, "uint16")
    flat = np.stack([bands(index)[..., 0] // 2 for index in range(24)]).astype(np.float64)
    np.testing.assert_allclose(pixels.low, np.percentile(flat, 0.5))
    np.testing.assert_allclose(pixels.high, np.percentile(flat, 99.5))


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_the_stem_of_three_channels_is_repeated_and_rescaled(channels):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 5))
    made = stem_channels.repeated(kernel, channels)
    assert made.shape == (3, 3, channels, 5)
    if channels == 1:
        np.testing.assert_allclose(made[:, :, 0], kernel.sum(2))
    for channel in range(channels if channels > 1 else 0):
        np.testing.assert_allclose(made[:, :, channel], kernel[:, :, channel % 3] * 3 / channels)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("no_export")
def test_a_checkpoint_of_pictures_starts_a_network_of_13_channels(
    pretrained, scenes, tmp_path, capsys
):
    model_dir = tmp_path / "started"
    flags = {**FLAGS, "learning_rate": 1e-12, "weight_decay": 0.0}
    assert tiny_runs.main("train", model_dir, scenes, **flags, checkpoint=pretrained) == 0
    printed = " ".join(capsys.readouterr().out.split())
    said = "of the stem, the weights of 3 channels were repeated and scaled by 3/13"
    assert said in printed
    assert any(said in line for line in run_files.read(str(model_dir)).initial_weights)
    name = "model/encoder/stem_conv/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    old, new = (tiny_runs.weights(folder)[name] for folder in (pretrained, model_dir))
    np.testing.assert_allclose(new, stem_channels.repeated(old, 13), rtol=1e-6)


@pytest.mark.exhaustive
def test_a_keras_application_of_13_channels_is_trained_restored_and_served(scenes, tmp_path):
    model_dir, folder = tmp_path / "run", tmp_path / "all"
    network = {"encoder": "keras:MobileNetV3Small", "image_size": 32, "resnet_depth": None}
    assert tiny_runs.main("train", model_dir, scenes, **{**FLAGS, **network}) == 0
    kernel = tiny_runs.weights(model_dir)["model/encoder/adapter/kernel/.ATTRIBUTES/VARIABLE_VALUE"]
    before = stem_channels.averaging(13, 3)
    assert np.abs(kernel.reshape(13, 3) - before).max() > 0
    flags = ["--mode=embed", f"--embeddings={folder}", f"--checkpoint={model_dir}"]
    assert run.main(["run.py", *flags]) == 0
    found = reading.open_folder(str(folder))
    want = dict(zip(found.names, np.concatenate(list(found.parts)), strict=True))
    (name,) = (name for name in want if name.endswith("/30.tif"))
    served = tf.saved_model.load(str(model_dir / "saved_model/2"))
    made = served.signatures["serving_uint16"](images=tf.constant(bands(30)[np.newaxis]))
    np.testing.assert_allclose(made["features"][0], want[name], rtol=1e-3, atol=1e-4)


@pytest.mark.exhaustive
def test_a_teacher_of_other_images_is_refused(pretrained, scenes, tmp_path, capsys):
    flags = {**FLAGS, "objective": "distill", "teacher": pretrained}
    assert tiny_runs.main("train", tmp_path / "run", scenes, **flags) == 2
    printed = capsys.readouterr().err
    assert "takes images of 3 channels of uint8, and these have 13 channels of uint16" in printed


def test_weights_of_channels_that_a_stem_leaves_out_are_named():
    assert "13 channels were repeated and scaled by 13/26" in stem_channels.in_words(13, 26)
    left_out = (
        "the first 5 of 13 channels were taken, the others left out, and scaled by 13/5 for 5"
    )
    assert left_out in stem_channels.in_words(13, 5)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("no_export")
def test_fine_tuning_keeps_the_scale_of_the_weights_unless_another_is_asked_for(
    trained, scenes, tmp_path, capsys
):
    flags = {**FLAGS, "train_mode": "finetune", "checkpoint": trained, "augmentation": None}
    theirs = directory.read_architecture(str(trained)).pixels
    assert tiny_runs.main("train", tmp_path / "one", scenes, **flags) == 0
    assert "the values of" not in capsys.readouterr().out
    own = directory.read_architecture(str(tmp_path / "one")).pixels
    assert (own.low, own.high) == (theirs.low, theirs.high)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"channels": 5}, "--channels=5 is not what the images have: "),
        ({"channels": "many"}, "--channels must be auto, rgb or a number from 1 to 1024"),
        ({"augmentation": "simclr"}, "use --augmentation=simclr_multispectral, or its other op"),
        ({"scale": "none"}, "--scale=none is for float32 from 0 to 1, and the images hold uint16"),
        ({"channel_names": "a,b,a"}, "--channel_names=a,b,a has a twice; name each channel once"),
        ({"channel_names": "a,b"}, "has 2 names, and the images have 13 channels of uint16"),
        ({"show_channels": "1,40,2"}, "names '40', and the channels are 0 to 12."),
    ],
)
def test_what_does_not_suit_the_images_is_refused(changes, problem, scenes, tmp_path, capsys):
    assert tiny_runs.main("train", tmp_path / "run", scenes, **{**FLAGS, **changes}) == 2
    assert problem in capsys.readouterr().err


def test_an_export_is_measured_on_images_as_they_are_stored(trained, scenes):
    opened = weights.open_weights(str(trained))
    config = config_lib.Config(mode="export")
    images = conversion.images_of(config, opened, forms.Form("tflite", "int8"))
    first = next(images.samples(8))
    assert first.shape == (1, 8, 8, 13) and 0 <= first.min() < 0.4 and 0.6 < first.max() <= 1
    config = config_lib.Config(channel_names=",".join(reversed(BANDS)))
    with pytest.raises(errors.UserError, match="put the channels of the images into this order"):
        conversion.images_of(config, opened, forms.Form("tflite", "int8"))


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "eval"},
        {"mode": "eval", "checkpoint": "TRAINED", "model_dir": "NEW"},
        {"mode": "embed", "checkpoint": "TRAINED", "model_dir": None, "embeddings": "NEW"},
        {"mode": "finetune", "checkpoint": "TRAINED", "model_dir": "NEW"},
        {"mode": "transfer", "checkpoint": "TRAINED", "model_dir": "NEW", "transfer_to": "SCENES"},
    ],
    ids=("eval", "eval of weights", "embed", "finetune", "transfer"),
)
def test_channels_in_another_order_than_that_of_the_weights_are_refused(
    changes, trained, scenes, tmp_path, capsys
):
    of_name = {"TRAINED": trained, "NEW": tmp_path / "new", "SCENES": scenes}
    flags = {"model_dir": trained, "dataset": "image_folder", "data_dir": scenes}
    flags |= {"channel_names": ",".join(reversed(BANDS))}
    flags |= {name: of_name.get(value, value) for name, value in changes.items()}
    given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    assert run.main(["run.py", *given]) == 2
    assert f"take {','.join(BANDS)}; put the channels of" in capsys.readouterr().err


def test_an_evaluation_of_a_run_refuses_another_scale(trained, capsys):
    assert run.main(["run.py", "--mode=eval", f"--model_dir={trained}", "--scale=minmax"]) == 2
    assert "--scale=minmax cannot be changed in an evaluation" in capsys.readouterr().err


def test_show_views_names_an_image_without_a_scale(tmp_path, capsys):
    for index in range(12):
        content = test_stored.npy(np.full((4, 4, 2), np.nan if index == 5 else index, np.float32))
        (tmp_path / f"{index:02}.npy").write_bytes(content)
    flags = ["--dataset=image_folder", f"--data_dir={tmp_path}", f"--model_dir={tmp_path}/sheet"]
    assert run.main(["run.py", "--mode=show_views", *flags]) == 2
    assert "The image 05.npy of 'train' has values that are not numbers" in capsys.readouterr().err
    flags += ["--show_channels=5"]
    assert run.main(["run.py", "--mode=show_views", *flags]) == 2
    assert "names '5', and the channels are 0 to 1" in capsys.readouterr().err
