"""The defaults of fine-tuning, and the batch size of runs for which the user chose none."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shlex
from typing import Any

import pytest
import tiny_runs

from flags import command_line
from flags import help as help_lib
import run
from simclr_tf import config, errors
from simclr_tf.runs import batch_size

README = pathlib.Path(__file__).parents[1] / "README.md"
# SimCLR, appendix B.5: Nesterov momentum, a rate of 0.05 per 256 images, neither warm-up nor
# weight decay, and 60 epochs on 1% of the labels.
PAPER: dict[str, Any] = {
    "optimizer": "momentum",
    "learning_rate": 0.05,
    "warmup_epochs": 0.0,
    "weight_decay": 0.0,
    "train_epochs": 60,
}


def parse(*arguments: object) -> config.Config:
    return command_line.parse(["run.py", *map(str, arguments)]).config


@pytest.mark.parametrize(
    "mode", [["--train_mode=finetune"], ["--mode=finetune"], ["--mode=finetune", "--mode=train"]]
)
def test_fine_tuning_has_the_defaults_of_the_paper(mode):
    parsed = parse(*mode, "--dataset=cifar10", "--train_mode=finetune")
    assert parsed == config.Config(
        mode=parsed.mode, train_mode="finetune", dataset="cifar10", **PAPER
    )


@pytest.mark.parametrize(
    "mode", [["--mode=pretrain", "--train_mode=finetune"], ["--mode=train_then_eval"]]
)
def test_pretraining_has_the_defaults_of_the_reference(mode):
    parsed = parse(*mode, "--dataset=cifar10")
    assert parsed == config.Config(mode=parsed.mode, dataset="cifar10")


def test_only_settings_that_are_not_given_have_the_defaults_of_fine_tuning(tmp_path):
    (tmp_path / "own.flags").write_text("--learning_rate=0.3\n--train_epochs=100\n")
    flags = ["--mode=finetune", "--dataset=cifar10", f"--flagfile={tmp_path}/own.flags"]
    parsed = parse(*flags, "--optimizer=lars")
    given = {"optimizer": "lars", "learning_rate": 0.3, "train_epochs": 100}
    want = {**PAPER, **given}
    assert {name: getattr(parsed, name) for name in PAPER} == want


def test_a_recipe_that_is_used_without_a_data_set_overrides_the_defaults_of_fine_tuning():
    parsed = parse("--mode=finetune")
    assert (parsed.learning_rate, parsed.train_epochs) == (0.2, 13)


def test_a_run_of_an_older_version_is_resumed_with_the_settings_that_it_was_trained_with(
    pretrained,
):
    # Its unset settings had the defaults of pretraining.
    older = config.Config(train_mode="finetune", dataset="cifar10", learning_rate=0.7)
    (pretrained / "flags.txt").write_text(older.to_flagfile())
    command = ["--mode=finetune", "--dataset=cifar10", f"--model_dir={pretrained}"]
    parsed = parse(*command, "--learning_rate=0.7")
    assert {name: getattr(parsed, name) for name in PAPER} == {
        name: getattr(older, name) for name in PAPER
    }
    # In evaluation it also keeps what was given.
    assert parse("--mode=eval", f"--model_dir={pretrained}") == dataclasses.replace(
        older, mode="eval", model_dir=str(pretrained), **_architecture(pretrained)
    )
    # A rate that was given and is now left out is a change, as in pretraining.
    assert parse(*command).learning_rate == 0.05


def _architecture(model_dir):
    stored = tiny_runs.json_of(model_dir / "architecture.json")
    names = ("resnet_depth", "image_size", "num_proj_layers", "proj_out_dim")
    return {name: stored[name] for name in names}


def test_help_and_the_page_of_flags_show_both_defaults():
    assert "(default: 0.3; to fine-tune: 0.05)" in " ".join(help_lib.usage().split())
    assert "| `--learning_rate` | `0.3`; to fine-tune: `0.05` |" in help_lib.page()


def readme_command(mode: str) -> list[str]:
    """Returns the arguments of a command in README.md."""
    text = README.read_text().replace("\\\n", " ")
    line = next(line for line in text.splitlines() if f"--mode={mode} " in line)
    return shlex.split(line.split("#")[0])[2:]


@pytest.fixture
def sixty_images(photos, tmp_path):
    """A folder of class/*.png with 20 images of each of three classes."""
    for name in tiny_runs.CLASSES:
        images = sorted(photos.glob(f"*/{name}/*.png"))  # 18 of them.
        (tmp_path / "data" / name).mkdir(parents=True)
        for index, image in enumerate([*images, *images[:2]]):
            (tmp_path / "data" / name / f"{index}.png").write_bytes(image.read_bytes())
    return tmp_path / "data"


@pytest.mark.exhaustive
def test_the_command_of_the_readme_fine_tunes_on_60_images(
    pretrained, tmp_path, sixty_images, capsys, no_export
):
    tuned = tmp_path / "tuned"
    places = {"runs/mine": pretrained, "runs/tuned": tuned, "PATH": sixty_images}
    arguments = [
        re.sub("|".join(places), lambda match: str(places[match[0]]), argument)
        for argument in readme_command("finetune")
    ]
    command = ["run.py", *arguments]
    assert run.main([*command, "--train_steps=1"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "32 images over 1 replica (32 each); chosen to suit the images and" in printed
    assert "1 (0.593 epochs), 0 of them warm-up" in printed  # A tenth is held out.
    assert "momentum, peak rate 0.00625" in printed  # 0.05 * 32 / 256
    result = tiny_runs.json_of(tuned / "result.json")
    assert 0 <= result["eval/label_top_1_accuracy"] <= 1
    stored = (tuned / "flags.txt").read_text()
    for flag in ("train_batch_size=32", "optimizer=momentum", "train_epochs=60"):
        assert f"--{flag}\n" in stored
    # It can be resumed without naming the batch that was chosen.
    assert run.main([*command, "--train_steps=2", "--resume_with_changes"]) == 0
    assert tiny_runs.json_of(tuned / "result.json")["global_step"] == 2
    assert "train_batch_size" not in (tuned / "flags_history.jsonl").read_text()
    capsys.readouterr()
    # A batch size that is given is a change, and so is one that is chosen and differs.
    assert run.main([*command, "--train_steps=2", "--train_batch_size=16"]) == 2
    assert "--train_batch_size: 32 stored, 16 given" in capsys.readouterr().err
    stored = (tuned / "flags.txt").read_text()
    (tuned / "flags.txt").write_text(stored.replace("train_batch_size=32", "train_batch_size=8"))
    assert run.main([*command, "--train_steps=2"]) == 2
    assert "--train_batch_size: 8 stored, 32 given" in capsys.readouterr().err


@pytest.mark.parametrize(
    "images, replicas, settings, want",
    [
        (512, 1, {}, 512),
        (1_000_000, 1, {}, 512),
        (511, 1, {}, 256),
        (60, 1, {}, 32),
        (2, 1, {}, 2),
        (3, 1, {}, 2),
        (60, 4, {}, 32),
        (60, 3, {}, 48),
        (1_000_000, 3, {}, 384),
        (60, 2, {"accum_chunks": 3}, 48),
        (60, 1, {"samples_per_class": 6}, 48),
        (200, 1, {"train_batch_size": 128}, 128),  # That of a recipe.
        (100, 1, {"train_batch_size": 128}, 64),
        (64, 1, {"max_bad_images": 1}, 32),  # One image may be excluded later.
        (64, 1, {"max_bad_images": 1_000_000}, 32),
    ],
)
def test_the_batch_size_is_the_largest_that_suits(images, replicas, settings, want):
    given = config.Config(**settings)
    fitted = batch_size.fit(given, images, replicas)
    assert fitted == dataclasses.replace(given, train_batch_size=want)
    # The properties that the numbers above are examples of.
    assert fitted.train_batch_size <= images
    assert fitted.train_batch_size % (replicas * given.accum_chunks) == 0


@pytest.mark.parametrize(
    "images, replicas, settings, message",
    [
        (1, 1, {}, "Split 'train' has 1 image, and the smallest possible batch is 2; add images"),
        (
            30,
            4,
            {"accum_chunks": 16},
            "Split 'train' has 30 images, and the smallest possible batch is 64 (4 replicas, "
            "--accum_chunks=16); add images",
        ),
    ],
)
def test_too_few_images_for_any_batch_are_refused_with_what_to_do(
    images, replicas, settings, message
):
    with pytest.raises(errors.UserError, match=f"^{re.escape(message)}"):
        batch_size.fit(config.Config(**settings), images, replicas)


def test_one_image_is_refused_with_a_remedy_that_helps(photos, tmp_path, capsys):
    for batch in (None, 2):
        changes = {"train_split": "train[:1]", "train_batch_size": batch}
        assert tiny_runs.main("pretrain", tmp_path / "run", photos, **changes) == 2
        message = capsys.readouterr().err
        assert "Split 'train[:1]' has 1 image, and " in message
        assert "add images, or set --train_split to a larger split" in message
