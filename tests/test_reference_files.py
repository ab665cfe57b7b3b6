"""Files in the three forms of the reference: random networks are read back bit for bit."""

import dataclasses
import os
import pathlib
import shutil

import numpy as np
import pytest
import reference_forms
import tensorflow as tf
import tiny_runs

import run
from simclr_tf.models import simclr
from simclr_tf.reference import loading, mapping
from simclr_tf.runs import initialization, weights

CLASSES = simclr.placeholder_class_names(3)
NETWORKS = {
    "basic, selective, small stem": reference_forms.architecture(
        stem="small", sk_ratio=0.0625, class_names=CLASSES, ft_proj_selector=1
    ),
    "basic, squeezed, wide": reference_forms.architecture(
        width_multiplier=2, se_ratio=0.25, num_proj_layers=2
    ),
    "deeper basic, ResNet-D": reference_forms.architecture(
        34, sk_ratio=0.0625, proj_head_mode="none", class_names=CLASSES
    ),
    "bottleneck, selective": reference_forms.architecture(
        50, sk_ratio=0.1, se_ratio=0.1, num_proj_layers=4, class_names=CLASSES, ft_proj_selector=4
    ),
}
# Names and shapes do not depend on the stack; the first has all parts but bottleneck blocks.
ON_BOTH_STACKS = ("basic, selective, small stem",)


def build(folder):
    """Returns the network of stored weights, and the report on them."""
    return initialization.build(weights.open_weights(str(folder)))


def read_back(model, folder):
    """Reads weights, asserts that they are those of `model`, and returns what was parsed."""
    parsed = loading.find(str(folder))
    assert not parsed.inferred.unused
    loaded, report = build(folder)
    assert not any("skipped" in line for line in report if not line.startswith("linear head")), (
        report
    )
    written, read = mapping.variables_of(model), mapping.variables_of(loaded)
    assert written.keys() == read.keys()
    for key, variable in written.items():
        np.testing.assert_array_equal(variable, read[key], key)
    return parsed


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name in ON_BOTH_STACKS else pytest.mark.exhaustive)
        for name in NETWORKS
    ],
)
def model(request):
    """A network with random variables."""
    return reference_forms.random_model(NETWORKS[request.param])


@pytest.mark.parametrize("form", reference_forms.WRITERS)
def test_each_form_is_read_back(model, tmp_path, form):
    reference_forms.WRITERS[form](model, tmp_path)
    parsed = read_back(model, tmp_path)
    architecture = model.architecture
    changes = {"image_size": 32 if architecture.stem == "small" else 224}
    if architecture.proj_head_mode == "none":
        changes |= {"num_proj_layers": 1, "proj_out_dim": 128}
    if architecture.stem == "small" and form == "tf1":
        changes["sk_ratio"] = 0  # Its names and shapes do not depend on the ratio.
        assert "sk_ratio 0, which leaves no trace in these weights" in parsed.assumed
    if architecture.ft_proj_selector == 1 and form != "variable":
        changes["ft_proj_selector"] = 0
        assert "ft_proj_selector 0" in parsed.assumed
    if architecture.ft_proj_selector == 4 and form != "variable":
        changes["ft_proj_selector"] = -1
    assert parsed.architecture == dataclasses.replace(architecture, **changes)


SMALL_NET = reference_forms.architecture(stem="small", proj_head_mode="none", class_names=CLASSES)


@pytest.fixture(scope="module")
def small():
    """A ResNet-18 of random variables."""
    return reference_forms.random_model(SMALL_NET)


def test_settings_that_leave_no_trace_in_weights_are_read_from_flags_json(small, tmp_path):
    flags = {"resnet_depth": 18, "image_size": 20, "batch_norm_decay": 0.99, "dataset": "mnist"}
    reference_forms.write_saved_model(small, tmp_path / "saved_model" / "9", flags=flags)
    shutil.move(tmp_path / "saved_model" / "flags.json", tmp_path)
    parsed = read_back(small, tmp_path)
    assert (parsed.architecture.image_size, parsed.architecture.batch_norm_decay) == (20, 0.99)
    assert parsed.assumed == ("its 3 classes in the order of your data's",)


def test_the_newest_checkpoint_is_used_and_the_optimizer_is_reported(small, tmp_path):
    other = reference_forms.random_model(SMALL_NET, seed=1)
    reference_forms.write_tf1(other, tmp_path / "model.ckpt-80")
    reference_forms.write_tf1(small, tmp_path / "model.ckpt-100", slots=True)
    parsed = read_back(small, tmp_path)
    assert parsed.stored.origin.endswith("model.ckpt-100")
    *_, optimizer, unused = build(tmp_path)[1]
    assert "optimizer: 107 variables (" in optimizer and "LARSOptimizer" in optimizer
    assert unused == "unused: 1 variable (global_step)"
    # One of its files names a checkpoint, too.
    older = loading.find(str(tmp_path / "model.ckpt-80.index"))
    assert older.stored.origin.endswith("model.ckpt-80")


def test_an_incomplete_head_is_skipped(small, tmp_path):
    reference_forms.write_checkpoint(
        small, tmp_path / "ckpt-1", without=("linear_head/dense/bias",)
    )
    model, report = build(tmp_path)
    assert model.linear_head is None
    (line,) = [line for line in report if line.startswith("linear head")]
    assert line == (
        "linear head: skipped (the checkpoint lacks 1 of its variables, such as "
        "linear_head/dense/bias)"
    )


