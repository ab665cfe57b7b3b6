"""check_data, show_views and --max_bad_images: what the user learns about the data."""

import io

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.commands import show_views
from simclr_tf.data import (
    crops,
    decode,
    depth,
    inspection,
    kinds,
    operation_names,
    policies,
    sources,
)
from simclr_tf.runs import dataset
from simclr_tf.runs import unreadable as unreadable_lib


def _noise(height, width, bands=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, bands), np.uint8)


def _png16():
    levels = np.linspace(0, 65535, 20 * 16).reshape(20, 16).astype(np.uint16)
    return tf.io.encode_png(levels[..., np.newaxis]).numpy()


def _gif():
    frames = [Image.fromarray(_noise(20, 16)).convert("P") for _ in range(3)]
    frames[1].putpixel((0, 0), 3)
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def _saved(image, kind, **settings):
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def _unusual_files():
    cmyk = Image.fromarray(_noise(20, 16)).convert("CMYK")
    return {
        "fine.jpg": _saved(Image.fromarray(_noise(20, 16)), "JPEG"),
        "pixel.png": _saved(Image.fromarray(_noise(1, 1)), "PNG"),
        "deep.png": _png16(),
        "moving.gif": _gif(),
        "print.jpg": _saved(cmyk, "JPEG"),
        "clear.png": _saved(Image.fromarray(_noise(20, 16, 4)), "PNG"),
        "wide.jpg": _saved(Image.fromarray(_noise(40, 20_000)), "JPEG"),
    }


@pytest.fixture
def unusual(tmp_path):
    root = tmp_path / "unusual"
    root.mkdir()
    for name, content in _unusual_files().items():
        (root / name).write_bytes(content)
    return root


@pytest.fixture
def unreadable(photos, tmp_path):
    """A copy of the photos with two of 36 training images unreadable."""
    root = tmp_path / "unreadable"
    for path in photos.rglob("*.png"):
        copy = root / path.relative_to(photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (root / "train/red/3.png").write_bytes((root / "train/red/3.png").read_bytes()[:60])
    (root / "train/blue/0.png").write_bytes(b"not an image at all")
    return root


def _look(mode, model_dir, data_dir, **changes):
    return tiny_runs.main(mode, model_dir, data_dir, **changes)


# --- unusual images


def test_unusual_images_are_all_used(unusual):
    source = sources.open_source("image_folder", data_dir=str(unusual), seed=0)
    for example in source.examples("train"):
        cut = crops.crop_encoded(
            example["image"], tf.constant([1, 2]), policies.Policy(8), num_views=2
        )
        assert cut.shape == (2, 8, 8, 3) and np.isfinite(cut).all()
        name = example["name"].numpy().decode()
        size = decode.image_size(example["image"]).numpy()
        np.testing.assert_array_equal(size, decode.decode_image(example["image"]).shape[:2], name)


def test_check_data_reports_unusual_images(unusual, tmp_path, capsys):
    assert _look("check_data", tmp_path / "run", unusual) == 0
    out = capsys.readouterr().out
    assert "All 7 images of image_folder are readable." in out
    for words in ("less than 8 pixels", "an animation", "16 bits", "CMYK", "transparency"):
        assert words in out
    for name in ("pixel.png", "moving.gif", "deep.png", "print.jpg", "clear.png"):
        assert name in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "JPEG"])
def test_an_image_too_large_to_decode_is_refused_by_its_header(kind, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 399)
    content = _saved(Image.fromarray(_noise(20, 20)), kind)
    for function in (decode.decode_image, decode.image_size):
        with pytest.raises(tf.errors.InvalidArgumentError, match="more than 399 pixels"):
            function(tf.constant(content))
    monkeypatch.setattr(decode, "MAX_PIXELS", 400)
    assert decode.decode_image(tf.constant(content)).shape == (20, 20, 3)


def _check_windows(content, rng):
    """Asserts that four windows of an encoded image are cut out of the whole of it."""
    whole = decode.decode_image(content).numpy()
    height, width, _ = whole.shape
    for _ in range(4):
        y, x = rng.integers(0, height - 1), rng.integers(0, width - 1)
        h, w = rng.integers(1, height - y + 1), rng.integers(1, width - x + 1)
        got = decode.decode_window(content, tf.constant([y, x, h, w], tf.int32))
        np.testing.assert_array_equal(got, whole[y : y + h, x : x + w])


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_a_window_of_a_jpeg_is_that_of_the_whole_image(subsampling, progressive):
    rng = np.random.default_rng(0)
    for height, width in ((61, 83), (96, 32), (17, 200)):
        settings = {"subsampling": subsampling, "progressive": progressive}
        content = _saved(Image.fromarray(_noise(height, width)), "JPEG", **settings)
        _check_windows(tf.constant(content), rng)


def test_a_window_of_a_photograph_is_that_of_the_whole_photograph(shared):
    folder = str(shared / "data" / "clothing")
    source = sources.open_source("image_folder", data_dir=folder, seed=0)
    rng = np.random.default_rng(0)
    for example in source.examples("train").take(6):
        _check_windows(example["image"], rng)


