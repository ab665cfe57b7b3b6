"""The linear evaluation of the projection head's output, beside that of the features."""

from __future__ import annotations

import json
import types
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats
import tiny_runs

from simclr_tf.evaluation import features, linear, outcome
from simclr_tf.scoring import extraction, groups, linear_fits, network, projection


def extracted(rows, labels, projections):
    return features.Extracted(
        features=rows.astype(np.float32),
        logits=None,
        labels=labels,
        positions=np.arange(len(rows)),
        pixels=None,
        projection=projections.astype(np.float32),
    )


@pytest.fixture
def context(monkeypatch):
    """A run whose features show the classes clearly, and whose projections show them faintly."""
    rng = np.random.default_rng(0)
    labels = {"train": rng.integers(0, 3, 150), "test": rng.integers(0, 3, 60)}
    splits = {}
    for split, of_split in labels.items():
        clear = 3 * np.eye(3)[of_split] + rng.normal(size=(len(of_split), 3))
        faint = 0.7 * np.eye(3)[of_split] + rng.normal(size=(len(of_split), 3))
        splits[split] = extracted(clear, of_split, faint)
    monkeypatch.setattr(extraction, "extract", lambda run, network, split, **__: splits[split])
    monkeypatch.setattr(groups, "of_both", lambda *_: groups.NONE)
    run: Any = types.SimpleNamespace(
        config=types.SimpleNamespace(seed=0),
        strategy=None,
        architecture=types.SimpleNamespace(proj_head_mode="nonlinear"),
        data=types.SimpleNamespace(
            train_split="train",
            eval_split="test",
            draws=(),
            source=types.SimpleNamespace(class_names=("a", "b", "c")),
        ),
    )
    train, test = splits["train"], splits["test"]
    fit = linear_fits.fit_classifier(run, "the features", train.features, train.labels)
    inputs = outcome.Inputs(
        *(train.features, train.labels, test.features, test.labels),
        test_scores=fit.scores(test.features),
        temperature=None,
        class_names=("a", "b", "c"),
        seed=0,
    )
    model = cast(Any, types.SimpleNamespace(needs_autograph=False))
    return network.Context(run, model, train, test, fit, inputs)


def test_the_accuracy_is_that_of_a_classifier_of_the_projections(context):
    found = projection.evaluate(context)
    train, test = context.train, context.test
    fit = linear.fit(train.projection, train.labels, num_classes=3, seed=0)
    right = fit.scores(test.projection).argmax(1) == test.labels
    assert found.numbers["projection/top_1_accuracy"] == pytest.approx(right.mean())
    of_features = context.fit.scores(test.features).argmax(1) == test.labels
    assert of_features.mean() > right.mean() + 0.2
    difference = found.numbers["projection/features_minus_projection"]
    assert difference == pytest.approx(of_features.mean() - right.mean())
    low, high = found.numbers["projection/features_minus_projection_95"]
    assert low < difference < high
    only = np.sum(of_features & ~right), np.sum(right & ~of_features)
    want = stats.binomtest(int(only[0]), int(sum(only))).pvalue
    assert found.numbers["projection/p"] == pytest.approx(want)


def test_without_a_head_there_is_nothing_to_evaluate(context, capsys):
    context.run.architecture.proj_head_mode = "none"
    assert projection.evaluate(context).numbers == {}
    assert "the network has no projection head" in capsys.readouterr().out


def test_a_run_evaluates_its_projections(pretrained, tmp_path_factory):
    photos = tiny_runs.photos(tmp_path_factory)
    assert tiny_runs.main("eval", pretrained, photos, evaluations="projection") == 0
    result = json.loads((pretrained / "result.json").read_text())
    difference = result["linear_eval/top_1_accuracy"] - result["projection/top_1_accuracy"]
    assert result["projection/features_minus_projection"] == pytest.approx(difference)
