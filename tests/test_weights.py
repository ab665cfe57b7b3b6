"""Opening weights: once per command, for each kind of path, and compared with the flags."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
import pytest
import reference_forms
import tiny_runs

import run
from simclr_tf import config, errors
from simclr_tf.models import simclr
from simclr_tf.reference import files, inference
from simclr_tf.runs import compatibility, directory, initialization, weights
from simclr_tf.serving import export

SMALL_NET = reference_forms.architecture(
    stem="small", proj_head_mode="none", class_names=simclr.placeholder_class_names(3)
)
# Not given, because the weights determine the network.
NETWORK = dict.fromkeys(("image_size", "resnet_depth", "proj_out_dim", "num_proj_layers"))


@pytest.fixture(scope="module")
def small():
    """A ResNet-18 of random variables."""
    return reference_forms.random_model(SMALL_NET)


@pytest.fixture
def calls(monkeypatch):
    """Counts how often weights of the reference are found and their network is inferred."""
    counts = collections.Counter()

    def count(module, name):
        function = getattr(module, name)

        def counted(*arguments):
            counts[name] += 1
            return function(*arguments)

        monkeypatch.setattr(module, name, counted)

    count(files, "find")
    count(inference, "infer")
    return counts


@pytest.mark.parametrize(
    "mode",
    [
        *(pytest.param(x, marks=pytest.mark.exhaustive) for x in ("eval", "finetune", "convert")),
        "export",
    ],
)
def test_a_command_finds_and_parses_the_weights_of_the_reference_once(
    mode, small, tmp_path, photos, calls, monkeypatch
):
    monkeypatch.setattr(export, "export", lambda *_, **__: "there")
    reference_forms.WRITERS["variable"](small, tmp_path)
    given = {"checkpoint": tmp_path / "saved_model" / "7", "train_steps": 0, "train_epochs": 0}
    arguments = tiny_runs.arguments(
        mode, tmp_path / "new", photos, **NETWORK, **given, linear_eval=False
    )
    assert run.main(arguments) == 0
    assert calls == {"find": 1, "infer": 1}


def test_a_run_that_resumes_does_not_open_the_checkpoint_that_it_started_from(
    pretrained, tmp_path, photos, monkeypatch
):
    monkeypatch.setattr(export, "export", lambda *_, **__: "")
    changes = {"checkpoint": tmp_path / "deleted", **tiny_runs.NO_COLOR}
    assert tiny_runs.main("pretrain", pretrained, photos, **changes) == 0


def test_opening_a_run_directory_opens_its_newest_checkpoint(pretrained):
    opened = weights.open_weights(str(pretrained))
    assert opened.origin == str(pretrained / "ckpt-4")
    assert opened.folder == str(pretrained)
    assert (opened.description, opened.step) == ("checkpoint of step 4", 4)
    assert opened.architecture == directory.read_architecture(str(pretrained))
    assert opened.class_names == tiny_runs.CLASSES
    assert (opened.assumed, opened.unused, opened.flags) == ((), (), {})
    assert not opened.from_reference


@pytest.mark.parametrize("name", ["ckpt-2", "ckpt-2.index", "ckpt-2.data-00000-of-00001"])
def test_a_checkpoint_can_be_named_by_its_prefix_or_one_of_its_files(pretrained, name):
    opened = weights.open_weights(str(pretrained / name))
    assert opened.origin == str(pretrained / "ckpt-2")
    assert (opened.folder, opened.step) == (str(pretrained), 2)


@pytest.mark.parametrize(
    ("form", "path", "kind"),
    [
        ("variable", "saved_model/7", "TF2 SavedModel"),
        ("path", "ckpt-7", "TF2 checkpoint"),
        ("tf1", "model.ckpt-7", "TF1 checkpoint"),
    ],
)
def test_each_form_of_the_reference_is_recognised(small, tmp_path, form, path, kind):
    reference_forms.WRITERS[form](small, tmp_path)
    opened = weights.open_weights(str(tmp_path))
    assert opened.from_reference
    assert opened.origin == str(tmp_path / path)
    assert opened.description == f"{kind} of google-research/simclr, ResNet-18 1x"
    assert opened.class_names == simclr.placeholder_class_names(3)
    assert "image_size 32" in opened.assumed
    assert opened.step == 0


def test_loading_a_part_does_not_change_the_others(pretrained):
    opened = weights.open_weights(str(pretrained))
    model = simclr.SimCLR(opened.architecture, seed=1)
    head = [variable.numpy() for variable in model.projection_head.variables]
    assert opened.load(model, "encoder") is None
    stored = tiny_runs.part(tiny_runs.weights(pretrained), "encoder")
    kernel = stored["model/encoder/stem_conv/kernel/.ATTRIBUTES/VARIABLE_VALUE"]
    np.testing.assert_array_equal(model.encoder.stem_conv.kernel, kernel)
    for before, variable in zip(head, model.projection_head.variables):
        np.testing.assert_array_equal(variable, before)


def test_loading_a_part_that_does_not_fit_returns_the_reason(pretrained, small, tmp_path):
    reference_forms.WRITERS["path"](small, tmp_path / "reference")
    model = simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=0)
    stored = weights.open_weights(str(pretrained))
    assert "(64, 8) there and (64, 16) here" in stored.load(model, "projection_head")
    reference = weights.open_weights(str(tmp_path / "reference"))
    assert reference.load(model, "projection_head") == "the checkpoint has none"
    assert "there and" in reference.load(model, "linear_head")


def test_building_a_network_requires_all_of_its_parts(pretrained):
    opened = weights.open_weights(str(pretrained))
    model, report = initialization.build(opened)
    assert model.architecture == opened.architecture
    assert report[0] == f"weights of {pretrained}/ckpt-4 (checkpoint of step 4)"
    assert [line.split(":")[0] for line in report[1:]] == [
        "encoder",
        "projection head",
        "linear head",
    ]
    description = pretrained / "architecture.json"
    text = description.read_text()
    description.write_text(text.replace('"proj_out_dim": 8', '"proj_out_dim": 16'))
    with pytest.raises(
        errors.UserError, match=r"The projection head in .* does not fit this run's"
    ):
        initialization.build(weights.open_weights(str(pretrained)))
    description.unlink()
    with pytest.raises(errors.UserError, match=r"does not say which network .* restore that file"):
        initialization.build(weights.open_weights(str(pretrained)))


def truncate(path: pathlib.Path) -> None:
    """Truncates a file to half of its size."""
    os.truncate(path, path.stat().st_size // 2)


def test_a_damaged_checkpoint_is_refused_or_skipped(pretrained, capsys):
    truncate(pretrained / "ckpt-4.data-00000-of-00001")
    with pytest.raises(errors.UserError, match=r"--teacher=.*ckpt-4 is damaged \(.*name another"):
        weights.open_weights(f"{pretrained}/ckpt-4", flag="teacher")
    capsys.readouterr()
    assert weights.open_weights(str(pretrained)).step == 2
    assert f"The checkpoint {pretrained}/ckpt-4 is damaged" in capsys.readouterr().out


def test_a_path_without_weights_is_refused_with_the_name_of_the_flag(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("weights")
    for name, problem in (
        ("empty", "contains no checkpoint"),
        ("notes.txt", "is not a checkpoint"),
        ("nowhere", "does not exist"),
    ):
        with pytest.raises(errors.UserError, match=f"^--teacher={tmp_path}/{name} {problem}"):
            weights.open_weights(str(tmp_path / name), flag="teacher")


def weights_of(**changes):
    """Returns weights that cannot be loaded, of a network with these settings."""
    architecture = reference_forms.architecture(50, **changes)
    return weights.Weights("there", "", architecture, "a network", 0, lambda *_: None)


@pytest.mark.parametrize(
    ("stored", "explicit"),
    [
        # 512 * 0.0626 is 32 too, the narrowest middle layer of selective kernels.
        ({"sk_ratio": 0.0625}, {"sk_ratio": 0.0626}),
        ({"stem": "small"}, {"stem": "auto", "image_size": 224, "num_proj_layers": 5}),
        ({"encoder": "tiny_encoders:sequential"}, {"resnet_depth": 8}),
    ],
)
def test_flags_that_mean_the_same_network_are_accepted(stored, explicit):
    compatibility.check_explicit(weights_of(**stored), explicit, heads=False)


@pytest.mark.parametrize(
    ("stored", "explicit", "words"),
    [
        ({"sk_ratio": 0.0625}, {"sk_ratio": 0.125}, r"--sk_ratio=0.125 \(stored: 0.0625\)"),
        ({"se_ratio": 0.0625}, {"se_ratio": 0.0}, r"--se_ratio=0.0 \(stored: 0.0625\)"),
        ({"stem": "small"}, {"stem": "imagenet"}, r"--stem=imagenet \(stored: small\)"),
        ({}, {"num_proj_layers": 5}, r"--num_proj_layers=5 \(stored: 3\)"),
        ({"encoder": "a:b"}, {"encoder": "resnet"}, r"--encoder=resnet \(stored: a:b\)"),
    ],
)
def test_flags_that_mean_another_network_are_refused(stored, explicit, words):
    with pytest.raises(errors.UserError, match=words):
        compatibility.check_explicit(weights_of(**stored), explicit, heads=True)


def test_a_fine_tuning_starts_from_a_checkpoint_or_resumes(pretrained):
    changes: dict[str, Any] = {"train_mode": "finetune", "fine_tune_after_block": 4}
    resumed = config.Config(model_dir=str(pretrained), **changes)
    compatibility.check_fine_tuning_start(resumed, "finetune")
    started = config.Config(model_dir="/nowhere", checkpoint=str(pretrained), **changes)
    compatibility.check_fine_tuning_start(started, "finetune")
    with pytest.raises(errors.UserError, match="freezes layers that were never trained"):
        compatibility.check_fine_tuning_start(
            dataclasses.replace(started, checkpoint=None), "train"
        )
