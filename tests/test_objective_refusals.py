"""Mistakes of the user with objectives, chunks and teachers: one sentence, exit code 2."""

from __future__ import annotations

import json
import shutil

import pytest
import tensorflow as tf
import test_refusals
import tiny_runs

from simclr_tf import config

# name: (flags that cannot work, phrases that the message must contain).
INVALID = {
    "objective that does not exist": (
        {"objective": "simclr"},
        ["--objective must be one of auto, nt_xent", "distill", "'simclr'"],
    ),
    "contrastive objective in fine-tuning": (
        {"mode": "finetune", "objective": "supcon"},
        ["--objective=supcon pretrains", "leave out --train_mode=finetune", "=supervised"],
    ),
    "mixup and cutmix together": (
        {"objective": "supervised", "mixup": 0.2, "cutmix": 1},
        ["--mixup=0.2 and --cutmix=1 both mix images", "use one"],
    ),
    "distillation without a teacher": (
        {"objective": "distill"},
        ["--objective=distill has no teacher", "set --teacher to"],
    ),
    "chunks that do not divide the batch": (
        {"accum_chunks": 3},
        ["--accum_chunks=3", "8 images of a replica's batch", "use 2"],
    ),
    "chunks that do not divide the batch of a replica": (
        {"accum_chunks": 4, "num_virtual_cpus": 4},
        ["--accum_chunks=4", "2 images of a replica's batch", "use 2"],
    ),
    "one view": ({"num_views": 1}, ["--num_views must be at least 2", "another one", "got 1"]),
    "one side of three views": (
        {"num_views": 3, "negatives": "one"},
        ["--negatives=one contrasts the two sides", "--num_views=3 has more", "=both, or --num"],
    ),
    "zero chunks": ({"accum_chunks": 0}, ["--accum_chunks must be at least 1", "got 0"]),
    "positives below zero": (
        {"objective": "supcon", "supcon_positives": -1},
        ["--supcon_positives must be at least 0", "0 keeps all"],
    ),
    "a weight of mixing that is infinite": (
        {"objective": "supervised", "mixup": "inf"},
        ["--mixup must be 0 or between 0.01 and 100", "got inf"],
    ),
    "margin below zero": (
        {"objective": "margin_triplet", "margin": -0.5},
        ["--margin must be at least 0", "got -0.5"],
    ),
    "label smoothing of one": (
        {"objective": "supervised", "label_smoothing": 1},
        ["--label_smoothing must be between 0 and 0.99", "got 1.0"],
    ),
    "distillation weight above one": (
        {"objective": "distill", "distillation_weight": 2},
        ["--distillation_weight must be between 0 and 1", "got 2.0"],
    ),
    "teacher that does not exist": (
        {"objective": "distill", "teacher": "/nowhere/run"},
        ["--teacher=/nowhere/run does not exist"],
    ),
}


@pytest.mark.parametrize("changes, words", INVALID.values(), ids=INVALID.keys())
def test_an_invalid_objective_is_refused_with_the_numbers_and_the_remedy(
    capsys, photos, tmp_path, changes, words
):
    message = test_refusals.run_error(capsys, photos, tmp_path, **changes)
    assert [word for word in words if word not in message] == [], message
    assert not list(tmp_path.rglob("ckpt*"))


