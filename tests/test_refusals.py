"""Mistakes of the user: one sentence with the remedy, exit code 2, and no lost files."""

from __future__ import annotations

import builtins
import pathlib
import shutil
import sys

import pytest
import tiny_runs

import run
from simclr_tf.serving import export


@pytest.fixture
def own_photos(photos: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the photos, which a test may change."""
    return pathlib.Path(shutil.copytree(photos, tmp_path / "photos"))


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips the SavedModel, which takes seconds, in tests that do not need it."""
    tiny_runs.pretrained(tmp_path_factory)  # Created first, with a SavedModel.
    monkeypatch.setattr(export, "export", lambda *_, **__: "")


def error_message(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Runs the program, asserts that it stops with one sentence, and returns the sentence."""
    capsys.readouterr()
    assert run.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.endswith("\n")
    assert message.count("\n") == 1, message
    assert "Traceback" not in message
    return message


def run_error(capsys, photos, tmp_path, mode="pretrain", **changes):
    """Returns the error message of a run on a folder of images."""
    changes.setdefault("model_dir", tmp_path / "run")
    changes.setdefault("data_dir", photos)
    return error_message(capsys, tiny_runs.arguments(mode, **changes))


# name: (flags that cannot work, phrases that the message must contain).
INVALID = {
    "temperature of zero": (
        {"temperature": 0},
        ["--temperature must be between 0.0001 and 10000", "0.0"],
    ),
    "temperature below zero": (
        {"temperature": -1},
        ["--temperature", "between 0.0001 and 10000", "-1.0"],
    ),
    "temperature that is not a number": (
        {"temperature": "nan"},
        ["--temperature", "between 0.0001 and 10000", "got nan"],
    ),
    "image size of zero": ({"image_size": 0}, ["--image_size must be at least 8", "got 0"]),
    "depth that does not exist": (
        {"resnet_depth": 19},
        ["--resnet_depth=19", "18, 34, 50", "20, 32"],
    ),
    "batch of one": ({"train_batch_size": 1}, ["--train_batch_size must be at least 2", "got 1"]),
    "batch larger than the split": (
        {"train_batch_size": 64},
        ["--train_batch_size=64", "36 images", "'train'", "36 or less"],
    ),
    "batch that is not divisible by the replicas": (
        {"train_batch_size": 9, "num_virtual_cpus": 4},
        ["--train_batch_size=9", "4 replicas", "use 8 or 12"],
    ),
    "warm-up longer than training": (
        {"warmup_epochs": 10},
        ["45 steps", "only 4", "--warmup_epochs below 0.889"],
    ),
    "value that is not one of the choices": (
        {"optimizer": "sgd"},
        ["--optimizer", "lars, momentum", "'sgd'"],
    ),
    "decay that does not exist": (
        {"learning_rate_decay": "linear"},
        ["--learning_rate_decay must be one of cosine, exponential, step", "'linear'"],
    ),
    "decay epochs with a cosine": (
        {"decay_epochs": "1,2"},
        [
            "--decay_epochs=1,2 applies only to --learning_rate_decay=exponential|step",
            "is cosine); leave it out, or give --decay_epochs= if a flagfile",
        ],
    ),
    "decay factor with a cosine": (
        {"decay_factor": 0.2},
        [
            "--decay_factor=0.2 applies only to --learning_rate_decay=exponential|step",
            "is cosine); leave it out, or give --decay_factor=0.1 if a flagfile",
        ],
    ),
    "step decay without epochs": (
        {"learning_rate_decay": "step"},
        ["needs --decay_epochs", "as in --decay_epochs=60,75,90", "it is missing"],
    ),
    "step decay with empty epochs": (
        {"learning_rate_decay": "step", "decay_epochs": ""},
        ["needs --decay_epochs", "it is missing"],
    ),
    "step decay with descending epochs": (
        {"learning_rate_decay": "step", "decay_epochs": "0.5,0.2"},
        ["in ascending order", "got '0.5,0.2'"],
    ),
    "step decay with epochs that are not numbers": (
        {"learning_rate_decay": "step", "decay_epochs": "0.1,b"},
        ["needs --decay_epochs", "got '0.1,b'"],
    ),
    "exponential decay with two intervals": (
        {"learning_rate_decay": "exponential", "decay_epochs": "0.1,0.2"},
        ["one number", "as in --decay_epochs=2.4", "got '0.1,0.2'"],
    ),
    "decay factor above one": (
        {"learning_rate_decay": "step", "decay_epochs": "0.5", "decay_factor": 1.5},
        ["--decay_factor must be between 0 and 1", "got 1.5"],
    ),
    "decay epoch after the end of training": (
        {"learning_rate_decay": "step", "decay_epochs": "0.5,7"},
        ["--decay_epochs=0.5,7 has epoch 7", "after 0.889 epochs", "train longer"],
    ),
    "validation images without evaluations": (
        {"validation_examples": 6},
        ["--validation_examples=6 has no effect without --eval_epochs"],
    ),
    "more validation images than are left": (
        {"eval_epochs": 1, "validation_examples": 20},
        ["--validation_examples=20 leaves 20 of the 36 images", "more than half"],
    ),
    "mode that does not exist": ({"mode": "test"}, ["--mode", "train_then_eval", "pretrain"]),
    "stem that does not exist": ({"stem": "large"}, ["--stem", "auto, small, imagenet"]),
    "precision that does not exist": (
        {"mixed_precision": "fp16"},
        ["--mixed_precision", "none, auto, bfloat16, float16"],
    ),
    "text for a number": (
        {"train_steps": "many"},
        ["--train_steps must be an integer", "got 'many'"],
    ),
    "flag that does not exist": ({"temprature": 1}, ["temprature", "temperature", "--help"]),
    "application that does not exist": (
        {"encoder": "keras:EfficientNetV2B9"},
        [
            "--encoder=keras:EfficientNetV2B9 is not a model of tf.keras.applications",
            "did you mean EfficientNetV2B",
        ],
    ),
    "encoder without a prefix": (
        {"encoder": "resnet50"},
        ["--encoder=resnet50", "did you mean ", "keras:ResNet50", "keras:NAME", "MODULE:FUNCTION"],
    ),
    "encoder in a module that does not exist": (
        {"encoder": "no_such_module:make"},
        ["'no_such_module'", "PYTHONPATH"],
    ),
    "encoder function that does not exist": (
        {"encoder": "tiny_encoders:seqential"},
        ["seqential names a function that tiny_encoders does not have (did you mean sequential?)"],
    ),
    "encoder function that does not return a model": (
        {"encoder": "tiny_encoders:not_a_model"},
        ["returned a str", "must return a tf.keras.Model"],
    ),
    "encoder that does not accept the image size": (
        {"encoder": "keras:MobileNetV2"},
        ["cannot be built for images of 8 px", "at least 32x32", "image_size"],
    ),
    "subclassed encoder with batch norm": (
        {"encoder": "tiny_encoders:Subclassed"},
        ["BatchNormalization", "cannot be replaced", "functional interface"],
    ),
    "encoder that ends in a sequence": (
        {"encoder": "tiny_encoders:sequence"},
        ["maps one image to (1, 64, 3)", "(1, f) or a map (1, h, w, f)"],
    ),
    "width of an encoder without widths": (
        {"encoder": "keras:MobileNetV2", "width_multiplier": 2},
        ["--width_multiplier=2 applies only to --encoder=resnet", "keras:MobileNetV2"],
    ),
    "standardizing before an encoder with a preprocessing": (
        {"encoder": "keras:MobileNetV2", "standardize": True},
        ["--standardize has no place before --encoder=keras:MobileNetV2", "use another encoder"],
    ),
    "block group of an encoder without groups": (
        {"mode": "finetune", "encoder": "keras:MobileNetV2", "fine_tune_after_block": 2},
        ["--fine_tune_after_block=2", "use -1 (train all) or 4"],
    ),
    "selective-kernel ratio above one": (
        {"sk_ratio": 16},
        ["--sk_ratio must be between 0 and 1", "got 16"],
    ),
    "squeeze-and-excitation ratio below zero": (
        {"se_ratio": -0.1},
        ["--se_ratio must be between 0 and 1", "got -0.1"],
    ),
    "XLA on several replicas": (
        {"jit_compile": True, "num_virtual_cpus": 4},
        ["--jit_compile", "one device", "4 replicas"],
    ),
    "projection selector beyond the head": (
        {"mode": "finetune", "ft_proj_selector": 3},
        ["--ft_proj_selector=3", "2 layers", "0 (the encoder) to 2"],
    ),
    "projection selector beyond the head of pretraining": (
        {"ft_proj_selector": 7},
        ["--ft_proj_selector=7", "2 layers", "0 (the encoder) to 2"],
    ),
    "frozen layers in pretraining": (
        {"fine_tune_after_block": 4},
        [
            "--fine_tune_after_block=4 applies only to --objective=supervised|distill",
            "is nt_xent); leave it out",
        ],
    ),
    "linear head of zeros in pretraining from scratch": (
        {"zero_init_logits_layer": True},
        [
            "--zero_init_logits_layer has no effect",
            "--objective=nt_xent without --checkpoint",
            "leave it out",
        ],
    ),
    "seed below zero": ({"seed": -1}, ["--seed must be between 0 and 4294967295, got -1"]),
    "seed beyond 32 bits": (
        {"seed": 2**32},
        ["--seed must be between 0 and 4294967295", "got 4294967296"],
    ),
    "frozen layers without a checkpoint": (
        {"mode": "finetune", "fine_tune_after_block": 4},
        ["--fine_tune_after_block=4", "--checkpoint"],
    ),
    "fine-tuning without a checkpoint": (
        {"mode": "finetune"},
        ["--mode=finetune has nothing to start from", "--checkpoint", "--train_mode=finetune"],
    ),
    "data set that does not exist": (
        {"dataset": "cifar11", "data_dir": "/nowhere"},
        ["--dataset=cifar11 is unknown", "'/nowhere'", "did you mean cifar10"],
    ),
    "split that does not exist": (
        {"train_split": "trian"},
        ["no split 'trian'", "did you mean train", "train (36)", "test (18)"],
    ),
    "evaluation split that does not exist": (
        {"mode": "train_then_eval", "eval_split": "tset"},
        ["no split 'tset'", "did you mean test", "train (36)"],
    ),
    "checkpoint that does not exist": (
        {"mode": "finetune", "checkpoint": "/nowhere/ckpt-7"},
        ["--checkpoint=/nowhere/ckpt-7 does not exist", "name a run directory"],
    ),
    "data folder that does not exist": (
        {"data_dir": "/nowhere/photos"},
        ["--data_dir=/nowhere/photos does not exist"],
    ),
    "missing run directory": (
        {"model_dir": None},
        ["--model_dir is missing", "name a folder"],
    ),
}


@pytest.mark.parametrize("changes, words", INVALID.values(), ids=INVALID.keys())
def test_an_invalid_setting_is_refused_with_the_numbers_and_the_remedy(
    capsys, photos, tmp_path, changes, words
):
    message = run_error(capsys, photos, tmp_path, **changes)
    assert [word for word in words if word not in message] == [], message
    assert not list(tmp_path.rglob("ckpt*"))


def test_a_plan_that_cannot_work_is_refused_before_the_run_directory_is_made(
    capsys, photos, tmp_path
):
    for changes in ({"train_batch_size": 64}, {"warmup_epochs": 10}, {"max_bad_images": 1}):
        changes = {"warmup_epochs": 10, **changes}
        run_error(capsys, photos, tmp_path, **changes)
        assert not (tmp_path / "run").exists()


def test_an_unknown_mode_is_refused_with_a_list_of_the_modes(capsys, photos, tmp_path):
    message = run_error(capsys, photos, tmp_path, mode="predict")
    for mode in ("train", "eval", "train_then_eval", "pretrain", "finetune"):
        assert f" {mode}," in message, message


def test_an_argument_that_is_not_a_flag_is_refused(capsys, photos, tmp_path):
    arguments = tiny_runs.arguments("pretrain", tmp_path / "run", photos)
    message = error_message(capsys, [*arguments, "learning_rate=0.1"])
    assert "'learning_rate=0.1' is not a flag" in message
    assert "--name=value" in message


def test_an_empty_folder_is_refused(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    message = run_error(capsys, tmp_path / "empty", tmp_path)
    assert "holds no images" in message
    assert "it is empty" in message
    assert "class/*.jpg" in message


def test_a_folder_without_image_files_is_refused(capsys, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("not an image")
    message = run_error(capsys, tmp_path / "notes", tmp_path)
    assert "holds no images" in message
    assert "1 file (a.txt)" in message


def test_lamb_without_addons_is_refused(capsys, photos, tmp_path, monkeypatch):
    def without_addons(name, *rest, **named):
        if name.startswith("tensorflow_addons"):
            raise ImportError(name)
        return imported(name, *rest, **named)

    imported = builtins.__import__
    monkeypatch.delitem(sys.modules, "tensorflow_addons", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_addons)
    message = run_error(capsys, photos, tmp_path, optimizer="lamb")
    assert "--optimizer=lamb comes from tensorflow-addons" in message
    assert "--optimizer=lars or adamw" in message


def test_a_run_directory_that_cannot_be_written_is_refused(capsys, photos, tmp_path):
    # Not even root can create a folder below a file.
    (tmp_path / "file").write_text("")
    message = run_error(capsys, photos, tmp_path, model_dir=tmp_path / "file" / "run")
    assert f"--model_dir={tmp_path}/file/run cannot be written to" in message
    assert "name a folder that you may write to" in message


def test_an_undecodable_training_image_is_named(capsys, own_photos, tmp_path, no_export):
    damaged = own_photos / "train" / "green" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    message = run_error(capsys, own_photos, tmp_path, train_steps=5, **tiny_runs.NO_COLOR)
    assert "train/green/3.png" in message
    assert "repair or remove it" in message


def test_an_undecodable_evaluation_image_is_named(
    capsys, own_photos, tmp_path, pretrained, no_export
):
    damaged = own_photos / "test" / "green" / "3.png"
    damaged.write_bytes(b"no picture at all")
    files = tiny_runs.snapshot(pretrained, ["ckpt*"])
    for mode in ("train_then_eval", "eval"):
        changes = {"model_dir": pretrained, **tiny_runs.NO_COLOR}
        message = run_error(capsys, own_photos, tmp_path, mode, **changes)
        assert "test/green/3.png" in message
        assert "repair or remove it" in message
    assert tiny_runs.snapshot(pretrained, ["ckpt*"]) == files


def test_fine_tuning_without_labels_is_refused(capsys, tmp_path, tmp_path_factory, pretrained):
    unlabelled = tiny_runs.unlabelled_photos(tmp_path_factory)
    message = run_error(capsys, unlabelled, tmp_path, mode="finetune", checkpoint=pretrained)
    assert "has no labels, which fine-tuning needs" in message
    assert "use --mode=pretrain" in message


def test_an_evaluation_without_a_checkpoint_is_refused_and_creates_no_folder(capsys, tmp_path):
    assert run.main(["run.py", "--mode=eval", f"--model_dir={tmp_path}/none"]) == 2
    assert "digits" not in capsys.readouterr().out  # The default data set does not matter here.
    message = error_message(capsys, ["run.py", "--mode=eval", f"--model_dir={tmp_path}/none"])
    assert f"--model_dir={tmp_path}/none contains no checkpoint" in message
    assert "train first" in message
    assert not (tmp_path / "none").exists()


def test_train_then_eval_without_an_evaluation_split_is_refused(capsys, photos, tmp_path):
    data = tmp_path / "only_train"
    shutil.copytree(photos / "train", data / "train")
    message = run_error(capsys, data, tmp_path, mode="train_then_eval")
    assert "no split to evaluate on, only train (36)" in message
    assert "--eval_split=train[90%:]" in message


def test_fine_tuning_from_a_folder_without_checkpoints_is_refused(capsys, photos, tmp_path):
    (tmp_path / "bare").mkdir()
    message = run_error(capsys, photos, tmp_path, mode="finetune", checkpoint=tmp_path / "bare")
    assert f"--checkpoint={tmp_path}/bare contains no checkpoint" in message
    assert "--model_dir of a" in message


def test_fine_tuning_with_another_network_is_refused_before_settings_are_stored(
    capsys, photos, tmp_path, pretrained
):
    message = run_error(
        capsys, photos, tmp_path, mode="finetune", checkpoint=pretrained, resnet_depth=14
    )
    assert "The flags do not match the network in" in message
    assert "--resnet_depth=14 (stored: 8); leave these flags out" in message
    # Without architecture.json, the weights themselves are compared.
    (pretrained / "architecture.json").unlink()
    message = run_error(
        capsys, photos, tmp_path, mode="finetune", checkpoint=pretrained, resnet_depth=14
    )
    assert "does not fit this run's ResNet-14" in message
    assert "set encoder, depth, width and stem" in message
    # So the same folder can be used after the depth is corrected.
    assert not (tmp_path / "run" / "architecture.json").exists()
    assert not (tmp_path / "run" / "flags.txt").exists()


def test_fine_tuning_from_a_stage_whose_weights_are_missing_is_refused(
    capsys, photos, tmp_path, pretrained
):
    message = run_error(
        capsys,
        photos,
        tmp_path,
        mode="finetune",
        checkpoint=pretrained,
        ft_proj_selector=1,
        num_proj_layers=3,
    )
    assert "--ft_proj_selector" in message
    assert "set --proj_head_mode, --num_proj_layers, --proj_out_dim and" in message


# name: (changed flags that do not fit a finished run, phrases that the message must contain).
INCOMPATIBLE = {
    "another depth": ({"resnet_depth": 14}, ["--resnet_depth: 8 stored, 14 given"]),
    "another image size": ({"image_size": 16}, ["--image_size: 8 stored, 16 given"]),
    "another head": ({"num_proj_layers": 3}, ["--num_proj_layers: 2 stored, 3 given"]),
    "two differences": (
        {"resnet_depth": 14, "proj_out_dim": 16},
        ["--resnet_depth: 8 stored, 14 given", "--proj_out_dim: 8 stored, 16 given"],
    ),
    "another optimizer": (
        {"optimizer": "adam"},
        ["--optimizer: momentum stored, adam given"],
    ),
    "another kind of training": (
        {"mode": "finetune"},
        ["--train_mode: pretrain stored, finetune given"],
    ),
}


@pytest.mark.parametrize("changes, words", INCOMPATIBLE.values(), ids=INCOMPATIBLE.keys())
def test_a_run_directory_of_another_run_is_refused_and_not_changed(
    capsys, photos, tmp_path, pretrained, changes, words
):
    before = tiny_runs.snapshot(pretrained)
    message = run_error(capsys, photos, tmp_path, model_dir=pretrained, **changes)
    assert [word for word in words if word not in message] == [], message
    assert "use another --model_dir, or the settings of that run" in message
    assert tiny_runs.snapshot(pretrained) == before


def test_a_run_directory_with_other_classes_is_refused(capsys, own_photos, tmp_path, pretrained):
    for split in ("train", "test"):
        (own_photos / split / "red").rename(own_photos / split / "rose")
    changes = {"model_dir": pretrained, **tiny_runs.NO_COLOR}
    message = run_error(capsys, own_photos, tmp_path, **changes)
    assert "class_names is ('blue', 'green', 'red') there" in message


def test_a_checkpoint_that_does_not_fit_is_refused_even_without_its_flags(
    capsys, photos, tmp_path, pretrained
):
    (pretrained / "flags.txt").unlink()
    message = run_error(capsys, photos, tmp_path, model_dir=pretrained, optimizer="adam")
    assert f"{pretrained}/ckpt-4 does not fit this run" in message
    assert "resume with the settings it was trained with" in message


@pytest.mark.parametrize("text", ['{"resnet_depth": 8', '{"resnet_depth": 8}', "[]"])
def test_a_damaged_architecture_is_refused(capsys, photos, tmp_path, pretrained, text):
    (pretrained / "architecture.json").write_text(text)
    for mode in ("pretrain", "eval"):
        message = run_error(capsys, photos, tmp_path, mode, model_dir=pretrained)
        assert f"{pretrained}/architecture.json" in message
        assert "restore" in message


@pytest.mark.parametrize("name", ["architecture.json", "flags.txt"])
def test_a_stored_file_that_cannot_be_read_is_refused_with_its_name(
    capsys, photos, tmp_path, pretrained, name
):
    path = pretrained / name
    path.write_bytes(path.read_bytes() + b"\xe9")
    for mode in ("pretrain", "eval"):
        message = run_error(capsys, photos, tmp_path, mode, model_dir=pretrained)
        assert f"{path} is not UTF-8 text (its byte " in message
        assert "restore or remove it" in message
    path.unlink()
    path.mkdir()
    for mode in ("pretrain", "eval"):
        message = run_error(capsys, photos, tmp_path, mode, model_dir=pretrained)
        assert f"{path} cannot be read (" in message


def test_a_run_directory_without_checkpoints_can_be_used_with_other_settings(
    capsys, photos, pretrained, no_export
):
    for path in pretrained.glob("ckpt*"):
        path.unlink()
    changes = {"proj_out_dim": 16, "train_steps": 0, "train_epochs": 0}
    assert tiny_runs.main("pretrain", pretrained, photos, **changes) == 0
    assert tiny_runs.json_of(pretrained / "architecture.json")["proj_out_dim"] == 16


def test_a_loss_that_is_not_finite_stops_the_run_with_step_rate_and_checkpoint(
    capsys, photos, tmp_path
):
    changes = {**tiny_runs.NO_COLOR, "learning_rate": 1e30, "hidden_norm": False}
    message = run_error(capsys, photos, tmp_path, checkpoint_steps=1, train_steps=6, **changes)
    stopped = int(message.split("loss of step ")[1].split()[0])
    assert "learning rate" in message
    assert "e+28" in message
    assert f"last complete checkpoint is {tmp_path}/run/ckpt-{stopped - 1}" in message
    assert "Lower --learning_rate" in message
    assert (tmp_path / "run" / f"ckpt-{stopped - 1}.index").exists()
    assert not (tmp_path / "run" / f"ckpt-{stopped}.index").exists()
