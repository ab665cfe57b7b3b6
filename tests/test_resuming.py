"""A run is resumed with other settings or data only if the outcome is the same, or on request."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import test_command_line
import tiny_runs

from simclr_tf import config
from simclr_tf.runs import directory, resuming

pytestmark = pytest.mark.usefixtures("no_export")

# The checkpoints of a run do not fit another value, or it decided how the run began.
NEVER = {
    *("train_mode", "seed", "objective", "optimizer", "fine_tune_after_block"),
    *("lineareval_while_pretraining", "zero_init_logits_layer", "encoder", "image_size"),
    *("resnet_depth", "width_multiplier", "stem", "sk_ratio", "se_ratio", "batch_norm_decay"),
    *("proj_head_mode", "proj_out_dim", "num_proj_layers", "proj_head_bn", "ft_proj_selector"),
    *("normalize_features", "channels", "scale", "scale_percentile", "standardize"),
    *("channel_names", "channel_files"),
}
# The weights at the end are the same. Where the data is does not matter; its content is compared.
FREELY = {
    *("mode", "model_dir", "resume_with_changes", "checkpoint", "format", "data_dir", "runs"),
    *("labels", "transfer_to", "transfer_grid", "baselines", "preset"),
    *("cache_dataset", "augment_on", "jit_compile", "deterministic", "recompute"),
    "num_virtual_cpus",
    *("use_tpu", "tpu_name", "tpu_zone", "gcp_project", "master"),
    *("checkpoint_epochs", "checkpoint_steps", "keep_checkpoint_max", "keep_hub_module_max"),
    *("train_summary_steps", "eval_split", "eval_batch_size", "eval_steps", "eval_name"),
    *("embeddings", "embed_split", "embed_outputs", "embed_shard_examples", "query"),
    *("neighbours", "duplicate_cosine", "under", "sort", "filter", "export_runs"),
    *("label_draws", "untrained_baselines", "study", "dry_run", "study_seeds", "study_results"),
    *("launcher", "jobs", "slurm_parameters"),
    *("evaluations", "linear_eval", "linear_eval_examples", "preemption_signal"),
    *("export_outputs", "export_dtype", "weights_license"),
    *("corruptions", "corruption_severities", "corruption_examples", "corrupted_dataset"),
    *("baseline_run", "shift_datasets", "ood_datasets", "show_channels"),
}


def resume(model_dir: pathlib.Path, photos: pathlib.Path, **changes: Any) -> int:
    return tiny_runs.main("pretrain", model_dir, photos, **{**tiny_runs.NO_COLOR, **changes})


def refusal(capsys: Any, model_dir: pathlib.Path, photos: pathlib.Path, **changes: Any) -> str:
    """Returns the sentence with which a command is refused, which changes no file."""
    before = tiny_runs.snapshot(model_dir)
    capsys.readouterr()
    assert resume(model_dir, photos, **changes) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert tiny_runs.snapshot(model_dir) == before
    return message


def flags_of(model_dir: pathlib.Path) -> config.Config:
    return config.Config.from_flagfile((model_dir / "flags.txt").read_text())


def test_the_lists_name_settings():
    names = {field.name for field in dataclasses.fields(config.Config)}
    assert names >= NEVER | FREELY
    assert not NEVER & FREELY


@pytest.mark.parametrize("field", dataclasses.fields(config.Config), ids=lambda field: field.name)
def test_another_value_of_a_setting_is_refused_unless_the_outcome_is_the_same(field):
    stored = config.Config()
    given = dataclasses.replace(stored, **{field.name: test_command_line._other_value(field)})
    changes = resuming.changed_settings(stored, given)
    if field.name in FREELY:
        assert changes == []
    else:  # A new setting is changed by --resume_with_changes, unless it is in a list above.
        (change,) = changes
        assert change.name == f"--{field.name}"
        assert change.allowed is (field.name not in NEVER)


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ({}, {"objective": "nt_xent"}),
        ({"train_mode": "finetune"}, {"train_mode": "finetune", "objective": "supervised"}),
        ({}, {"augmentation": "simclr"}),
        ({}, {"stem": "imagenet"}),
        ({"image_size": 32}, {"image_size": 32, "stem": "small"}),
        ({"train_steps": 5}, {"train_steps": 5, "train_epochs": 7}),
        ({"data_service": "grpc://a:1"}, {"data_service": "grpc://b:2"}),
        ({"encoder": "a:b"}, {"encoder": "a:b", "resnet_depth": 18}),
    ],
)
def test_settings_that_mean_the_same_do_not_differ(stored, given):
    assert resuming.changed_settings(config.Config(**stored), config.Config(**given)) == []


def test_a_data_service_that_was_not_used_before_changes_the_order():
    given = config.Config(data_service="grpc://a:1")
    (change,) = resuming.changed_settings(config.Config(), given)
    assert str(change) == "--data_service: none stored, grpc://a:1 given"


def test_another_experiment_in_a_used_run_directory_is_refused_with_all_differences(
    capsys, photos, pretrained
):
    changes = {"learning_rate": 3, "temperature": 0.5, "augmentation": "crop"}
    message = refusal(capsys, pretrained, photos, **changes)
    assert (
        f"--model_dir={pretrained} contains a run with other settings or data (--augmentation: "
        "simclr stored, crop given; --temperature: 0.1 stored, 0.5 given; --learning_rate: 0.5 "
        "stored, 3.0 given); use another --model_dir, the settings of that run "
        f"(--flagfile={pretrained}/flags.txt), or --resume_with_changes"
    ) in message


@pytest.mark.exhaustive
def test_a_run_is_resumed_with_changes_on_request_and_records_them(capsys, photos, pretrained):
    changes = {"learning_rate": 1.0, "train_steps": 6}
    began = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    assert resume(pretrained, photos, resume_with_changes=True, **changes) == 0
    printed = capsys.readouterr().out
    history = pretrained / "flags_history.jsonl"
    assert (
        "Resuming at step 4 with changes (--train_steps: 4 stored, 6 given; --learning_rate: 0.5 "
        f"stored, 1.0 given), which are recorded in {history}."
    ) in printed
    (entry,) = tiny_runs.lines_of(history)
    assert began <= datetime.datetime.fromisoformat(entry.pop("time"))
    assert entry == {
        "step": 4,
        "changes": {
            "train_steps": {"stored": 4, "given": 6},
            "learning_rate": {"stored": 0.5, "given": 1.0},
        },
    }
    assert (flags_of(pretrained).train_steps, flags_of(pretrained).learning_rate) == (6, 1.0)
    assert "resume_with_changes" not in (pretrained / "flags.txt").read_text()
    lines = tiny_runs.lines_of(pretrained / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    # The rate of the last two steps is that of the new schedule.
    want = [1.0 * 8 / 256 * (1 + np.cos(np.pi * step / 6)) / 2 for step in (4, 5)]
    assert [line["learning_rate"] for line in lines[4:]] == pytest.approx(want, rel=1e-5)
    # The same command again needs no permission, and a second change is added to the record.
    assert resume(pretrained, photos, **changes) == 0
    changes["temperature"], changes["train_steps"] = 0.2, 7
    assert resume(pretrained, photos, resume_with_changes=True, **changes) == 0
    assert [line["step"] for line in tiny_runs.lines_of(history)] == [4, 6]


@pytest.mark.parametrize(
    ("length", "allowed"),
    [
        ({"train_steps": 3}, False),
        ({"train_steps": 3}, True),
        ({"train_steps": 0, "train_epochs": 0}, True),
    ],
)
def test_fewer_steps_than_were_trained_are_refused_with_both_numbers(
    capsys, photos, pretrained, length, allowed
):
    message = refusal(capsys, pretrained, photos, resume_with_changes=allowed, **length)
    assert "has been trained for 4 steps" in message
    assert f"more than the {length['train_steps']} that are now to be trained" in message


def test_changes_that_no_step_would_use_are_refused(capsys, photos, pretrained):
    message = refusal(capsys, pretrained, photos, resume_with_changes=True, learning_rate=3)
    assert f"--model_dir={pretrained} is finished at step 4" in message
    assert "would have no effect (--learning_rate: 0.5 stored, 3.0 given)" in message


def test_what_the_checkpoints_do_not_fit_is_refused_even_on_request(capsys, photos, pretrained):
    changes = {"seed": 1, "optimizer": "adam", "temperature": 0.5}
    message = refusal(capsys, pretrained, photos, resume_with_changes=True, **changes)
    for words in ("--seed: 0 stored, 1 given", "--temperature: 0.1 stored, 0.5 given"):
        assert words in message
    assert "its checkpoints do not allow another --seed, --optimizer." in message
    assert "--resume_with_changes" not in message


def test_a_finished_run_is_not_trained_and_keeps_its_settings(capsys, photos, pretrained):
    before = flags_of(pretrained)
    assert resume(pretrained, photos) == 0
    assert f"{pretrained}/ckpt-4: finished at step 4, nothing to train" in capsys.readouterr().out
    assert flags_of(pretrained) == dataclasses.replace(before, model_dir=str(pretrained))
    assert not (pretrained / "flags_history.jsonl").exists()


def test_settings_that_do_not_change_the_outcome_are_updated(photos, pretrained, tmp_path):
    moved = pathlib.Path(shutil.copytree(photos, tmp_path / "moved"))
    changes = {
        "checkpoint_steps": 3,
        "keep_checkpoint_max": 1,
        "eval_batch_size": 5,
        "augment_on": "device",
        "num_virtual_cpus": 2,
    }
    before = flags_of(pretrained)
    assert resume(pretrained, moved, checkpoint="/nowhere", **changes) == 0
    # It was not --checkpoint that the run started from.
    want: Any = {
        **changes,
        "data_dir": str(moved),
        "model_dir": str(pretrained),
        "checkpoint": None,
    }
    assert flags_of(pretrained) == dataclasses.replace(before, **want)


@pytest.mark.exhaustive
def test_a_folder_of_other_images_is_refused_and_allowed_on_request(
    capsys, photos, pretrained, tmp_path
):
    other = pathlib.Path(shutil.copytree(photos, tmp_path / "other"))
    shutil.copy(other / "train" / "red" / "0.png", other / "train" / "red" / "more.png")
    message = refusal(capsys, pretrained, other)
    assert "(images of the training data: 36 stored, 37 given)" in message
    changes = {"resume_with_changes": True, "train_steps": 5}
    assert resume(pretrained, other, **changes) == 0
    (entry,) = tiny_runs.lines_of(pretrained / "flags_history.jsonl")
    assert entry["changes"]["images of the training data"] == {"stored": 36, "given": 37}
    assert tiny_runs.json_of(pretrained / "data.json")["images"] == 37


def test_other_classes_of_the_data_are_refused(capsys, photos, pretrained):
    facts = tiny_runs.json_of(pretrained / "data.json")
    assert facts == {"images": 36, "classes": ["blue", "green", "red"]}
    (pretrained / "data.json").write_text(json.dumps({**facts, "classes": ["blue"]}))
    message = refusal(capsys, pretrained, photos)
    assert "(classes of the training data: 1 (blue) stored, 3 (blue, green, red) given)" in message


def test_a_moved_folder_of_a_run_without_a_record_of_its_images_is_refused(
    capsys, photos, pretrained, tmp_path
):
    (pretrained / "data.json").unlink()
    moved = pathlib.Path(shutil.copytree(photos, tmp_path / "moved"))
    message = refusal(capsys, pretrained, moved)
    assert f"(--data_dir: {photos} stored, {moved} given)" in message
    assert resume(pretrained, photos) == 0
    assert (pretrained / "data.json").exists()


def test_settings_that_an_older_run_did_not_store_have_their_defaults(photos, pretrained):
    text = (pretrained / "flags.txt").read_text()
    kept = [line for line in text.splitlines() if "ratio" not in line and "brightness" not in line]
    assert len(kept) == len(text.splitlines()) - 3
    (pretrained / "flags.txt").write_text("\n".join(kept) + "\n")
    assert resume(pretrained, photos) == 0


@pytest.mark.exhaustive
def test_a_run_without_stored_settings_is_resumed_with_a_warning(capsys, photos, pretrained):
    (pretrained / "flags.txt").unlink()
    assert resume(pretrained, photos, learning_rate=3, train_steps=5) == 0
    printed = capsys.readouterr().out
    assert f"warning: --model_dir={pretrained} has checkpoints but no flags.txt, so" in printed
    assert directory.read_config(str(pretrained)) is not None


def test_a_relative_path_of_an_older_run_is_that_of_the_command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    stored = config.Config(objective="distill", teacher="runs/teacher")
    same = dataclasses.replace(stored, teacher=str(tmp_path / "runs" / "teacher"))
    other = dataclasses.replace(stored, teacher=str(tmp_path / "teacher"))
    assert resuming.changed_settings(stored, same) == []
    assert [change.name for change in resuming.changed_settings(stored, other)] == ["--teacher"]
