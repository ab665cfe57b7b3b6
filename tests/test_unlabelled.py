"""Splits in which only some images have labels."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import replicas as replicas_lib
import tensorflow as tf
import test_accumulation
import tiny_runs

import run as program
from simclr_tf import config, errors, keras_api
from simclr_tf.data import labels, sources
from simclr_tf.runs import dataset
from simclr_tf.training import accumulation, loop, steps, tasks

MIXED = "train+unlabeled"
LOSS, ACCURACY = "train/supervised_loss", "train/supervised_acc"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> pathlib.Path:
    """A folder with train/, test/, and the training images again without labels."""
    folder = tmp_path_factory.mktemp("mixed") / "photos"
    shutil.copytree(tiny_runs.photos(tmp_path_factory), folder)
    shutil.copytree(tiny_runs.unlabelled_photos(tmp_path_factory), folder / "unlabeled")
    return folder


def _step(of_images, *, replicas=1, chunks=1):
    """Runs one step on images with these labels.

    Returns the result, the logits before it, how far each variable moved, and the network.
    """
    strategy = replicas_lib.strategy(replicas)
    with strategy.scope():
        model = test_accumulation._Inference(test_accumulation._ARCHITECTURE, seed=0)
        learner = test_accumulation._learner(model)
    task = test_accumulation._task(model, "nt_xent")
    data = {**test_accumulation._data(2), "label": np.int32(of_images)}
    logits = model(tasks._stack_views(data["views"]))["logits"].numpy().astype(np.float64)
    step = steps.whole_step(learner, task, strategy)
    if chunks > 1:
        step = accumulation.chunked_step(learner, task, strategy, chunks)
    rows = tf.data.Dataset.from_tensor_slices(data)
    rows = rows.batch(len(of_images) // replicas, drop_remainder=True)
    before = [variable.numpy() for variable in learner.variables]
    iterator = iter(strategy.distribute_datasets_from_function(lambda _: rows))
    sums = loop.compile_steps(step)(iterator, 1)
    moves = [variable.numpy() - old for variable, old in zip(learner.variables, before)]
    return sums, logits, moves, model


@pytest.fixture(scope="module")
def partly():
    """The labels of 16 images, of which only three have one, all among the first eight."""
    of_images = np.full(16, -1)
    of_images[[0, 1, 5]] = 2, 0, 1
    return of_images, _step(of_images)


def test_the_head_learns_from_the_mean_over_the_labelled_images(partly):
    of_images, (sums, logits, _, _) = partly
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    rows = np.flatnonzero(np.tile(of_images, 2) >= 0)
    known = np.tile(of_images, 2)[rows]
    assert sums.totals[LOSS] == pytest.approx(-log_p[rows, known].mean(), rel=1e-5)
    assert sums.totals[ACCURACY] == pytest.approx(np.mean(log_p[rows].argmax(1) == known))
    want = 2 * sums.totals["train/contrast_loss"] + sums.totals[LOSS]
    want += sums.totals["train/weight_decay"]
    assert sums.totals["train/total_loss"] == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(("replicas", "chunks"), [(2, 1), (2, 2)])
def test_which_replica_or_chunk_has_the_labels_does_not_matter(partly, replicas, chunks):
    of_images, (expected, _, expected_moves, _) = partly
    sums, _, moves, _ = _step(of_images, replicas=replicas, chunks=chunks)
    for name in (LOSS, ACCURACY, "train/total_loss", steps.GRADIENT_NORM):
        assert sums.totals[name] == pytest.approx(expected.totals[name], rel=1e-4), name
    for move, one in zip(moves, expected_moves):
        assert np.linalg.norm(move - one) <= 1e-4 * np.linalg.norm(one) + 1e-6


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_batch_without_any_label_trains_all_but_the_head(chunks):
    sums, _, moves, model = _step(np.full(16, -1), chunks=chunks)
    assert sums.finite
    assert sums.missing == {LOSS: 1, ACCURACY: 1}
    total = 2 * sums.totals["train/contrast_loss"] + sums.totals["train/weight_decay"]
    assert sums.totals["train/total_loss"] == pytest.approx(total, rel=1e-6)
    assert all(np.all(np.isfinite(move)) for move in moves)
    moved = {v.ref(): np.any(move) for v, move in zip(model.trainable_variables, moves)}
    assert moved[model.encoder.trainable_variables[0].ref()]
    bias = keras_api.raw(model.linear_head.dense.bias)
    assert not moved[bias.ref()]  # It has no weight decay, either.


@pytest.mark.exhaustive
def test_pretraining_on_both_kinds_of_images(mixed, tmp_path, capsys, no_export):
    changes = {**tiny_runs.NO_COLOR, "train_split": MIXED, "train_steps": 2}
    assert tiny_runs.main("pretrain", tmp_path / "run", mixed, **changes) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        f"36 of the 72 images of the split '{MIXED}' of 'image_folder' have no labels; the linear "
        "head learns from the other images." in printed
    )
    for line in tiny_runs.lines_of(tmp_path / "run" / "metrics.jsonl"):
        assert np.isfinite(line["train/total_loss"])
    arguments = ["run.py", "--mode=eval", f"--model_dir={tmp_path}/run"]
    scores = []
    for prefix in ("", "unlabeled+"):
        splits = [f"--train_split={prefix}train", f"--eval_split={prefix}test"]
        assert program.main([*arguments, *splits]) == 0
        scores.append(tiny_runs.json_of(tmp_path / "run" / "result.json"))
        printed = capsys.readouterr().out
        for of, name in ("36 of 72", "train"), ("18 of 54", "test"):
            said = f"Evaluated are the {of} images of 'unlabeled+{name}' that have labels."
            assert (said in printed) == bool(prefix)
    for name in ("linear_eval/top_1_accuracy", "eval/label_top_1_accuracy", "eval/examples"):
        assert scores[0][name] == scores[1][name]


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"objective": "supcon"}, "or --objective=nt_xent"),
        ({"train_mode": "finetune"}, "set --train_split to images that all have labels."),
        (
            {"objective": "distill", "teacher": "t", "distillation_weight": 0.5},
            "or --distillation_weight=1",
        ),
    ],
)
def test_learning_from_labels_that_some_images_lack_is_refused(mixed, settings, remedy):
    run = config.Config(dataset="image_folder", data_dir=str(mixed), train_split=MIXED, **settings)
    with pytest.raises(errors.UserError) as refused:
        dataset.open_data(run, eval_split_given=False)
    assert str(refused.value).startswith("36 of the 72 images of the split 'train+unlabeled'")
    assert remedy in str(refused.value)


def test_batches_balanced_by_class_have_labelled_images_only(mixed):
    run = config.Config(
        dataset="image_folder",
        data_dir=str(mixed),
        train_split=MIXED,
        objective="supcon",
        samples_per_class=2,
    )
    assert dataset.open_data(run, eval_split_given=False).class_names == tiny_runs.CLASSES


def test_the_terms_of_a_stream_show_whether_it_has_labels(mixed, monkeypatch):
    source = sources.open_source("image_folder", data_dir=str(mixed), seed=0)
    monkeypatch.setattr(labels, "known", lambda *_: None)
    assert labels.is_labelled(source, "unlabeled + train") and labels.is_labelled(source, "train")
    assert not labels.is_labelled(source, "unlabeled")
    why = labels.why_partly_unlabelled(source, "unlabeled+train")
    assert why == "The split 'unlabeled' of 'image_folder' has no labels"
    assert labels.why_partly_unlabelled(source, "train+test") is None


def test_an_image_without_a_label_that_is_met_in_training_is_reported(
    mixed, tmp_path, monkeypatch, capsys
):
    # As in a stream, of which only the first labels are known at the start.
    monkeypatch.setattr(labels, "known", lambda *_: None)
    monkeypatch.setattr(labels, "why_partly_unlabelled", lambda *_: None)
    changes = {**tiny_runs.NO_COLOR, "train_mode": "finetune", "train_split": MIXED}
    assert tiny_runs.main("train", tmp_path / "run", mixed, **changes) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: An image of the split '{MIXED}' has no label, from which ")
    assert "--objective=supervised learns" in message and message.count("\n") == 1


class _Streamed:
    """Reads the images a, without a label, and b; see `readers.Reader`."""

    def examples(self, slices, *, order_seed=None, excluded=()):
        kept = [label for name, label in (("a", -1), ("b", 1)) if name not in excluded]
        return tf.data.Dataset.from_tensor_slices({"label": kept})

    def random_access(self, slices, *, excluded=()):
        return None


def test_of_a_stream_the_first_image_that_is_not_excluded_has_a_label_or_not(monkeypatch):
    monkeypatch.setattr(sources.Source, "slices", lambda source, split: [split])
    reader: Any = _Streamed()
    source = sources.Source("x", ("one", "two"), {"train": 2}, (None, None), (), reader)
    for excluded, labelled in (((), False), (("a",), True), ((), False)):
        without = dataclasses.replace(source, excluded={"train": excluded})
        assert labels.is_labelled(without, "train") == labelled
