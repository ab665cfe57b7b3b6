"""Presets: which is picked, what overrides it, what it keeps, and that each describes a run."""

from __future__ import annotations

import dataclasses
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

from flags import command_line
from flags import preset as presets
from simclr_tf import config, errors
from simclr_tf.data import first_images
from simclr_tf.runs import dataset, directory

ROOT = pathlib.Path(__file__).parents[1]
NAMES = config.PRESETS[1:]
HEADER = ("What", "Where", "Takes", "Gives", "Why")


def parse(*arguments: object) -> command_line.Command:
    return command_line.parse(["run.py", "--mode=train_then_eval", *map(str, arguments)])


@pytest.fixture
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The flags of a folder with 36 training images."""
    return ["--dataset=image_folder", f"--data_dir={tiny_runs.photos(tmp_path_factory)}"]


def test_every_preset_is_a_file():
    small = {"small_images_cpu", "small_images_gpu"}
    assert {path.stem for path in presets.FOLDER.glob("*.flags")} == {*NAMES, *small}


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_valid_and_says_what_to_expect(name, photos):
    command = parse(f"--preset={name}", *photos, "--model_dir=/nowhere")
    config.validate(command.config)
    values = presets.read(name)
    assert {key: getattr(command.config, key) for key in values} == values
    text = (presets.FOLDER / f"{name}.flags").read_text()
    assert [part for part in HEADER if f"# {part}: " not in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_lists_only_what_differs_from_the_defaults(name):
    same = {
        key for key, value in presets.read(name).items() if getattr(config.Config, key) == value
    }
    # These belong together, so they may be listed even at their defaults.
    assert same <= {"optimizer", "learning_rate", "train_batch_size"}


def test_the_table_in_the_readme_is_that_of_the_files():
    found = re.findall(r"^\| `(\d+_.pu)` \|(.*)\|$", (ROOT / "README.md").read_text(), re.M)
    assert [name for name, _ in found] == list(NAMES)
    rows = dict(found)
    for name, row in rows.items():
        settings = config.Config(**presets.read(name))
        assert f" {settings.train_steps * settings.train_batch_size:,} " in row
        network = f"ResNet-{settings.resnet_depth}"
        if settings.width_multiplier > 1:
            network += f", width {settings.width_multiplier},"
        smallest = presets.read(f"500_{name.partition('_')[2]}")
        if "the same" in row:
            shared = ("resnet_depth", "width_multiplier", "image_size")
            assert {key: smallest[key] for key in shared} == {
                key: getattr(settings, key) for key in shared
            }
        else:
            assert f"{network} at {settings.image_size} px" in row
    limits = {row.split("|")[0].strip() for row in rows.values()}
    assert limits == {"up to 1,581", "up to 15,811", "more"}


@pytest.mark.parametrize(
    ("images", "size"),
    # The borders are at the geometric means: 1,581.1 and 15,811.4.
    [(1, 500), (500, 500), (1_581, 500), (1_582, 5000), (15_811, 5000), (15_812, 50000)],
)
def test_the_nearest_preset_by_ratio_is_picked(images, size):
    assert presets.nearest(images, "cpu") == f"{size}_cpu"
    assert presets.nearest(images, "gpu") == f"{size}_gpu"


def test_auto_looks_at_the_training_images_and_shows_what_it_picked(photos):
    command = parse("--preset=auto", *photos, "--temperature=0.7")
    (note,) = command.notes
    assert note.startswith("Preset 500_cpu, for 36 training images of about 20 px on a CPU: --")
    assert "--temperature" not in note  # It was given.
    assert command.config.temperature == 0.7
    assert command.config.image_size == 32  # Of the flags for small images.
    # What is printed is the preset: as flags, it gives the same settings.
    printed = note.split(": ")[1].removesuffix(".").split()
    again = parse(*photos, "--temperature=0.7", *printed)
    assert dataclasses.replace(command.config, preset="none") == again.config


def test_larger_images_have_the_size_of_the_preset(tmp_path):
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate([(80, 49), (60, 70), (20, 20)]):
        image = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
        (tmp_path / f"{index}.png").write_bytes(tf.io.encode_png(image).numpy())
    (tmp_path / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")  # Unreadable.
    command = parse("--preset=auto", "--dataset=image_folder", f"--data_dir={tmp_path}")
    assert command.notes[0].startswith("Preset 500_cpu, for 4 training images on a CPU: --")
    assert command.config.image_size == presets.read("500_cpu")["image_size"]
    source = dataset.open_source(command.config)
    assert first_images.usual_side(source, "train") == 49


def test_images_that_are_left_out_for_validation_are_not_counted(photos):
    validates = ["--eval_epochs=1", "--validation_examples=6"]
    assert "for 30 training images" in parse("--preset=auto", *photos, *validates).notes[0]


def test_auto_looks_for_an_accelerator(photos, monkeypatch):
    tpu = parse("--preset=auto", *photos, "--use_tpu")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["device"])
    gpu = parse("--preset=auto", *photos)
    assert gpu.notes == tpu.notes
    assert gpu.notes[0].startswith("Preset 500_gpu, for 36 training images of about 20 px on a GPU")


def test_flags_and_flagfiles_override_a_preset(photos, tmp_path):
    (tmp_path / "own.flags").write_text("--temperature=0.7\n")
    command = parse(
        "--preset=500_cpu", *photos, "--image_size=32", f"--flagfile={tmp_path}/own.flags"
    )
    assert (command.config.image_size, command.config.temperature) == (32, 0.7)
    assert command.config.resnet_depth == presets.read("500_cpu")["resnet_depth"]
    # The batch size was not chosen by the user, so that training may reduce it to the images.
    assert "train_batch_size" not in command.explicit


@pytest.mark.parametrize(
    ("flag", "replaced"),
    [
        ("--train_epochs=7", {"train_steps"}),
        ("--optimizer=lars", {"learning_rate"}),
        ("--resnet_depth=50", {"width_multiplier"}),
        ("--encoder=keras:EfficientNetV2B0", {"resnet_depth", "width_multiplier"}),
    ],
)
def test_a_flag_also_replaces_what_a_preset_chose_to_go_with_it(flag, replaced, photos):
    """Otherwise 7 epochs would have no effect beside 1,250 steps."""
    command = parse("--preset=500_cpu", *photos, flag, "--model_dir=/nowhere")
    config.validate(command.config)
    values = presets.read("500_cpu")
    assert replaced <= values.keys()
    for name in replaced:
        assert getattr(command.config, name) == getattr(config.Config, name)
        assert f"--{name}=" not in command.notes[0]
    kept = values.keys() - replaced - {flag[2:].partition("=")[0]}
    assert all(getattr(command.config, name) == values[name] for name in kept)


def test_a_run_that_is_resumed_keeps_its_settings(tmp_path_factory, photos):
    """Although it would now be given others, for example on a machine with a GPU."""
    folder = tiny_runs.pretrained(tmp_path_factory)
    command = parse("--preset=auto", *photos, f"--model_dir={folder}", "--temperature=0.3")
    stored = directory.read_config(str(folder))
    assert stored is not None
    changed = {
        field.name
        for field in dataclasses.fields(config.Config)
        if getattr(stored, field.name) != getattr(command.config, field.name)
    }
    files = presets.FOLDER.glob("*.flags")
    settings = {name for path in files for name in presets.read(path.stem)}
    assert changed & settings == {"temperature"}
    assert f"the run in {folder} keeps the settings that it was started with" in command.notes[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--mode=finetune", "--dataset=mnist"],
            "is for pretraining; leave it out. --train_mode=finetune has",
        ),
        (["--mode=train"], "--preset=auto needs images of your own; add --dataset=image_folder"),
        (["--mode=train", "--dataset=image_folder", "--data_dir=/nowhere"], "/nowhere"),
    ],
)
def test_a_preset_that_does_not_suit_the_command_is_refused(flags, message):
    with pytest.raises(errors.UserError, match=message):
        command_line.parse(["run.py", "--preset=auto", *flags])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset=600_cpu"], "--preset must be one of none, auto, 500_cpu, .* got '600_cpu'"),
        (
            ["--preset=auto", "--mode=export"],
            "--preset=auto applies only to --mode=train.train_then_eval",
        ),
    ],
)
def test_a_wrong_preset_is_refused(flags, message):
    command = command_line.parse(["run.py", "--dataset=mnist", "--model_dir=/nowhere", *flags])
    with pytest.raises(errors.UserError, match=message):
        config.validate(command.config)