def error_message(capsys, checkpoint, tmp_path, **flags):
    """Runs a conversion, asserts that it stops with one sentence, and returns the sentence."""
    capsys.readouterr()
    flags = {"mode": "convert", "checkpoint": checkpoint, "model_dir": tmp_path / "new", **flags}
    arguments = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    assert run.main(["run.py", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    assert not (tmp_path / "new").exists()
    return message


def write_other(folder: pathlib.Path) -> None:
    tf.train.Checkpoint(weights=tf.Variable([1.0])).write(str(folder / "ckpt-1"))


def test_a_path_without_a_checkpoint_is_refused(tmp_path, capsys):
    folder = tmp_path / "things"
    folder.mkdir()
    for path, words in (
        (tmp_path / "nowhere", "does not exist; name a run directory or a checkpoint"),
        (folder, "contains no checkpoint (no ckpt-STEP.index, and nothing of google-research"),
    ):
        assert words in error_message(capsys, path, tmp_path)
    (folder / "notes.txt").write_text("weights")
    assert "notes.txt is not a checkpoint" in error_message(capsys, folder / "notes.txt", tmp_path)
    write_other(folder)
    assert "was not written by google-research/simclr" in error_message(capsys, folder, tmp_path)
    assert "set both" in error_message(capsys, None, tmp_path)
    assert "set both" in error_message(capsys, folder, tmp_path, model_dir=None)


def test_a_partial_or_damaged_encoder_is_refused(small, tmp_path, capsys):
    folder = tmp_path / "partial"
    missing = ("encoder/group2/block1/shortcut/conv/kernel", "encoder/stem/0/norm/gamma")
    reference_forms.write_tf1(small, folder / "model.ckpt-1", without=missing)
    message = error_message(capsys, folder, tmp_path)
    assert "incomplete: of the 105 weights of a ResNet-18 1x it lacks 2" in message
    assert "base_model/batch_normalization/gamma, base_model/conv2d_6/kernel" in message
    whole = tmp_path / "whole"
    reference_forms.write_tf1(small, whole / "model.ckpt-1")
    data = whole / "model.ckpt-1.data-00000-of-00001"
    os.truncate(data, data.stat().st_size // 2)
    assert "model.ckpt-1 cannot be read" in error_message(capsys, whole, tmp_path)


def test_a_folder_of_several_models_is_refused_with_their_names(small, tmp_path, capsys):
    for name in ("r50_1x_sk0", "r50_1x_sk1"):
        reference_forms.write_tf1(small, tmp_path / "pretrained" / name / "model.ckpt-1")
    message = error_message(capsys, tmp_path / "pretrained", tmp_path)
    assert "contains 2 models (r50_1x_sk0, r50_1x_sk1); name one" in message


def test_flags_that_contradict_the_weights_are_refused(small, tmp_path, capsys, photos):
    folder = tmp_path / "run"
    reference_forms.write_tf1(small, folder / "model.ckpt-1")
    message = error_message(capsys, folder, tmp_path, resnet_depth=50, width_multiplier=2)
    assert (
        "ResNet-18 1x): --resnet_depth=50 (stored: 18), --width_multiplier=2 (stored: 1);"
        in message
    )
    changes = {**tiny_runs.SMALL, "sk_ratio": 0.0625, "mode": "finetune"}
    changes |= {"dataset": "image_folder", "data_dir": photos}
    assert "--resnet_depth=8 (stored: 18), --sk_ratio=0.0625 (stored: 0.0);" in error_message(
        capsys, folder, tmp_path, **changes
    )


def test_a_run_directory_of_the_reference_is_refused_as_model_dir(small, tmp_path, capsys, photos):
    reference_forms.write_checkpoint(small, tmp_path / "reference" / "ckpt-1")
    for mode in ("eval", "pretrain"):
        assert tiny_runs.main(mode, tmp_path / "reference", photos) == 2
        assert "is a run of google-research/simclr; convert it" in capsys.readouterr().err


@pytest.mark.exhaustive
def test_runs_of_this_program_are_not_converted_and_converted_runs_are_not_resumed(
    small, tmp_path, capsys, photos, pretrained, monkeypatch
):
    message = error_message(capsys, pretrained, tmp_path)
    assert "was not written by google-research/simclr; a run of this program needs" in message
    monkeypatch.setattr("simclr_tf.serving.export.export", lambda *_, **__: "")
    reference_forms.write_tf1(small, tmp_path / "reference" / "model.ckpt-1")
    arguments = [f"--checkpoint={tmp_path}/reference", f"--model_dir={tmp_path}/converted"]
    assert run.main(["run.py", "--mode=convert", *arguments]) == 0
    capsys.readouterr()
    arguments = tiny_runs.arguments("pretrain", tmp_path / "converted", photos, image_size=None)
    arguments = [argument for argument in arguments if "resnet_depth" not in argument]
    assert run.main(arguments) == 2
    assert "contains converted weights, not a training run that could be" in capsys.readouterr().err
    # Unnamed classes are taken for those of the data if their number is the same.
    network = dict.fromkeys(("image_size", "resnet_depth", "proj_out_dim", "num_proj_layers"))
    assert tiny_runs.main("eval", tmp_path / "converted", photos, **network, linear_eval=False) == 0
    assert tiny_runs.json_of(tmp_path / "converted" / "result.json")["eval/examples"] == 18
    network |= {"train_steps": 0, "train_epochs": 0, "checkpoint": tmp_path / "reference"}
    assert tiny_runs.main("finetune", tmp_path / "tuned", photos, **network) == 0
    assert "linear head: loaded 2 of 2 variables" in capsys.readouterr().out