# setting: (a value, an objective that does not read it, an objective that reads it).
UNREAD = {
    "num_views": (3, "margin_triplet", "nt_xent"),
    "negatives": ("one", "supcon", "nt_xent"),
    "decoupled": (True, "nt_logistic", "supcon"),
    "semi_hard": (True, "nt_xent", "nt_logistic"),
    "margin": (0.4, "nt_logistic", "margin_triplet"),
    "supcon_positives": (2, "n_pairs", "supcon"),
    "supcon_class_average": (True, "n_pairs", "supcon"),
    "scale_by_temperature": (True, "nt_xent", "supcon_in"),
    "label_smoothing": (0.1, "distill", "supervised"),
    "class_balance": (0.9, "nt_xent", "supervised"),
    "mixup": (0.2, "supcon", "supervised"),
    "cutmix": (1.0, "nt_xent", "supervised"),
    "teacher": ("/runs/teacher", "supervised", "distill"),
    "distillation_temperature": (2.0, "supcon", "distill"),
    "distillation_weight": (0.5, "nt_xent", "distill"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_setting_that_the_objective_does_not_read_is_refused(capsys, photos, tmp_path, name):
    value, objective, reader = UNREAD[name]
    changes = {"objective": objective, name: value}
    message = test_refusals.run_error(capsys, photos, tmp_path, **changes)
    start, _, rest = message.partition(" applies only to --objective=")
    assert start == f"error: --{name}={value}"
    readers, _, rest = rest.partition(" (the objective is ")
    assert reader in readers.split("|")
    assert rest.startswith(f"{objective}); leave it out, or give --")
    assert rest.endswith(" if a flagfile sets it.\n")


def test_every_objective_is_valid_with_default_settings():
    for objective in config.OBJECTIVES:
        teacher = "/runs/teacher" if objective == "distill" else None
        config.validate(config.Config(objective=objective, teacher=teacher))


@pytest.mark.parametrize("objective", ["supcon", "supcon_in", "n_pairs"])
def test_supervised_contrast_without_labels_is_refused(
    capsys, tmp_path, tmp_path_factory, objective
):
    unlabelled = tiny_runs.unlabelled_photos(tmp_path_factory)
    message = test_refusals.run_error(capsys, unlabelled, tmp_path, objective=objective)
    assert f"has no labels, from which --objective={objective} learns" in message
    assert "use --objective=nt_xent on it" in message


def test_distillation_needs_labels_only_if_they_have_a_weight(
    capsys, tmp_path, tmp_path_factory, pretrained
):
    changes = {"objective": "distill", "teacher": pretrained, "distillation_weight": 0.5}
    unlabelled = tiny_runs.unlabelled_photos(tmp_path_factory)
    assert "has no labels" in test_refusals.run_error(capsys, unlabelled, tmp_path, **changes)
    # Without a weight for labels, the images are accepted, and only the batch is too large.
    changes |= {"distillation_weight": 1, "train_batch_size": 64}
    message = test_refusals.run_error(capsys, unlabelled, tmp_path, **changes)
    assert "--train_batch_size=64 is more than the 36 images" in message


def test_a_teacher_with_other_classes_is_refused(capsys, photos, tmp_path, pretrained):
    data = shutil.copytree(photos, tmp_path / "photos")
    for split in ("train", "test"):
        (data / split / "red").rename(data / split / "rose")
    changes = {"objective": "distill", "teacher": pretrained}
    message = test_refusals.run_error(capsys, data, tmp_path, **changes)
    assert f"--teacher={pretrained} has 3 classes (blue, green, red)" in message
    assert "the data has 3 (blue, green, rose)" in message
    # A SavedModel does not name its classes, but their number must be right.
    shutil.rmtree(data / "train" / "rose")
    shutil.rmtree(data / "test" / "rose")
    changes["teacher"] = pretrained / "saved_model" / "4"
    message = test_refusals.run_error(capsys, data, tmp_path, **changes)
    assert "has 3 classes (unnamed), and the data has 2 (blue, green)" in message


def test_a_teacher_without_a_classifier_is_refused(capsys, photos, tmp_path, pretrained):
    architecture = tiny_runs.json_of(pretrained / "architecture.json")
    text = json.dumps({**architecture, "class_names": None})
    (pretrained / "architecture.json").write_text(text)
    changes = {"objective": "distill", "teacher": pretrained}
    message = test_refusals.run_error(capsys, photos, tmp_path, **changes)
    assert f"--teacher={pretrained} has no classifier" in message
    assert "fine-tuned, or pretrained on labelled images" in message


def test_a_saved_model_without_logits_is_refused(capsys, photos, tmp_path):
    module = tf.Module()
    spec = tf.TensorSpec([None, None, None, 3], name="images")
    serve = tf.function(lambda images: {"features": images[:, 0, 0]}, input_signature=[spec])
    module.serve = serve
    folder = str(tmp_path / "saved_model")
    tf.saved_model.save(module, folder, signatures={"serving_default": serve})
    message = test_refusals.run_error(capsys, photos, tmp_path, objective="distill", teacher=folder)
    assert f"--teacher={folder} has no logits" in message
    assert "an export of a run with a classifier" in message


def test_a_damaged_saved_model_is_refused(capsys, photos, tmp_path):
    folder = tmp_path / "saved_model"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"no graph at all")
    message = test_refusals.run_error(capsys, photos, tmp_path, objective="distill", teacher=folder)
    assert f"--teacher={folder} is not a readable SavedModel" in message


def test_resuming_with_another_objective_is_refused(capsys, photos, tmp_path, pretrained):
    changes = {"model_dir": pretrained, "objective": "supcon"}
    message = test_refusals.run_error(capsys, photos, tmp_path, **changes)
    assert "--objective: nt_xent stored, supcon given" in message


def test_resuming_with_another_seed_is_refused(capsys, photos, tmp_path, pretrained):
    message = test_refusals.run_error(capsys, photos, tmp_path, model_dir=pretrained, seed=77)
    assert "--seed: 0 stored, 77 given" in message
    assert "; use another --model_dir" in message
