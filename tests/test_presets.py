"""Presets: which is picked, what overrides it, what it keeps, and that each describes a run."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

from flags import command_line
from flags import preset as presets
from simclr_tf import cluster, config, errors
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


def test_several_workers_need_a_preset_by_name(photos, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", cluster.to_variable(["a:1", "b:1"], 0))
    with pytest.raises(errors.UserError, match="in one process, and TF_CONFIG names 2 workers; "):
        parse("--preset=auto", *photos, "--model_dir=/nowhere")
    parse("--preset=500_cpu", *photos, "--model_dir=/nowhere")


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
    assert command.config.train_batch_size == 32  # The largest power of two, of 36 images.
    # What is printed is the preset: as flags, it gives the same settings.
    printed = note.split(": ")[1].split()
    again = parse(*photos, "--temperature=0.7", *printed)
    assert dataclasses.replace(command.config, preset="none") == again.config
    (note,) = parse("--preset=500_cpu", *photos, *printed, "--temperature=0.7").notes
    assert note == "Preset 500_cpu: other flags give all of its settings."


def test_larger_images_have_the_size_of_the_preset(tmp_path):
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate([(80, 49), (60, 70), (20, 20)]):
        image = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
        (tmp_path / f"{index}.png").write_bytes(tf.io.encode_png(image).numpy())
    (tmp_path / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")  # Unreadable.
    folder = ["--dataset=image_folder", f"--data_dir={tmp_path}"]
    command = parse("--preset=auto", *folder)
    assert command.notes[0].startswith("Preset 500_cpu, for 4 training images on a CPU: --")
    assert command.config.image_size == presets.read("500_cpu")["image_size"]
    assert parse("--preset=auto", *folder, "--image_size=32").config.width_multiplier == 1
    source = dataset.open_source(command.config)
    assert first_images.usual_side(source, "train") == 49


@pytest.mark.parametrize(
    ("size", "width"), [("--image_size=32", 1), ("--image_size=33", 2), ("--image_size=64", 2)]
)
def test_the_width_goes_with_an_image_size_that_is_given(size, width, photos):
    """Only the stem for small images, up to 32 px, needs a narrow network."""
    config = parse("--preset=auto", *photos, size).config
    assert (f"--image_size={config.image_size}", config.width_multiplier) == (size, width)


def test_images_that_are_left_out_for_validation_are_not_counted(photos):
    validates = ["--eval_epochs=1", "--validation_examples=6"]
    command = parse("--preset=auto", *photos, *validates)
    assert "for 30 training images" in command.notes[0]
    assert command.config.train_batch_size == 16


def test_the_batch_suits_the_replicas_and_what_the_user_chose(photos):
    def batch(*flags):
        return parse("--preset=auto", *photos, *flags).config.train_batch_size

    assert batch("--num_virtual_cpus=3") == 24  # 3 times a power of two.
    assert batch("--train_batch_size=100") == 100  # Training refuses it.


def test_a_look_at_the_images_does_not_speak_of_memory(photos, capsys):
    """Training does, when it keeps the images in memory."""
    assert parse("--preset=auto", *photos, "--cache_dataset").config.cache_dataset
    assert "memory" not in capsys.readouterr().out


def test_auto_looks_for_an_accelerator(photos, monkeypatch):
    tpu = parse("--preset=auto", *photos, "--use_tpu")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["device"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, value: None)
    gpu = parse("--preset=auto", *photos)
    assert gpu.config == dataclasses.replace(tpu.config, use_tpu=False)
    assert tpu.notes[0] == gpu.notes[0].replace("on a GPU", "on a TPU")
    assert gpu.notes[0].startswith("Preset 500_gpu, for 36 training images of about 20 px on a GPU")


def test_devices_are_configured_before_images_are_counted(photos, monkeypatch):
    """TensorFlow refuses it after its first operation, such as one that reads a size."""
    order: list[Any] = []
    open_data = dataset.open_data
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, value: order.append((gpu, value))
    )
    monkeypatch.setattr(
        dataset,
        "open_data",
        lambda *args, **named: order.append("open") or open_data(*args, **named),
    )
    parse("--preset=auto", *photos)
    assert order == [("GPU", True), "open"]


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


@pytest.mark.parametrize("flag", ["--optimizer=momentum", "--resnet_depth=14", "--encoder=resnet"])
def test_a_flag_with_the_value_of_the_preset_replaces_nothing(flag, photos):
    named = parse("--preset=500_cpu", *photos)
    assert parse("--preset=500_cpu", *photos, flag).config == named.config


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


def test_a_preset_leaves_the_network_to_the_weights_of_a_checkpoint(tmp_path_factory, photos):
    weights = f"--checkpoint={tiny_runs.pretrained(tmp_path_factory)}"
    command = parse("--preset=auto", *photos, weights)
    assert (command.config.resnet_depth, command.config.image_size) == (8, 8)
    printed = command.notes[0].split(": ")[1].split()
    assert parse(*photos, weights, *printed).config == dataclasses.replace(
        command.config, preset="none"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--mode=finetune", "--dataset=mnist"],
            "is for pretraining; leave it out, because fine-tuning has defaults",
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