def _photo(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _saved(Image.fromarray(_noise(20, 16)), "JPEG", exif=exif)


def test_check_data_counts_images_that_are_turned_and_images_that_pillow_decodes(tmp_path, capsys):
    root = tmp_path / "photos"
    root.mkdir()
    for orientation in (1, 3, 6):
        (root / f"{orientation}.jpg").write_bytes(_photo(orientation))
    for kind in ("WEBP", "TIFF"):
        (root / f"{kind}.jpg").write_bytes(_saved(Image.fromarray(_noise(20, 16)), kind))
    assert _look("check_data", tmp_path / "run", root) == 0
    lines = capsys.readouterr().out.splitlines()
    for what, count in (
        ("turned upright by its EXIF orientation", "2"),
        ("WebP, which is decoded by Pillow, more slowly", "1"),
        ("TIFF, which is decoded by Pillow, more slowly", "1"),
    ):
        (line,) = [line for line in lines if what in line]
        assert count in line.partition(what)[2].split()


# --- 16-bit images


def _deep(root, levels):
    """Writes a folder of 16-bit images, each with values from 0 to one of the levels."""
    root.mkdir()
    for number, level in enumerate(levels):
        samples = np.linspace(0, level, 20 * 16).reshape(20, 16, 1).astype(np.uint16)
        (root / f"{number}.png").write_bytes(tf.io.encode_png(samples).numpy())
    return root


LEVELS = {
    "12 bits": ([4_000, 4_095], "to 4,095 of 65,535 (6.2% of the range), so they will be nearly"),
    "14 bits": ([16_383], "to 16,383 of 65,535 (25% of the range), so they will be dark;"),
    "the whole range in one image": ([4_095, 65_535], None),
    "three quarters": ([50_000], None),
}


@pytest.mark.parametrize(("levels", "words"), LEVELS.values(), ids=LEVELS.keys())
def test_check_data_warns_of_16_bit_images_that_use_low_values(tmp_path, capsys, levels, words):
    deep = _deep(tmp_path / "deep", levels)
    assert _look("check_data", tmp_path / "run", deep, channels="rgb") == 0
    out = capsys.readouterr().out
    assert (words in out) if words else ("warning" not in out)
    assert "16 bits per sample" in out


def test_check_data_reads_16_bit_images_as_they_are_stored(tmp_path, capsys):
    deep = _deep(tmp_path / "deep", [4_000, 4_095])
    assert _look("check_data", tmp_path / "run", deep) == 0
    out = capsys.readouterr().out
    assert "The first images have 1 channel of uint16." in out and "warning" not in out


def test_the_start_of_training_warns_of_dark_images(tmp_path, capsys):
    root = _deep(tmp_path / "deep", [1023] * 40)
    source = sources.open_source("image_folder", data_dir=str(root), seed=0)
    dataset.warn_of_dark_images(dataset.Data(source, "train", "train"))
    out = capsys.readouterr().out
    assert "warning: 32 16-bit images" in out and "1.6% of the range" in out


def test_the_start_of_training_decodes_only_16_bit_images(photos, monkeypatch):
    monkeypatch.setattr(tf.io, "decode_png", None)
    source = sources.open_source("image_folder", data_dir=str(photos), seed=0)
    assert depth.sampled_range(source, "train") is None


def test_alpha_does_not_count_as_a_value():
    samples = np.full((4, 5, 2), 65_535, np.uint16)
    samples[..., 0] = 300
    found = depth.range_of("a", tf.io.encode_png(samples).numpy())
    assert (found.lowest, found.highest) == (300, 300)


# --- unreadable images


def test_check_data_lists_unreadable_images_and_the_remedy(unreadable, tmp_path, capsys):
    assert _look("check_data", tmp_path / "run", unreadable) == 2
    out, err = capsys.readouterr()
    assert "train/red/3.png" in out and "is corrupt or truncated" in out
    assert "train/blue/0.png" in out and f"is not a {kinds.SUPPORTED} image" in out
    assert "2 of 54 images of image_folder are unreadable" in err
    assert "--max_bad_images=2" in err


def test_check_data_counts_the_unreadable_images_of_each_split(unreadable, tmp_path, capsys):
    (unreadable / "test/green/2.png").write_bytes(b"not an image at all")
    assert _look("check_data", tmp_path / "run", unreadable) == 2
    out = capsys.readouterr().out
    assert "images of train 36/36  2 unreadable" in out
    assert "images of test 18/18  1 unreadable" in out


def test_an_unreadable_image_stops_training_unless_allowed(unreadable, tmp_path, capsys):
    model_dir = tmp_path / "run"
    assert tiny_runs.main("pretrain", model_dir, unreadable, **tiny_runs.NO_COLOR) == 2
    err = capsys.readouterr().err
    assert "train/red/3.png" in err or "train/blue/0.png" in err
    assert "--max_bad_images" in err


def test_more_unreadable_images_than_allowed_are_refused(unreadable, tmp_path, capsys):
    assert tiny_runs.main("pretrain", tmp_path / "run", unreadable, max_bad_images=1) == 2
    err = capsys.readouterr().err
    assert "2 images are unreadable, more than --max_bad_images=1" in err
    assert "train/red/3.png is corrupt" in err


@pytest.mark.exhaustive
def test_allowed_unreadable_images_are_excluded_counted_and_remembered(
    unreadable, tmp_path, capsys, no_export
):
    model_dir, settings = tmp_path / "run", {**tiny_runs.NO_COLOR, "max_bad_images": 2}
    assert tiny_runs.main("train_then_eval", model_dir, unreadable, **settings) == 0
    out = capsys.readouterr().out
    assert "Excluded 2 unreadable images" in out and "34" in out
    assert "Checking images of train 36/36  2 unreadable" in out
    splits = tiny_runs.json_of(model_dir / "bad_images.json")["splits"]
    assert set(splits["train"]["left_out"]) == {"train/red/3.png", "train/blue/0.png"}
    assert splits["test"] == {"images": 18, "left_out": {}}
    assert tiny_runs.json_of(model_dir / "result.json")["eval/examples"] == 18
    # The list is not made again: an image corrupted later stops the run.
    (unreadable / "train/red/5.png").write_bytes(b"gone")
    assert tiny_runs.main("eval", model_dir, unreadable, **settings) == 2
    out, err = capsys.readouterr()
    assert "train/red/5.png" in err and "Checking images" not in out


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b"5", b'{"data": {}, "splits": {"train": []}}', b"\xff\xfe", b"{"]
)
def test_a_damaged_list_of_unreadable_images_is_named(photos, tmp_path, content):
    (tmp_path / "bad_images.json").write_bytes(content)
    source = sources.open_source("image_folder", data_dir=str(photos), seed=0)
    config = config_lib.Config(
        dataset="image_folder", data_dir=str(photos), model_dir=str(tmp_path), max_bad_images=1
    )
    with pytest.raises(errors.UserError) as raised:
        unreadable_lib.exclude(config, source, ["test"])
    path = f"{tmp_path}/bad_images.json"
    assert str(raised.value).startswith((f"{path} is damaged", f"{path} is not UTF-8 text"))
    assert "remove it" in str(raised.value)


