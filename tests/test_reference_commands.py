"""Commands from the READMEs of google-research/simclr give the same runs here."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shlex
from typing import Any

import pytest
import tiny_runs

from flags import command_line, retired
import run
from simclr_tf import config, errors
from simclr_tf.serving import export

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "coming_from_simclr.md"

# The 48 flags of the reference's tf2/run.py with their defaults, in the same order.
FLAGS = {
    "learning_rate": 0.3,
    "learning_rate_scaling": "linear",
    "warmup_epochs": 10,
    "weight_decay": 1e-6,
    "batch_norm_decay": 0.9,
    "train_batch_size": 512,
    "train_split": "train",
    "train_epochs": 100,
    "train_steps": 0,
    "eval_steps": 0,
    "eval_batch_size": 256,
    "checkpoint_epochs": 1,
    "checkpoint_steps": 0,
    "eval_split": "validation",
    "dataset": "imagenet2012",
    "cache_dataset": False,
    "mode": "train",
    "train_mode": "pretrain",
    "lineareval_while_pretraining": True,
    "checkpoint": None,
    "zero_init_logits_layer": False,
    "fine_tune_after_block": -1,
    "master": None,
    "model_dir": None,
    "data_dir": None,
    "use_tpu": True,
    "tpu_name": None,
    "tpu_zone": None,
    "gcp_project": None,
    "optimizer": "lars",
    "momentum": 0.9,
    "eval_name": None,
    "keep_checkpoint_max": 5,
    "keep_hub_module_max": 1,
    "temperature": 0.1,
    "hidden_norm": True,
    "proj_head_mode": "nonlinear",
    "proj_out_dim": 128,
    "num_proj_layers": 3,
    "ft_proj_selector": 0,
    "global_bn": True,
    "width_multiplier": 1,
    "resnet_depth": 50,
    "sk_ratio": 0.0,
    "se_ratio": 0.0,
    "image_size": 224,
    "color_jitter_strength": 1.0,
    "use_blur": True,
}
# Flags that only one of the two releases of its TF1 code has.
ONLY_TF1 = {"train_summary_steps", "variable_schema"}
FIRST_RELEASE = {"head_proj_mode", "head_proj_dim", "num_nlh_layers"}

PRETRAIN_CIFAR = (
    {
        "train_mode": "pretrain",
        "train_batch_size": 512,
        "train_epochs": 1000,
        "learning_rate": 1.0,
        "weight_decay": 1e-4,
        "temperature": 0.5,
        "dataset": "cifar10",
        "image_size": 32,
        "eval_split": "test",
        "resnet_depth": 18,
        "use_blur": False,
        "color_jitter_strength": 0.5,
        "model_dir": "/tmp/simclr_test",
        "use_tpu": False,
    },
    {},
)
PRETRAIN_IMAGENET = (
    {
        "train_mode": "pretrain",
        "train_batch_size": 4096,
        "train_epochs": 100,
        "temperature": 0.1,
        "learning_rate": 0.075,
        "learning_rate_scaling": "sqrt",
        "weight_decay": 1e-4,
        "dataset": "imagenet2012",
        "image_size": 224,
        "eval_split": "validation",
        "data_dir": "gs://bucket/tfds",
        "model_dir": "gs://bucket/model",
        "use_tpu": True,
        "tpu_name": "tpu",
        "train_summary_steps": 0,  # The reference's tf2/ code does not define this flag.
    },
    {},
)
LINEAR_CIFAR = (
    {
        "mode": "train_then_eval",
        "train_mode": "finetune",
        "fine_tune_after_block": 4,
        "zero_init_logits_layer": True,
        "global_bn": False,
        "optimizer": "momentum",
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "train_epochs": 100,
        "train_batch_size": 512,
        "warmup_epochs": 0,
        "dataset": "cifar10",
        "image_size": 32,
        "eval_split": "test",
        "resnet_depth": 18,
        "checkpoint": "/tmp/simclr_test",
        "model_dir": "/tmp/simclr_test_ft",
        "use_tpu": False,
    },
    {"variable_schema": "(?!global_step|(?:.*/|^)Momentum|head)"},
)
FINETUNE_IMAGENET = (
    {
        "mode": "train_then_eval",
        "train_mode": "finetune",
        "fine_tune_after_block": -1,
        "zero_init_logits_layer": True,
        "global_bn": True,
        "optimizer": "lars",
        "learning_rate": 0.005,
        "learning_rate_scaling": "sqrt",
        "weight_decay": 0.0,
        "train_epochs": 60,
        "train_batch_size": 1024,
        "warmup_epochs": 0,
        "dataset": "imagenet2012_subset/1pct",
        "image_size": 224,
        "eval_split": "validation",
        "data_dir": "gs://bucket/tfds",
        "model_dir": "gs://bucket/model",
        "checkpoint": "gs://bucket/pretrained",
        "use_tpu": True,
        "tpu_name": "tpu",
        "train_summary_steps": 0,
        "num_proj_layers": 3,
        "ft_proj_selector": 1,
    },
    {"variable_schema": "(?!global_step|(?:.*/|^)Momentum|head_supervised)"},
)
LINEAR_IMAGENET = (
    {
        **LINEAR_CIFAR[0],
        "weight_decay": 1e-6,
        "train_epochs": 90,
        "train_batch_size": 4096,
        "dataset": "imagenet2012",
        "image_size": 224,
        "resnet_depth": 50,
        "eval_split": "validation",
        "data_dir": "gs://bucket/tfds",
        "model_dir": "gs://bucket/model",
        "checkpoint": "gs://bucket/pretrained",
        "use_tpu": True,
        "tpu_name": "tpu",
        "train_summary_steps": 0,
    },
    LINEAR_CIFAR[1],
)
COMMANDS: dict[str, Any] = {
    "tf2/README, pretraining on CIFAR-10": PRETRAIN_CIFAR,
    "tf2/README, pretraining on ImageNet": PRETRAIN_IMAGENET,
    "README, linear evaluation on CIFAR-10": LINEAR_CIFAR,
    "README, linear evaluation on ImageNet": LINEAR_IMAGENET,
    "README, fine-tuning on 1% of ImageNet": FINETUNE_IMAGENET,
}


def parse(*arguments: str) -> command_line.Command:
    return command_line.parse(["run.py", *arguments])


@pytest.fixture
def no_stored_settings(monkeypatch):
    """Skips stored settings, because the buckets of the commands do not exist here."""
    monkeypatch.setattr(command_line, "_check_remote", lambda name: None)
    monkeypatch.setattr(command_line, "_open_stored", lambda: (None, None))


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_of_the_readmes_give_the_same_settings(name, no_stored_settings):
    fields, retired_flags = COMMANDS[name]
    line = " ".join(f"--{k}={shlex.quote(str(v))}" for k, v in {**fields, **retired_flags}.items())
    command = parse(*shlex.split(line))
    assert command.config == config.Config(**fields)
    assert command.notes == ()
    assert len(command.warnings) == len(retired_flags)
    config.validate(command.config)
    # All other flags have the defaults of the reference.
    for flag, default in FLAGS.items():
        if flag not in fields and flag != "use_tpu":
            assert getattr(command.config, flag) == default, flag


def test_all_flags_of_the_reference_exist_with_its_defaults_except_use_tpu():
    assert len(FLAGS) == 48
    defaults = dataclasses.asdict(config.Config())
    differing = {name for name, default in FLAGS.items() if defaults[name] != default}
    assert differing == {"use_tpu"}


def test_the_flags_of_its_tf1_code_exist_or_are_retired():
    names = {field.name for field in dataclasses.fields(config.Config)}
    assert (ONLY_TF1 | FIRST_RELEASE) - names == retired.RETIRED.keys()
    assert all(flag.successor in {None, *names} for flag in retired.RETIRED.values())
    assert retired.NO_EFFECT.keys() <= names


def test_a_boolean_can_be_written_in_every_way_of_absl():
    for written, value in (
        (["--use_blur=False"], False),
        (["--use_blur=false"], False),
        (["--nouse_blur"], False),
        (["--use_blur=0"], False),
        (["--use_blur=True"], True),
        (["--use_blur"], True),
    ):
        assert parse("--dataset=cifar10", *written).config.use_blur is value


@pytest.mark.parametrize("dash", ["-", "--"])
@pytest.mark.parametrize("words", [1, 2])
def test_the_value_of_a_renamed_flag_is_passed_to_its_successor(dash, words):
    old = {"head_proj_mode": "linear", "head_proj_dim": "64", "num_nlh_layers": "1"}
    arguments = [f"{dash}{name}={value}" for name, value in old.items()]
    if words == 2:
        arguments = [word for argument in arguments for word in argument.split("=")]
    command = parse("--dataset=cifar10", *arguments)
    expected: dict[str, Any] = {
        "proj_head_mode": "linear",
        "proj_out_dim": 64,
        "num_proj_layers": 2,
    }
    assert command.config == config.Config(dataset="cifar10", **expected)
    assert command.explicit == {"dataset", *expected}
    for (name, _), (successor, value), warning in zip(
        old.items(), expected.items(), command.warnings
    ):
        assert warning.startswith(f"--{name} ")
        assert f"--{successor}={value}" in warning


def test_of_a_retired_flag_and_its_successor_the_later_one_is_used(tmp_path):
    assert parse("--head_proj_dim=64", "--proj_out_dim=32").config.proj_out_dim == 32
    assert parse("--proj_out_dim=32", "--head_proj_dim=64").config.proj_out_dim == 64
    path = tmp_path / "old.flags"
    path.write_text("# Mine.\n--head_proj_dim=64\n--temperature=0.3\n")
    command = parse("--proj_out_dim=32", f"--flagfile={path}")
    assert (command.config.proj_out_dim, command.config.temperature) == (32, 0.3)
    assert len(command.warnings) == 1


def test_a_flag_without_effect_is_warned_about_once():
    command = parse("--variable_schema", "a.*", "--variable_schema=b", "--eval_name=mine")
    schema, name = command.warnings
    assert schema.startswith("--variable_schema has no effect: --checkpoint loads the whole")
    assert name.startswith("--eval_name has no effect")


def rows(table: str) -> dict[str, list[str]]:
    """Returns the rows of a table of the page, by the flag in the first column."""
    cells = {}
    for line in table.splitlines():
        flag = re.match(r"\| `--(\w+)` \|", line)
        if flag:
            cells[flag[1]] = [cell.strip() for cell in line.strip("|").split("|")]
    return cells


def test_the_page_for_users_of_the_reference_describes_every_flag_correctly():
    page = PAGE.read_text()
    same = page.split("```")[1].split()
    other_flags, rest = page.split("Retired flags are accepted", 1)
    differing, retired_flags = rows(other_flags), rows(rest.split("**The training step.**", 1)[0])
    assert same == sorted(FLAGS.keys() - differing.keys())
    differ = {name for name, default in FLAGS.items() if default != getattr(config.Config, name)}
    assert differing.keys() == {*differ, *retired.NO_EFFECT, "train_summary_steps"}
    assert retired_flags.keys() == retired.RETIRED.keys()
    for name, (_, _, now) in retired_flags.items():
        successor = retired.RETIRED[name].successor
        assert now.startswith("none: " if successor is None else f"`--{successor}`")
    names = {field.name for field in dataclasses.fields(config.Config)}
    assert set(re.findall(r"--(\w+)", page)) <= names | retired.RETIRED.keys()
    assert f"({PAGE.relative_to(ROOT)})" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            ["--num_nlh_layers=two"],
            ["--num_nlh_layers must be an integer, got 'two'", "--num_proj_layers"],
        ),
        (["--head_proj_dim=wide"], ["--proj_out_dim", "wide"]),
        (["--head_proj_dim"], ["--head_proj_dim lacks a value", "--proj_out_dim"]),
        (["--head_proj_dims=8"], ["head_proj_dims", "--help"]),
        (["--variable_scheme=a"], ["variable_scheme", "--help"]),
        (["--weight_decai=0"], ["weight_decai", "did you mean --weight_decay"]),
    ],
)
def test_a_flag_that_neither_program_has_is_an_error(arguments, words):
    with pytest.raises(errors.UserError) as raised:
        parse(*arguments)
    assert [word for word in words if word not in str(raised.value)] == [], raised.value


@pytest.mark.exhaustive
def test_pretraining_and_linear_evaluation_of_the_readmes_run(
    tmp_path, photos, capsys, monkeypatch
):
    monkeypatch.setattr(export, "export", lambda *_, **__: "")  # Takes seconds; not needed.
    small = {
        "dataset": "image_folder",
        "data_dir": photos,
        "train_batch_size": 8,
        "train_epochs": 1,
        "warmup_epochs": 0,
        "image_size": 8,
        "resnet_depth": 8,
        "linear_eval": False,
        **tiny_runs.NO_COLOR,
    }
    pretrained, tuned = tmp_path / "pretrained", tmp_path / "tuned"
    for (fields, retired_flags), paths in (
        (PRETRAIN_CIFAR, {"model_dir": pretrained}),
        (LINEAR_CIFAR, {"model_dir": tuned, "checkpoint": pretrained}),
    ):
        flags = {**fields, **retired_flags, **small, **paths}
        assert run.main(["run.py", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    printed = capsys.readouterr().out
    assert "warning: --variable_schema has no effect" in printed
    assert "linear head: set to zero (--zero_init_logits_layer)" in " ".join(printed.split())
    result = tiny_runs.json_of(tuned / "result.json")
    # The reference trains for images * epochs // batch + 1 steps.
    assert result["global_step"] == 36 // 8 + 1
    assert 0 <= result["eval/label_top_1_accuracy"] <= 1
    before, after = (
        tiny_runs.part(tiny_runs.weights(path), "encoder") for path in (pretrained, tuned)
    )
    assert tiny_runs.equal(before, after)
