"""Paths: brackets and other characters of patterns, ~, relative paths, remote paths."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest
import tensorflow as tf
import tiny_runs

from flags import command_line
import run
from simclr_tf import errors, paths
from simclr_tf.data import sources
from simclr_tf.reference import files
from simclr_tf.runs import checkpoints, directory, teachers, weights

# As patterns, these match "lr1", or not even themselves.
PATTERNS = ("lr[1]", "lr?", "lr*", "lr[0.1]", "lr\\1", "lr[")


def parse(*arguments: object) -> command_line.Command:
    return command_line.parse(["run.py", *map(str, arguments)])


class Scalar(tf.Module):
    """Stands for a network: one variable."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.variable = tf.Variable(value)


def run_of(folder: pathlib.Path, value: float, *, keep: int = 5) -> checkpoints.Checkpoints:
    """Returns the checkpoints of a run whose only weight has a value."""
    folder.mkdir(exist_ok=True)
    return checkpoints.Checkpoints(str(folder), Scalar(value), None, keep=keep)


def save(run: checkpoints.Checkpoints, *steps: int) -> None:
    for step in steps:
        run.step.assign(step)
        run.save()


@pytest.mark.parametrize("name", PATTERNS)
def test_a_run_saves_and_resumes_in_its_own_directory_only(tmp_path, name):
    neighbour = run_of(tmp_path / "lr1", 1.0)
    save(neighbour, 2, 9)
    before = tiny_runs.snapshot(tmp_path / "lr1")
    own = run_of(tmp_path / name, 2.0, keep=1)
    assert own.restore_latest() is None
    save(own, 2, 3)
    assert tiny_runs.snapshot(tmp_path / "lr1") == before
    assert checkpoints.listing(str(tmp_path / name)) == [f"{tmp_path}/{name}/ckpt-3"]
    names = {path.name for path in (tmp_path / name).iterdir()}
    assert names == {"checkpoint", "ckpt-3.index", "ckpt-3.data-00000-of-00001"}
    resumed = run_of(tmp_path / name, 0.0)
    assert resumed.restore_latest() == f"{tmp_path}/{name}/ckpt-3"
    assert int(resumed.step) == 3
    assert checkpoints.damage_of(f"{tmp_path}/{name}/ckpt-3") is None
    assert checkpoints.read_step(f"{tmp_path}/{name}/ckpt-3") == 3


def test_only_files_with_the_exact_names_of_a_checkpoint_are_deleted(tmp_path):
    kept = [
        "ckpt-1.index.bak",
        "ckpt-1.data-notes",
        "ckpt-10.notes",
        "ckpt-1_temperatures",
        "my-ckpt-1.index",
    ]
    run = run_of(tmp_path, 1.0, keep=1)
    for name in kept:
        (tmp_path / name).write_text("mine")
    (tmp_path / "ckpt-1_temp").mkdir()  # Left by a process that was killed.
    save(run, 1, 2)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*kept, "checkpoint", "ckpt-2.index", "ckpt-2.data-00000-of-00001"}


def test_a_run_directory_can_be_moved(tmp_path):
    run = run_of(tmp_path / "before", 1.0)
    save(run, 1, 2)
    (tmp_path / "before").rename(tmp_path / "after")
    assert tf.train.latest_checkpoint(str(tmp_path / "after")) == f"{tmp_path}/after/ckpt-2"


@pytest.mark.parametrize("name", ["lr[1]", "lr\\1"])
def test_weights_of_a_run_are_read_from_its_own_directory(pretrained, tmp_path, name):
    (tmp_path / "lr1").mkdir()
    shutil.copytree(pretrained, tmp_path / name)
    for path in pretrained.glob("ckpt-4*"):
        path.rename(tmp_path / "lr1" / path.name)
    opened = weights.open_weights(f"{tmp_path}/{name}")
    assert opened.origin == f"{tmp_path}/{name}/ckpt-4"
    assert opened.step == 4
    assert weights.open_weights(f"{tmp_path}/{name}/ckpt-2").step == 2


