"""The precedence of flags, stored settings, recipe and defaults; flagfiles; --help."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import typing

import pytest
import tiny_runs

from flags import command_line, suggestions
from flags import help as help_lib
import run
from simclr_tf import config, errors
from simclr_tf.config import flagfile as flagfile_lib
from simclr_tf.config import metadata
from simclr_tf.runs import weights


def parse(*arguments: object) -> command_line.Command:
    return command_line.parse(["run.py", *map(str, arguments)])


@pytest.fixture
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_runs.pretrained(tmp_path_factory)


@pytest.fixture
def flagfile(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "own.flags"
    path.write_text("# Mine.\n--temperature=0.7\n--learning_rate=0.7\n")
    return path


def test_without_a_data_set_the_digits_recipe_is_used_and_reported():
    command = parse("--train_epochs=3")
    assert command.config.dataset == "digits"
    assert command.config.resnet_depth == 14  # Of the recipe; the default of the flag is 50.
    assert command.config.train_epochs == 3
    assert command.explicit == {"train_epochs"}
    (first,) = command.notes
    assert "No --dataset" in first
    assert "flags/recipes/digits.flags" in first


def test_a_data_directory_without_a_data_set_is_refused_instead_of_ignored():
    with pytest.raises(
        errors.UserError, match="--data_dir=/photos is given without --dataset; add"
    ):
        parse("--mode=train_then_eval", "--data_dir=/photos")
    # Empty, it unsets what a flagfile sets.
    assert parse("--data_dir=").config.dataset == "digits"


def test_with_a_data_set_no_recipe_is_used():
    command = parse("--dataset=cifar10")
    assert command.notes == ()
    assert command.config == config.Config(dataset="cifar10")


def test_the_command_line_overrides_a_flagfile_which_overrides_the_recipe(flagfile):
    command = parse(f"--flagfile={flagfile}", "--learning_rate=0.9")
    assert command.config.learning_rate == 0.9  # 0.7 in the flagfile, 0.1 in the recipe.
    assert command.config.temperature == 0.7  # 0.2 in the recipe.
    assert command.config.crop_area_min == 0.4  # Only in the recipe.
    assert command.explicit == {"learning_rate", "temperature"}


def test_the_command_line_overrides_a_flagfile_in_any_order(flagfile):
    for arguments in (
        ["--learning_rate=0.9", f"--flagfile={flagfile}"],
        ["--learning_rate=0.9", "--flagfile", flagfile],
        ["--flagfile", flagfile, "--learning_rate", "0.9"],
    ):
        assert parse(*arguments).config.learning_rate == 0.9
        assert parse(*arguments).config.temperature == 0.7


def test_with_a_data_set_in_a_flagfile_no_recipe_is_used(flagfile):
    flagfile.write_text("--dataset=cifar10\n")
    assert parse(f"--flagfile={flagfile}").config == config.Config(dataset="cifar10")


def test_a_command_line_does_not_affect_the_next_one():
    parse("--temperature=0.9", "--nouse_crop", "--dataset=cifar10", "--model_dir=/tmp/x")
    assert parse("--dataset=cifar10").config == config.Config(dataset="cifar10")


def test_a_checkpoint_that_is_not_evaluated_is_reported(pretrained):
    command = parse("--mode=eval", f"--model_dir={pretrained}", f"--checkpoint={pretrained}/ckpt-2")
    (warning,) = command.warnings
    assert f"--checkpoint={pretrained}/ckpt-2 is not read, because --model_dir=" in warning


def test_explicit_flags_override_a_stored_architecture(pretrained):
    command = parse("--mode=finetune", f"--checkpoint={pretrained}", "--dataset=cifar10")
    assert command.config.resnet_depth == 8
    assert command.config.image_size == 8
    assert command.config.num_proj_layers == 2
    assert command.notes == (
        f"Settings taken from {pretrained}/ckpt-4 (checkpoint of step 4): "
        "--resnet_depth=8, --image_size=8, --num_proj_layers=2, --proj_out_dim=8.",
    )
    command = parse(
        "--mode=finetune",
        f"--checkpoint={pretrained}/ckpt-2",
        "--dataset=cifar10",
        "--image_size=64",
    )
    assert command.config.image_size == 64
    assert command.config.resnet_depth == 8
    assert command.config.stem == "small"  # At this image size, auto would choose the other one.


def test_resuming_needs_no_flags_of_the_architecture(pretrained):
    command = parse(f"--model_dir={pretrained}", "--dataset=cifar10")
    assert (command.config.resnet_depth, command.config.image_size) == (8, 8)


def test_an_evaluation_uses_the_flags_of_the_run_unless_overridden(pretrained):
    command = parse("--mode=eval", f"--model_dir={pretrained}", "--eval_batch_size=5")
    assert command.notes == ()
    assert command.config.mode == "eval"
    assert command.config.dataset == "image_folder"
    assert command.config.train_steps == 4
    assert command.config.eval_batch_size == 5
    assert command.explicit == {"mode", "model_dir", "eval_batch_size"}


@pytest.mark.parametrize("short", config.SHORT_MODES)
def test_a_short_mode_means_a_mode_and_a_train_mode(short):
    command = parse(f"--mode={short}", "--dataset=cifar10")
    mode = {"pretrain": "train", "finetune": "train_then_eval"}[short]
    assert (command.config.mode, command.config.train_mode) == (mode, short)
    assert command.requested_mode == short


def _other_value(field: dataclasses.Field) -> typing.Any:
    """Returns a value of the type of a field that is not its default."""
    kind = typing.get_type_hints(config.Config)[field.name]
    default: typing.Any = field.default
    if kind is bool:
        return not default
    if kind is int:
        return default + 3
    if kind is float:
        return default + 1e-7 / 3  # As many digits as a float has.
    return {
        "mode": "train_then_eval",
        "train_mode": "finetune",
        "data_dir": "/a folder/with = signs, commas and 'quotes'",
        "model_dir": "/another model_dir",  # Paths are absolute.
        "checkpoint": "/another checkpoint",
        "teacher": "/another teacher",
        "baseline_run": "/another run",
    }.get(field.name, f"another {field.name}")


# All but those that are not stored with a run.
STORED = [f for f in dataclasses.fields(config.Config) if metadata.describe(f).stored]


def _all_changed() -> config.Config:
    return config.Config(**{field.name: _other_value(field) for field in STORED})


def test_a_config_survives_its_flagfile():
    for want in (config.Config(), _all_changed()):
        assert config.Config.from_flagfile(want.to_flagfile()) == want


@pytest.mark.parametrize("field", STORED, ids=lambda field: field.name)
def test_a_flagfile_holds_each_field(field):
    want = dataclasses.replace(config.Config(), **{field.name: _other_value(field)})
    text = want.to_flagfile()
    assert config.Config.from_flagfile(text) == want
    lines = [line for line in text.splitlines() if field.name in line.split("=")[0]]
    assert config.Config.from_flagfile("\n".join(lines)) == want


def test_the_permission_to_change_a_run_is_not_stored_with_it():
    assert config.Config(resume_with_changes=True).to_flagfile() == config.Config().to_flagfile()


@pytest.mark.parametrize(
    "text, value",
    [
        ("--nouse_crop", False),
        ("--use_crop", True),
        ("--use_crop=false", False),
        ("--use_crop=True", True),
        ("--use_crop=1", True),
        ("--use_crop=T", True),
        ("--use_crop=0", False),
        ("--use_crop=f", False),
        ("# A comment.\n\n--nouse_crop\n", False),
        ("  # An indented comment.\n  --nouse_crop\n// Another one.\n", False),
    ],
)
def test_a_flagfile_is_read_as_flags_are_written(text, value, flagfile):
    assert config.Config.from_flagfile(text).use_crop is value
    flagfile.write_text(text)
    assert parse(f"--flagfile={flagfile}").config.use_crop is value


@pytest.mark.parametrize(
    "line",
    [
        "--no_such_flag=1",
        "use_crop",
        "--use_crop=perhaps",
        "--temperature",
        "--seed=half",
        "--noseed",
    ],
)
def test_a_line_that_is_not_a_flag_is_refused_with_the_name_of_its_file(line):
    with pytest.raises(errors.UserError) as raised:
        config.Config.from_flagfile(f"--seed=1\n{line}\n", origin="runs/x/flags.txt")
    assert "runs/x/flags.txt has the line" in str(raised.value)
    assert repr(line) in str(raised.value)


@pytest.mark.parametrize("line", ["--nonsense", "--seed=half", "--use_crop=perhaps"])
def test_an_evaluation_names_the_file_of_a_stored_line_that_is_not_a_flag(tmp_path, line):
    (tmp_path / "flags.txt").write_text(f"--seed=1\n{line}\n")
    with pytest.raises(errors.UserError, match=f"^{tmp_path}/flags.txt has the line '{line}', "):
        parse("--mode=eval", f"--model_dir={tmp_path}")


def test_an_evaluation_names_the_file_of_a_stored_value_that_is_invalid(tmp_path):
    (tmp_path / "flags.txt").write_text("--dataset=cifar10\n--temperature=-1\n")
    arguments = ["--mode=eval", f"--model_dir={tmp_path}"]
    with pytest.raises(errors.UserError) as raised:
        parse(*arguments)
    assert str(raised.value) == (
        f"{tmp_path}/flags.txt has an invalid setting (--temperature must be between 0.0001 "
        "and 10000 (beyond these, float32 is not precise enough), got -1.0); correct it there, or "
        "override it on the command line."
    )
    assert parse(*arguments, "--temperature=0.5").config.temperature == 0.5
    (tmp_path / "flags.txt").write_text("--dataset=cifar10\n")
    assert parse(*arguments, "--temperature=-1").config.temperature == -1  # Not of the file.


def test_an_empty_string_unsets_a_setting_that_may_be_missing():
    assert config.Config(teacher="").teacher is None
    assert config.Config.from_flagfile("--teacher=x\n--teacher=\n") == config.Config()


def test_a_value_with_a_line_break_is_refused():
    with pytest.raises(errors.UserError, match="line break"):
        config.Config(data_dir="a\nb").to_flagfile()


def test_docs_flags_md_is_up_to_date():
    page = pathlib.Path(__file__).parents[1] / "docs" / "flags.md"
    assert page.read_text() == help_lib.page(), "run: python -m flags.help > docs/flags.md"


def test_every_setting_that_needs_another_one_is_refused_without_it():
    for field in dataclasses.fields(config.Config):
        only_with = metadata.describe(field).only_with
        if only_with is None:
            continue
        other, values = only_with
        without = {
            "mode": config.Config(mode=next(m for m in config.MODES if m not in values)),
            "encoder": config.Config(encoder="keras:MobileNetV2"),
            "objective": config.Config(
                objective=next(
                    name for name in ("nt_xent", "supcon", "nt_logistic") if name not in values
                )
            ),
            "learning_rate_decay": config.Config(),
            "dataset": config.Config(dataset="digits"),
            "scale": config.Config(scale="minmax"),
            "launcher": config.Config(mode="study"),
        }[other]
        choices = metadata.describe(field).choices
        value = (
            next((c for c in choices if c != field.default), None)
            or {
                float: 0.5 if field.default != 0.5 else 0.25,
                int: 2 if field.default != 2 else 3,
                bool: not field.default,
                str: "x",
            }[flagfile_lib.types(config.Config)[field.name]]
        )
        with pytest.raises(errors.UserError) as raised:
            config.validate(
                dataclasses.replace(without, **{field.name: typing.cast(typing.Any, value)})
            )
        assert f"--{field.name}={value} applies only to --{other}={'|'.join(values)} (" in str(
            raised.value
        )


def test_a_flagfile_on_the_command_line_restores_every_field_of_a_config(tmp_path):
    changed = _all_changed()
    for want in (config.Config(), changed):
        # A checkpoint is looked up when the command line is parsed.
        want = dataclasses.replace(want, checkpoint=None)
        path = tmp_path / "flags.txt"
        path.write_text(want.to_flagfile())
        assert parse(f"--flagfile={path}").config == want


def test_every_flag_is_in_the_help(capsys):
    for word in ("--help", "-h", "--helpfull"):
        assert run.main(["run.py", word]) == 0
        text = capsys.readouterr().out
        for field in dataclasses.fields(config.Config):
            lines = text.split(f"\n  --{field.name}\n")
            assert len(lines) == 2, f"--{field.name} is explained {len(lines) - 1} times"
            text_of_flag = " ".join(lines[1].split("\n  --")[0].split())
            assert "(default: " in text_of_flag
    assert "python run.py --mode=train_then_eval" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    "argument, message",
    [
        (
            "--flagfile=/nowhere/x.flags",
            "--flagfile=/nowhere/x.flags cannot be read (No such file or directory); the recipes "
            "are in flags/recipes/.",
        ),
        (
            "--flagfile=recipes/cifar10_resnet",
            "--flagfile=recipes/cifar10_resnet cannot be read (No such file or directory); did you "
            "mean flags/recipes/cifar10_resnet50.flags or flags/recipes/cifar10_resnet18.flags or "
            "flags/recipes/cifar10_supcon_resnet50.flags?",
        ),
        (
            "--flagfile=/",
            "--flagfile=/ cannot be read (Is a directory); the recipes are in flags/recipes/.",
        ),
        ("--flagfile", "--flagfile lacks a path; write --flagfile=PATH."),
        ("--use_crop=maybe", "--use_crop must be true or false, got 'maybe'."),
        ("--image_size=large", "--image_size must be an integer, got 'large'."),
        ("--image_size=", "--image_size must be an integer, got ''."),
        (
            "--study_seeds=0,1,0",
            "--study_seeds=0,1,0 gives the seed 0 twice, and lists seeds instead of their number; "
            "give for example --study_seeds=2, or list seeds in a study file of your own, as "
            "seeds = [0, 1].",
        ),
        ("--study_seeds=3,5", "--study_seeds=3,5 lists seeds instead of their number; give for "),
        ("--temperature=a: b=c", "--temperature must be a number, got 'a: b=c'."),
        ("--temperature", "Missing value for flag --temperature (--help lists the flags)."),
        ("--datset=cifar10", "Unknown flag --datset (did you mean --dataset, "),
        ("--train-epochs=3", "Unknown flag --train-epochs (did you mean --train_epochs?); --help"),
        ("--no-use_blur", "Unknown flag --no-use_blur (did you mean --nouse_blur?); --help lists"),
        ("--lr=1", "Unknown flag --lr (did you mean --learning_rate?); --help lists the flags."),
        ("--epochs=3", "Unknown flag --epochs (did you mean --train_epochs?); --help lists"),
        ("--zzz", "Unknown flag --zzz; --help lists the flags."),
        ("pretrain", "'pretrain' is not a flag; flags are written --name=value"),
    ],
)
def test_an_argument_that_cannot_be_parsed_is_refused_in_a_sentence(argument, message):
    with pytest.raises(errors.UserError, match=f"^{re.escape(message)}"):
        parse(argument)


def test_the_usual_names_of_other_programs_suggest_flags_that_exist():
    names = {field.name for field in dataclasses.fields(config.Config)}
    assert set(suggestions.USUAL_NAMES.values()) <= names
    assert not names & suggestions.USUAL_NAMES.keys()


def test_a_flagfile_that_is_not_utf_8_is_refused_with_its_name(tmp_path):
    (tmp_path / "inner.flags").write_bytes(b"--dataset=caf\xe9\n")
    (tmp_path / "outer.flags").write_text(f"--flagfile={tmp_path}/inner.flags\n")
    message = f"^--flagfile={tmp_path}/inner.flags is not UTF-8 text .its byte 13 is 0xe9.; save it"
    for name in ("inner", "outer"):
        with pytest.raises(errors.UserError, match=message):
            parse(f"--flagfile={tmp_path}/{name}.flags")


def test_a_flagfile_that_includes_itself_is_refused(tmp_path):
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / one).write_text(f"--flagfile={tmp_path}/{other}\n")
    with pytest.raises(errors.UserError, match=f"^--flagfile={tmp_path}/a includes itself"):
        parse(f"--flagfile={tmp_path}/a")


def test_help_ends_quietly_if_its_reader_has_ended():
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, run.__file__, "--help"]
        process = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(write)
    assert (process.returncode, process.stderr) == (0, b"")


def test_the_settings_taken_from_a_run_are_written_as_flags():
    note = command_line._changes("runs/x", {"normalize_features": True, "proj_head_bn": False})
    assert note == ["Settings taken from runs/x: --normalize_features, --noproj_head_bn."]


def test_an_evaluation_of_a_checkpoint_uses_the_data_of_its_run_unless_a_data_set_is_given(
    pretrained,
):
    arguments = ["--mode=eval", f"--checkpoint={pretrained}", "--model_dir=/nowhere/new"]
    command = parse(*arguments, "--eval_split=test[:50%]")
    assert command.config.dataset == "image_folder"
    assert command.config.data_dir.endswith("photos0")
    assert command.config.eval_split == "test[:50%]"
    for given in ("--dataset=cifar10", "--data_dir=/photos"):
        config_of_user = parse(*arguments, given).config
        assert (config_of_user.dataset == "cifar10") == ("cifar10" in given)
        assert config_of_user.data_dir == ("/photos" if "photos" in given else None)
        assert config_of_user.eval_split == "validation"
    # Fine-tuning is often done on other data.
    assert parse("--mode=finetune", *arguments[1:]).config.data_dir is None


def test_an_evaluation_of_weights_of_the_reference_uses_the_data_in_its_flags_json(
    pretrained, monkeypatch
):
    opened = weights.open_weights(str(pretrained))
    flags = {"dataset": "cifar10", "eval_split": "test", "data_dir": "gs://x", "train_steps": 7}
    opened = dataclasses.replace(opened, from_reference=True, flags=flags)
    monkeypatch.setattr(weights, "open_weights", lambda *_: opened)
    config_of_user = parse("--mode=eval", "--checkpoint=x", "--model_dir=/nowhere/new").config
    assert (config_of_user.dataset, config_of_user.eval_split) == ("cifar10", "test")
    assert (config_of_user.data_dir, config_of_user.train_steps) == (None, 0)
