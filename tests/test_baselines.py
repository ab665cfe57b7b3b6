"""The baseline of an untrained encoder: the better one of two initialisations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

from flags import command_line
from simclr_tf.evaluation import features, forward, linear, logistic
from simclr_tf.models import simclr
from simclr_tf.runs import measured, opening
from simclr_tf.scoring import extraction, linear_fits, untrained

BASELINE = "baseline/random_encoder"


def test_unit_gammas_are_all_that_differs_from_the_initial_weights_of_training():
    model, initial = (simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=0) for _ in range(2))
    assert model.has_zero_gammas
    model.set_unit_gammas()
    # A ResNet-8 has three blocks, each with a scale that is initially 0.
    pairs = [(one.numpy(), other.numpy()) for one, other in zip(model.variables, initial.variables)]
    changed = [(one, other) for one, other in pairs if not np.array_equal(one, other)]
    assert len(changed) == 3
    for unit, zero in changed:
        assert np.all(unit == 1) and np.all(zero == 0)


def test_an_encoder_of_keras_has_one_initialisation():
    shape = dataclasses.replace(tiny_runs.ARCHITECTURE, encoder="tiny_encoders:sequential")
    assert not simclr.SimCLR(shape, seed=0).has_zero_gammas


def _open(folder, photos, **changes):
    config = command_line.parse(
        tiny_runs.arguments("train_then_eval", folder, photos, **changes)
    ).config
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    return opening.open_run(config, strategy, None, eval_split_given=False)


@pytest.fixture
def evaluated(monkeypatch, photos, tmp_path):
    """A function of accuracies and flags: the scores, and the gammas of the evaluated encoders."""
    monkeypatch.setattr(forward, "MAX_PIXEL_SIDE", 0)  # So that images are read by `extract`.

    def evaluated(*accuracies, **changes):
        run = _open(tmp_path / "run", photos, **changes)
        gammas: list[float] = []

        def extract(network, *_, **__):
            scales = [v.numpy() for v in network.model.encoder.variables if "gamma" in v.name]
            gammas.append(min(map(np.min, scales), default=np.nan))
            labels = np.zeros(10, np.int64)
            numbers = np.arange(10, dtype=np.float32)[:, np.newaxis]
            return features.Extracted(numbers, None, labels, labels, None)

        def fit(accuracy):
            # Class 0, which is right, has the larger score for the first images.
            weights, biases = np.float32([[-1], [0]]), np.float32([10 * accuracy - 0.5, 0])
            classifier = linear.Classifier(
                logistic.Scaling(np.zeros(1, np.float32), np.ones(1, np.float32)),
                logistic.Solution(weights, biases, converged=True),
                classes=np.arange(2),
                num_classes=3,
            )
            return linear.Fit(classifier, strength=0.1, temperature=1.0, converged=True)

        fits = iter([fit(accuracy) for accuracy in accuracies])
        monkeypatch.setattr(features, "extract", extract)
        monkeypatch.setattr(linear, "fit", lambda *_, **__: next(fits))
        of_no_images = np.zeros([10, 0])
        result = untrained.score(run, (of_no_images,) * 2, (np.zeros(10), np.zeros(10)))
        return result, gammas

    return evaluated


@pytest.mark.parametrize(
    "zero, unit, better", [(0.3, 0.6, "unit"), (0.6, 0.3, "zero"), (0.5, 0.5, "zero")]
)
def test_the_better_initialisation_is_the_baseline_and_both_are_reported(
    evaluated, zero, unit, better
):
    result, gammas = evaluated(zero, unit)
    assert gammas == [0, 0, 1, 1]  # Training and evaluation split of each.
    assert result[f"{BASELINE}/zero_gammas/top_1_accuracy"] == zero
    assert result[f"{BASELINE}/unit_gammas/top_1_accuracy"] == unit
    assert result[f"{BASELINE}/top_1_accuracy"] == max(zero, unit)
    assert result[f"{BASELINE}/l2_inverse_strength"] == 0.1
    assert result[f"{BASELINE}/initialization"] == f"{better}_gammas"
    names = measured.accuracy_names(result, contrastive=True)
    want = f"linear evaluation, untrained encoder ({better} gammas)"
    assert names[f"{BASELINE}/"] == want


def test_an_encoder_with_one_initialisation_is_evaluated_once(evaluated):
    result, gammas = evaluated(0.4, encoder="tiny_encoders:sequential")
    assert len(gammas) == 2
    assert result.keys() == {
        f"{BASELINE}/{name}"
        for name in (
            *("top_1_accuracy", "top_1_accuracy_95", "top_5_accuracy", "top_5_accuracy_95"),
            "l2_inverse_strength",
        )
    }
    names = measured.accuracy_names(result, contrastive=True)
    assert names[f"{BASELINE}/"] == "linear evaluation, untrained encoder"


def test_small_images_are_not_read_again_and_give_the_same_features(monkeypatch, photos, tmp_path):
    run = _open(tmp_path / "run", photos)
    network = forward.Forward(run.new_model(), run.strategy, forward.Outputs(pixels=True))
    read = [extraction.extract(run, network, split) for split in ("train", "test")]
    pixels, labels = (tuple(getattr(one, name) for one in read) for name in ("pixels", "labels"))
    assert pixels[0].shape[1] == run.config.image_size**2 * 3

    def scored():
        fitted = []
        monkeypatch.setattr(
            linear_fits, "evaluate", lambda _, __, *found, **___: fitted.append(found[:2])
        )
        untrained.score(run, pixels, labels)
        return fitted

    extract = features.extract
    monkeypatch.setattr(features, "extract", None)
    of_pixels = scored()
    monkeypatch.setattr(features, "extract", extract)
    monkeypatch.setattr(forward, "MAX_PIXEL_SIDE", run.config.image_size - 1)
    of_files = scored()
    assert len(of_pixels) == len(of_files) == 2
    for found, want in zip(of_pixels, of_files):
        for one, other in zip(found, want, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