# --- pictures


def test_show_views_draws_every_operation(photos, tmp_path, capsys):
    # XLA does not compile operations on images of 12 pixels.
    assert _look("show_views", tmp_path / "sheet", photos, image_size=12) == 0
    assert "operations.png" in capsys.readouterr().out
    with Image.open(tmp_path / "sheet" / show_views.SHEET) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    rows = 2 + len(policies.OPERATIONS) + 3
    assert pixels.shape[0] == 6 + rows * (18 + 96 + 6) and pixels.shape[1] == 6 + 6 * 102
    for row in range(rows):  # Under each caption, text and then pictures: nothing is blank.
        top = 6 + row * 120
        assert pixels[top : top + 18].min() < 100
        assert np.std(pixels[top + 18 : top + 114, 6:102]) > 5


def test_rows_show_views_that_the_operation_changed(photos, monkeypatch):
    names = ("solarize", "posterize", "equalize", "color_drop")
    described = {name: operation_names.OPERATIONS[name] for name in names}
    monkeypatch.setattr(operation_names, "OPERATIONS", described)
    source = sources.open_source("image_folder", data_dir=str(photos), seed=0)
    image = decode.decode_image(next(iter(source.examples("train")))["image"]).numpy()
    rows = dict(show_views.contact_rows([image], policies.Policy(16, ops=()), seed=0))
    plain = next(iter(rows.values()))[0]
    changed = [made for caption, made in rows.items() if caption.startswith(names)]
    assert [np.abs(made[0] - plain).max() > 1 / 255 for made in changed] == 4 * [True]


def test_show_views_names_an_image_that_cannot_be_drawn(tmp_path, capsys):
    root = tmp_path / "bad"
    root.mkdir()
    (root / "a.png").write_bytes(b"nothing")
    assert _look("show_views", tmp_path / "sheet", root) == 2
    assert f"The image a.png is not a {kinds.SUPPORTED} image;" in capsys.readouterr().err


def test_findings_come_in_the_stored_order(unreadable):
    source = sources.open_source("image_folder", data_dir=str(unreadable), seed=0)
    findings = list(inspection.inspect(source, "train"))
    names = [example["name"].numpy().decode() for example in source.examples("train")]
    assert [finding.name for finding in findings] == names
    assert sum(finding.unreadable is not None for finding in findings) == 2


def test_a_cache_that_does_not_fit_is_refused(photos, tmp_path, capsys, monkeypatch):
    class Memory:
        available = 1000

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    assert tiny_runs.main("pretrain", tmp_path / "run", photos, cache_dataset=True) == 2
    err = capsys.readouterr().err
    assert "--cache_dataset does not fit" in err and "GiB of memory are free" in err


def test_show_views_refuses_a_folder_that_cannot_be_written(photos, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert _look("show_views", tmp_path / "file" / "sheet", photos) == 2
    assert "cannot be written to" in capsys.readouterr().err
