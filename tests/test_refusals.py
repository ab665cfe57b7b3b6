"""What a person can get wrong gets one sentence with the remedy, exit code 2, and loses nothing."""

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
    """A copy of the photos that a test may damage."""
    return pathlib.Path(shutil.copytree(photos, tmp_path / "photos"))


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Leaves out the SavedModel, which takes seconds, where a test does not look at it."""
    tiny_runs.pretrained(tmp_path_factory)  # The run that tests share has one.
    monkeypatch.setattr(export, "export", lambda *_, **__: "")


def refusal(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Runs the program, which must refuse, and returns its sentence."""
    capsys.readouterr()
    assert run.main(arguments) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("error: ")
    assert sentence.endswith("\n")
    assert sentence.count("\n") == 1, sentence
    assert "Traceback" not in sentence
    return sentence


def told(capsys, photos, tmp_path, mode="pretrain", **changes):  # type: ignore[no-untyped-def]
    changes.setdefault("model_dir", tmp_path / "run")
    changes.setdefault("data_dir", photos)
    return refusal(capsys, tiny_runs.arguments(mode, **changes))


# A setting that is impossible, and what the sentence must say of it.
IMPOSSIBLE = {
    "temperature of zero": ({"temperature": 0}, ["--temperature must be greater than 0", "0.0"]),
    "temperature below zero": ({"temperature": -1}, ["--temperature", "greater than 0", "-1.0"]),
    "temperature that is no number": ({"temperature": "nan"}, ["--temperature", "greater than 0"]),
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
    "batch that the replicas do not divide": (
        {"train_batch_size": 9, "num_virtual_cpus": 4},
        ["--train_batch_size=9", "4 replicas", "use 8 or 12"],
    ),
    "warm-up longer than training": (
        {"warmup_epochs": 10},
        ["45 steps", "only 4", "--warmup_epochs below 0.889"],
    ),
    "value that is no choice": ({"optimizer": "sgd"}, ["--optimizer", "lars, momentum", "'sgd'"]),
    "decay that does not exist": (
        {"learning_rate_decay": "linear"},
        ["--learning_rate_decay must be one of cosine, exponential, step", "'linear'"],
    ),
    "epochs of decay for a cosine": (
        {"decay_epochs": "1,2"},
        [
            "--decay_epochs=1,2 belongs to --learning_rate_decay=exponential|step",
            "with cosine; leave it out, or say --decay_epochs= if a flagfile",
        ],
    ),
    "a factor of decay for a cosine": (
        {"decay_factor": 0.2},
        [
            "--decay_factor=0.2 belongs to --learning_rate_decay=exponential|step",
            "with cosine; leave it out, or say --decay_factor=0.1 if a flagfile",
        ],
    ),
    "steps without their epochs": (
        {"learning_rate_decay": "step"},
        ["needs --decay_epochs", "as in --decay_epochs=60,75,90", "it is missing"],
    ),
    "steps whose epochs were taken back": (
        {"learning_rate_decay": "step", "decay_epochs": ""},
        ["needs --decay_epochs", "it is missing"],
    ),
    "steps that go back": (
        {"learning_rate_decay": "step", "decay_epochs": "0.5,0.2"},
        ["in their order", "got '0.5,0.2'"],
    ),
    "steps that are no numbers": (
        {"learning_rate_decay": "step", "decay_epochs": "0.1,b"},
        ["needs --decay_epochs", "got '0.1,b'"],
    ),
    "two intervals of an exponential": (
        {"learning_rate_decay": "exponential", "decay_epochs": "0.1,0.2"},
        ["one number", "as in --decay_epochs=2.4", "got '0.1,0.2'"],
    ),
    "a decay that grows": (
        {"learning_rate_decay": "step", "decay_epochs": "0.5", "decay_factor": 1.5},
        ["--decay_factor must be between 0 and 1", "got 1.5"],
    ),
    "a decay after the end": (
        {"learning_rate_decay": "step", "decay_epochs": "0.5,7"},
        ["--decay_epochs=0.5,7 has epoch 7", "after 0.889 epochs", "train longer"],
    ),
    "mode that does not exist": ({"mode": "test"}, ["--mode", "train_then_eval", "pretrain"]),
    "stem that does not exist": ({"stem": "large"}, ["--stem", "auto, small, imagenet"]),
    "precision that does not exist": (
        {"mixed_precision": "fp16"},
        ["--mixed_precision", "none, bfloat16, float16"],
    ),
    "text for a number": ({"train_steps": "many"}, ["--train_steps", "many", "--help"]),
    "flag that does not exist": ({"temprature": 1}, ["temprature", "temperature", "--help"]),
    "application that does not exist": (
        {"encoder": "keras:EfficientNetV2B9"},
        [
            "--encoder=keras:EfficientNetV2B9 is not a model of tf.keras.applications",
            "near names: EfficientNetV2B",
        ],
    ),
    "encoder that is no name at all": (
        {"encoder": "resnet50"},
        ["--encoder=resnet50", "near names: ", "keras:ResNet50", "keras:NAME", "MODULE:FUNCTION"],
    ),
    "encoder in a module that is not there": (
        {"encoder": "no_such_module:make"},
        ["'no_such_module'", "PYTHONPATH"],
    ),
    "encoder by a function that is not there": (
        {"encoder": "tiny_encoders:seqential"},
        [
            "--encoder=tiny_encoders:seqential names a function that tiny_encoders does not have",
            "near names: sequential",
        ],
    ),
    "encoder that returns something else": (
        {"encoder": "tiny_encoders:no_model"},
        ["returned a str", "must return a tf.keras.Model"],
    ),
    "encoder that does not take the images": (
        {"encoder": "keras:MobileNetV2"},
        ["cannot be built for images of 8 px", "at least 32x32", "image_size"],
    ),
    "encoder of a class with batch norm inside": (
        {"encoder": "tiny_encoders:Own"},
        ["BatchNormalization", "cannot be replaced", "functional interface"],
    ),
    "encoder that ends in a sequence": (
        {"encoder": "tiny_encoders:sequence"},
        ["maps one image to (1, 64, 3)", "(1, f) or a map (1, h, w, f)"],
    ),
    "width of an encoder that has none": (
        {"encoder": "keras:MobileNetV2", "width_multiplier": 2},
        ["--width_multiplier=2 belongs to --encoder=resnet", "keras:MobileNetV2"],
    ),
    "block groups of an encoder that has none": (
        {"mode": "finetune", "encoder": "keras:MobileNetV2", "fine_tune_after_block": 2},
        ["--fine_tune_after_block=2", "use -1 (train all) or 4"],
    ),
    "selective kernels of more than all": (
        {"sk_ratio": 16},
        ["--sk_ratio must be between 0 and 1", "got 16"],
    ),
    "excitation below zero": (
        {"se_ratio": -0.1},
        ["--se_ratio must be between 0 and 1", "got -0.1"],
    ),
    "XLA over replicas": (
        {"jit_compile": True, "num_virtual_cpus": 4},
        ["--jit_compile", "one device", "4 replicas"],
    ),
    "selector beyond the head": (
        {"mode": "finetune", "ft_proj_selector": 3},
        ["--ft_proj_selector=3", "2 layers", "0 (the encoder) to 2"],
    ),
    "freezing what nothing has trained": (
        {"mode": "finetune", "fine_tune_after_block": 4},
        ["--fine_tune_after_block=4", "--checkpoint"],
    ),
    "fine-tuning with no checkpoint": (
        {"mode": "finetune"},
        ["--mode=finetune has nothing to start from", "--checkpoint", "--train_mode=finetune"],
    ),
    "data set that does not exist": (
        {"dataset": "cifar11", "data_dir": "/nowhere"},
        ["'cifar11'", "near names: cifar10", "--dataset"],
    ),
    "split that does not exist": (
        {"train_split": "trian"},
        ["no split 'trian'", "near names: train", "train (36)", "test (18)"],
    ),
    "evaluation split that does not exist": (
        {"mode": "train_then_eval", "eval_split": "tset"},
        ["no split 'tset'", "near names: test", "train (36)"],
    ),
    "checkpoint that does not exist": (
        {"mode": "finetune", "checkpoint": "/nowhere/ckpt-7"},
        ["--checkpoint=/nowhere/ckpt-7 does not exist", "name a run directory"],
    ),
    "missing folder": ({"data_dir": "/nowhere/photos"}, ["'/nowhere/photos'", "--data_dir"]),
    "no run directory": ({"model_dir": None}, ["--model_dir is missing", "name a folder"]),
}


