"""The class-balanced cross-entropy: its weights, its loss, and what a run counts for it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs
import tiny_several

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.losses import classification
from simclr_tf.runs import class_counts, dataset
from simclr_tf.training import label_terms

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 3)).astype(np.float32)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.999, 1 - 1e-9])
def test_weights_are_those_of_the_effective_numbers(beta):
    counts = np.array([1, 4, 50])
    effective = np.array([sum(beta**i for i in range(count)) for count in counts])
    want = (1 / effective) / np.mean(1 / effective)
    found = classification.class_balanced_weights(counts, beta)
    np.testing.assert_allclose(found, want, rtol=1e-6)
    if beta == 0:
        assert np.all(found == 1)


def test_counts_without_images_and_other_betas_are_refused():
    for counts, beta in ((np.array([1, 0]), 0.5), (np.array([1, 1]), 1.0)):
        with pytest.raises(ValueError, match="counts at least 1"):
            classification.class_balanced_weights(counts, beta)


def test_the_loss_of_an_image_has_the_weight_of_its_class():
    weights, labels = np.array([0.5, 2, 1], np.float32), np.array([0, 1, 2, 1, 0], np.int32)
    term = label_terms.one_label(0.1, weights)
    plain = classification.cross_entropy(LOGITS, labels, label_smoothing=0.1)
    np.testing.assert_allclose(term.losses(LOGITS, tf.constant(labels)), plain * weights[labels])


def test_of_several_labels_examples_are_balanced_against_counterexamples():
    weights = np.array([[0.5, 1.5], [2, 0], [1, 1]], np.float32)
    labels = np.array([[1, 1, 0], [0, 0, 0], [-1, 1, 1], [1, -1, 0], [0, 0, 1]], np.int32)
    term = label_terms.several_labels(weights)
    want = np.zeros(5)
    for row, column in np.argwhere(labels >= 0):
        p = 1 / (1 + np.exp(-np.float64(LOGITS[row, column])))
        shows = labels[row, column] == 1
        want[row] -= weights[column, 0] * np.log(p) if shows else weights[column, 1] * np.log(1 - p)
    np.testing.assert_allclose(term.losses(LOGITS, tf.constant(labels)), want, rtol=1e-5)


def _config(**settings):
    settings = {"mode": "train", "train_mode": "finetune", "class_balance": 0.9, **settings}
    return dataclasses.replace(config_lib.Config(), dataset="image_folder", **settings)


def test_images_are_counted_in_the_training_split_alone(photos, tmp_path_factory):
    config = _config(data_dir=str(photos))
    data = dataset.open_data(config, eval_split_given=False)
    np.testing.assert_array_equal(class_counts.count(config, data), [[12, 24]] * 3)
    assert class_counts.count(dataclasses.replace(config, class_balance=0.0), data) is None
    root = tiny_several.folder(tmp_path_factory)
    config = _config(data_dir=str(root), labels=str(root / "labels.csv"))
    data = dataset.open_data(config, eval_split_given=False, several_labels=True)
    shown = tiny_several.labels_of("train").sum(0)
    np.testing.assert_array_equal(
        class_counts.count(config, data), np.stack([shown, 40 - shown], 1)
    )


def test_a_class_without_training_images_is_refused(photos):
    config = _config(data_dir=str(photos), train_split="train[:2]")
    data = dataset.open_data(config, eval_split_given=False)
    with pytest.raises(errors.UserError, match=r"--class_balance=0\.9 .* has none of .*; set --tr"):
        class_counts.count(config, data)


def test_a_run_weighs_its_classes_and_stores_their_numbers(photos, tmp_path, no_export):
    first = {}
    for beta in (0.0, 0.99):
        folder = tmp_path / str(beta)
        flags = {"train_mode": "finetune", "class_balance": beta, "train_steps": 1}
        assert tiny_runs.main("train", folder, photos, train_split="train[:60%]", **flags) == 0
        first[beta] = tiny_runs.lines_of(folder / "metrics.jsonl")[0]["train/supervised_loss"]
    assert first[0.0] != first[0.99]
    stored = json.loads((folder / class_counts.FILE).read_text())["counts"]
    np.testing.assert_array_equal(class_counts.read(str(folder)), stored)
    (folder / class_counts.FILE).write_text("{}")
    with pytest.raises(errors.UserError, match="does not hold counts"):
        class_counts.read(str(folder))