@pytest.mark.exhaustive
def test_a_run_in_a_directory_with_brackets_is_evaluated_and_exported(pretrained, tmp_path):
    model_dir = pathlib.Path(shutil.copytree(pretrained, tmp_path / "lr[1]"))
    shutil.copytree(pretrained, tmp_path / "lr1")
    for path in (tmp_path / "lr1").glob("ckpt-4*"):
        path.unlink()
    before = tiny_runs.snapshot(tmp_path / "lr1")
    shutil.rmtree(model_dir / "saved_model")
    assert run.main(["run.py", "--mode=eval", f"--model_dir={model_dir}", "--nolinear_eval"]) == 0
    assert tiny_runs.json_of(model_dir / "result.json")["global_step"] == 4
    assert run.main(["run.py", "--mode=export", f"--model_dir={model_dir}"]) == 0
    assert (model_dir / "saved_model" / "4" / "saved_model.pb").exists()
    assert tiny_runs.snapshot(tmp_path / "lr1") == before


def test_weights_of_the_reference_are_read_from_a_folder_with_brackets(tmp_path):
    (tmp_path / "tf[1]").mkdir()
    tf.raw_ops.SaveV2(
        prefix=f"{tmp_path}/tf[1]/model.ckpt-5",
        tensor_names=["base_model/conv2d/kernel"],
        shape_and_slices=[""],
        tensors=[tf.constant(2.0)],
    )
    stored = files.find(f"{tmp_path}/tf[1]")
    assert stored is not None
    assert stored.origin == f"{tmp_path}/tf[1]/model.ckpt-5"
    assert stored.read(next(iter(stored.shapes))) == 2.0


def test_a_checkpoint_whose_name_has_a_bracket_is_refused(tmp_path):
    for name in ("model[1].ckpt.index", "model[1].ckpt.data-00000-of-00001"):
        (tmp_path / name).write_text("")
    with pytest.raises(errors.UserError, match=r"/model\[1\]\.ckpt contains \[, .*; rename it\."):
        parse("--mode=convert", f"--checkpoint={tmp_path}/model[1].ckpt", "--model_dir=x")


def test_a_teacher_is_loaded_from_a_folder_with_brackets(tmp_path):
    class Constant(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = tf.Variable([[2.0, 0.0, 0.0]])

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])])
        def logits(self, images):
            return {"logits": self.value + 0.0 * tf.reduce_mean(images)}

    module = Constant()
    signatures = {"serving_default": module.logits}
    tf.saved_model.save(module, f"{tmp_path}/t[1]", signatures=signatures)
    teacher = teachers.load(f"{tmp_path}/t[1]", image_size=8)
    assert float(teacher.logits(tf.zeros([1, 8, 8, 3]))[0, 0]) == 2.0
    assert [variable.numpy().tolist() for variable in teacher.variables] == [[[2.0, 0.0, 0.0]]]


def test_images_are_read_from_folders_with_brackets(tmp_path):
    want = {f"train/{name}/x[0]?.jpg": name.encode() for name in ("a[b]", "ab", "a*")}
    for path, content in want.items():
        (tmp_path / "photos [1]" / path).parent.mkdir(parents=True)
        (tmp_path / "photos [1]" / path).write_bytes(content)
    (tmp_path / "photos 1" / "train" / "other").mkdir(parents=True)
    (tmp_path / "photos 1" / "train" / "other" / "x0y.jpg").write_bytes(b"other")
    source = sources.open_source("image_folder", data_dir=f"{tmp_path}/photos [1]", seed=0)
    assert source.class_names == ("a*", "a[b]", "ab")
    read = {e["name"].numpy().decode(): e["image"].numpy() for e in source.examples("train")}
    assert read == want