@pytest.mark.parametrize("changes, words", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_an_impossible_setting_is_refused_with_the_numbers_and_the_remedy(
    capsys, photos, tmp_path, changes, words
):
    sentence = told(capsys, photos, tmp_path, **changes)
    assert [word for word in words if word not in sentence] == [], sentence
    assert not list(tmp_path.rglob("ckpt*"))


def test_every_name_of_a_mode_is_in_the_refusal_of_another(capsys, photos, tmp_path):
    sentence = told(capsys, photos, tmp_path, mode="predict")
    for mode in ("train", "eval", "train_then_eval", "pretrain", "finetune"):
        assert f" {mode}," in sentence, sentence


def test_a_word_that_is_no_flag_is_refused(capsys, photos, tmp_path):
    arguments = tiny_runs.arguments("pretrain", tmp_path / "run", photos)
    sentence = refusal(capsys, [*arguments, "learning_rate=0.1"])
    assert "'learning_rate=0.1' is not a flag" in sentence
    assert "--name=value" in sentence


def test_an_empty_folder_is_refused(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    sentence = told(capsys, tmp_path / "empty", tmp_path)
    assert "holds no images" in sentence
    assert "it is empty" in sentence
    assert "class/*.jpg" in sentence


def test_a_folder_of_files_that_are_no_images_is_refused(capsys, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("not an image")
    sentence = told(capsys, tmp_path / "notes", tmp_path)
    assert "holds no images" in sentence
    assert "1 file (a.txt)" in sentence


def test_lamb_without_addons_is_refused(capsys, photos, tmp_path, monkeypatch):
    def without_addons(name, *rest, **named):  # type: ignore[no-untyped-def]
        if name.startswith("tensorflow_addons"):
            raise ImportError(name)
        return imported(name, *rest, **named)

    imported = builtins.__import__
    monkeypatch.delitem(sys.modules, "tensorflow_addons", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_addons)
    sentence = told(capsys, photos, tmp_path, optimizer="lamb")
    assert "--optimizer=lamb comes from tensorflow-addons" in sentence
    assert "--optimizer=lars or adamw" in sentence


def test_a_run_directory_that_cannot_be_written_is_refused(capsys, photos, tmp_path):
    # Below a file there can be no folder, not even for root.
    (tmp_path / "file").write_text("")
    sentence = told(capsys, photos, tmp_path, model_dir=tmp_path / "file" / "run")
    assert f"--model_dir={tmp_path}/file/run cannot be written to" in sentence
    assert "name a folder that you may write to" in sentence


def test_an_image_to_train_on_that_does_not_decode_is_named(
    capsys, own_photos, tmp_path, no_export
):
    damaged = own_photos / "train" / "green" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    sentence = told(capsys, own_photos, tmp_path, train_steps=5, **tiny_runs.NO_COLOR)
    assert "train/green/3.png" in sentence
    assert "repair it or take it out" in sentence


def test_an_image_to_evaluate_on_that_does_not_decode_is_named(
    capsys, own_photos, tmp_path, pretrained, no_export
):
    damaged = own_photos / "test" / "green" / "3.png"
    damaged.write_bytes(b"no picture at all")
    files = tiny_runs.snapshot(pretrained, ["ckpt*"])
    for mode in ("train_then_eval", "eval"):
        sentence = told(capsys, own_photos, tmp_path, mode, model_dir=pretrained)
        assert "test/green/3.png" in sentence
        assert "repair it or take it out" in sentence
    assert tiny_runs.snapshot(pretrained, ["ckpt*"]) == files


def test_a_split_without_labels_cannot_be_learned_or_evaluated(
    capsys, tmp_path, tmp_path_factory, pretrained
):
    unlabelled = tiny_runs.unlabelled_photos(tmp_path_factory)
    sentence = told(capsys, unlabelled, tmp_path, mode="finetune", checkpoint=pretrained)
    assert "has no labels, so fine-tuning" in sentence
    assert "use --mode=pretrain" in sentence


def test_an_evaluation_without_a_checkpoint_is_refused_and_makes_no_folder(capsys, tmp_path):
    assert run.main(["run.py", "--mode=eval", f"--model_dir={tmp_path}/none"]) == 2
    assert "digits" not in capsys.readouterr().out  # They are not what this is about.
    sentence = refusal(capsys, ["run.py", "--mode=eval", f"--model_dir={tmp_path}/none"])
    assert f"--model_dir={tmp_path}/none holds no checkpoint" in sentence
    assert "train first" in sentence
    assert not (tmp_path / "none").exists()


def test_an_evaluation_of_labelled_data_without_an_evaluation_split_is_refused_at_once(
    capsys, photos, tmp_path
):
    data = tmp_path / "only_train"
    shutil.copytree(photos / "train", data / "train")
    sentence = told(capsys, data, tmp_path, mode="train_then_eval")
    assert "no split to evaluate on, only train (36)" in sentence
    assert "--eval_split=train[90%:]" in sentence


def test_fine_tuning_from_a_folder_without_checkpoints_is_refused(capsys, photos, tmp_path):
    (tmp_path / "bare").mkdir()
    sentence = told(capsys, photos, tmp_path, mode="finetune", checkpoint=tmp_path / "bare")
    assert f"--checkpoint={tmp_path}/bare holds no checkpoint" in sentence
    assert "--model_dir of a" in sentence


def test_fine_tuning_with_another_network_is_refused_before_the_directory_is_marked(
    capsys, photos, tmp_path, pretrained
):
    sentence = told(
        capsys, photos, tmp_path, mode="finetune", checkpoint=pretrained, resnet_depth=14
    )
    assert "does not fit this run's ResNet-14" in sentence
    assert "set encoder, depth, width and stem" in sentence
    # The same folder may be used once the depth is right.
    assert not (tmp_path / "run" / "architecture.json").exists()
    assert not (tmp_path / "run" / "flags.txt").exists()


def test_fine_tuning_from_a_stage_whose_weights_are_missing_is_refused(
    capsys, photos, tmp_path, pretrained
):
    sentence = told(
        capsys,
        photos,
        tmp_path,
        mode="finetune",
        checkpoint=pretrained,
        ft_proj_selector=1,
        num_proj_layers=3,
    )
    assert "--ft_proj_selector" in sentence
    assert "set --num_proj_layers, --proj_out_dim and --proj_head_bn as in pretraining" in sentence


# A change to the command of a finished run that its weights cannot follow, and what is said of it.
UNFIT = {
    "another depth": ({"resnet_depth": 14}, ["resnet_depth is 8 there and 14 here"]),
    "another image size": ({"image_size": 16}, ["image_size is 8 there and 16 here"]),
    "another head": ({"num_proj_layers": 3}, ["num_proj_layers is 2 there and 3 here"]),
    "two differences": (
        {"resnet_depth": 14, "proj_out_dim": 16},
        ["resnet_depth is 8 there", "proj_out_dim is 8 there and 16 here"],
    ),
    "another optimizer": (
        {"optimizer": "adam"},
        ["--optimizer=momentum there and --optimizer=adam here"],
    ),
    "another kind of training": (
        {"mode": "finetune"},
        ["--train_mode=pretrain there and --train_mode=finetune here"],
    ),
}


@pytest.mark.parametrize("changes, words", UNFIT.values(), ids=UNFIT.keys())
def test_a_run_directory_of_another_run_is_refused_and_left_as_it_was(
    capsys, photos, tmp_path, pretrained, changes, words
):
    before = tiny_runs.snapshot(pretrained)
    sentence = told(capsys, photos, tmp_path, model_dir=pretrained, **changes)
    assert [word for word in words if word not in sentence] == [], sentence
    assert "use another --model_dir, or the settings of that run" in sentence
    assert tiny_runs.snapshot(pretrained) == before


def test_a_run_directory_of_other_classes_is_refused(capsys, own_photos, tmp_path, pretrained):
    for split in ("train", "test"):
        (own_photos / split / "red").rename(own_photos / split / "rose")
    sentence = told(capsys, own_photos, tmp_path, model_dir=pretrained)
    assert "class_names is ('blue', 'green', 'red') there" in sentence


def test_a_checkpoint_that_does_not_fit_is_refused_even_without_its_flags(
    capsys, photos, tmp_path, pretrained
):
    (pretrained / "flags.txt").unlink()
    sentence = told(capsys, photos, tmp_path, model_dir=pretrained, optimizer="adam")
    assert f"{pretrained}/ckpt-4 does not fit this run" in sentence
    assert "resume with the settings it was trained with" in sentence


@pytest.mark.parametrize("text", ['{"resnet_depth": 8', '{"resnet_depth": 8}', "[]"])
def test_a_damaged_architecture_is_refused(capsys, photos, tmp_path, pretrained, text):
    (pretrained / "architecture.json").write_text(text)
    for mode in ("pretrain", "eval"):
        sentence = told(capsys, photos, tmp_path, mode, model_dir=pretrained)
        assert f"{pretrained}/architecture.json" in sentence
        assert "restore" in sentence


def test_a_directory_without_weights_does_not_bind_the_next_run(
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
    sentence = told(capsys, photos, tmp_path, checkpoint_steps=1, train_steps=6, **changes)
    stopped = int(sentence.split("loss of step ")[1].split()[0])
    assert "learning rate" in sentence
    assert "e+28" in sentence
    assert f"last good checkpoint is {tmp_path}/run/ckpt-{stopped - 1}" in sentence
    assert "Lower --learning_rate" in sentence
    assert (tmp_path / "run" / f"ckpt-{stopped - 1}.index").exists()
    assert not (tmp_path / "run" / f"ckpt-{stopped}.index").exists()