@pytest.fixture
def home(tmp_path, monkeypatch) -> pathlib.Path:
    """The home directory, which is also the current one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["model_dir", "data_dir", "teacher"])
@pytest.mark.parametrize(
    "given, want",
    [
        ("~/x", "{home}/x"),
        ("x", "{home}/x"),
        ("./x/", "{home}/x"),
        ("../x", "{home}/../x"),
        ("/x/~/y", "/x/~/y"),
    ],
)
def test_a_local_path_becomes_absolute(home, name, given, want):
    config = parse("--dataset=cifar10", f"--{name}={given}").config
    assert getattr(config, name) == want.format(home=home)


def test_the_path_of_a_checkpoint_becomes_absolute(home, pretrained):
    for given in ("pretrained/ckpt-2", "~/pretrained/ckpt-2"):
        command = parse("--mode=finetune", "--dataset=cifar10", f"--checkpoint={given}")
        assert command.config.checkpoint == f"{pretrained}/ckpt-2"
        assert command.weights is not None
        assert command.weights.origin == f"{pretrained}/ckpt-2"


def test_a_flagfile_in_the_home_directory_is_read_and_its_paths_become_absolute(home):
    (home / "own.flags").write_text("--dataset=image_folder\n--data_dir=~/photos\n")
    assert parse("--flagfile=~/own.flags").config.data_dir == f"{home}/photos"
    assert parse("--flagfile", "~/own.flags").config.data_dir == f"{home}/photos"


def test_a_module_of_an_encoder_is_not_a_path(home):
    assert parse("--dataset=cifar10", "--encoder=mine:make").config.encoder == "mine:make"


def test_an_empty_path_unsets_that_of_a_flagfile(home):
    (home / "own.flags").write_text("--dataset=cifar10\n--checkpoint=/nowhere\n--data_dir=/x\n")
    config = parse("--flagfile=own.flags", "--checkpoint=", "--data_dir=").config
    assert (config.checkpoint, config.data_dir) == (None, None)


def test_a_run_trained_with_relative_paths_is_evaluated_from_any_folder(
    home, pretrained, monkeypatch
):
    given = ["--dataset=image_folder", "--data_dir=photos", "--model_dir=pretrained"]
    directory.write_config(str(pretrained), parse(*given).config)
    (home / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    config = parse("--mode=eval", "--model_dir=../pretrained").config
    assert config.data_dir == f"{home}/photos"


def test_relative_paths_stored_by_an_older_version_are_relative_to_the_current_folder(
    home, pretrained
):
    (pretrained / "flags.txt").write_text("--dataset=image_folder\n--data_dir=photos\n")
    config = parse("--mode=eval", "--model_dir=pretrained").config
    assert config.data_dir == f"{home}/photos"


REMOTE = ("gs://bucket/a/run/", "s3://bucket//run", "ram://run", "https://host/x?y=[1]")


@pytest.mark.parametrize("path", REMOTE)
def test_a_remote_path_stays_as_it_is(path):
    assert paths.absolute(path) == path


@pytest.mark.exhaustive
def test_a_run_at_a_remote_path_is_evaluated(pretrained):
    # TensorFlow reads the scheme, as it does that of a bucket; for a local path it is "file:".
    url = f"file://{pretrained}"
    assert run.main(["run.py", "--mode=eval", f"--model_dir={url}", "--nolinear_eval"]) == 0
    assert (pretrained / "result_4.json").exists()
    assert not os.path.exists("file:")


@pytest.mark.parametrize("name", ["model_dir", "checkpoint", "data_dir", "teacher"])
@pytest.mark.parametrize("scheme", ["s3", "hdfs", "https", "gs"])
def test_a_remote_path_that_cannot_be_opened_is_refused(capsys, monkeypatch, name, scheme):
    schemes = [known for known in tf.io.gfile.get_registered_schemes() if known != scheme]
    monkeypatch.setattr(tf.io.gfile, "get_registered_schemes", lambda: schemes)
    flag = f"--{name}={scheme}://host/x"
    assert run.main(["run.py", "--mode=pretrain", "--dataset=image_folder", flag]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {flag} cannot be opened, because this TensorFlow does not ")
    assert "copy the files to this machine or mount their storage" in message
    remedy = "install the package tensorflow-io-gcs-filesystem and set TF_USE_MODULAR_FILESYSTEM=1"
    assert (remedy in message) == (scheme == "gs")
    assert message.count("\n") == 1


def test_a_remote_path_that_stored_flags_name_is_refused_too(pretrained):
    (pretrained / "flags.txt").write_text("--dataset=image_folder\n--data_dir=s3://bucket/x\n")
    with pytest.raises(errors.UserError, match=r"^--data_dir=s3://bucket/x cannot be opened"):
        parse("--mode=eval", f"--model_dir={pretrained}")


@pytest.mark.parametrize("name", ["model_dir", "checkpoint", "teacher"])
def test_a_remote_path_that_would_be_read_as_a_pattern_is_refused(name):
    with pytest.raises(errors.UserError, match=r"lr\[1\] contains \[, .*; use another name\.$"):
        parse("--dataset=cifar10", f"--{name}=ram://runs/lr[1]")


def test_a_remote_flagfile_is_refused():
    with pytest.raises(errors.UserError, match=r"^--flagfile=gs://b/x is not a local file; copy"):
        parse("--flagfile=gs://b/x")
