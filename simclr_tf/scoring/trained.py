"""Scores a trained network, with labels if there are any."""

from __future__ import annotations

import dataclasses

import numpy as np

from simclr_tf import console
from simclr_tf.evaluation import features, forward, linear, one_vs_rest, outcome, registry
from simclr_tf.models import simclr
from simclr_tf.runs import few_labels, opening
from simclr_tf.scoring import (
    extraction,
    label_repeats,
    linear_fits,
    network,
    several_labels,
    unlabelled,
    untrained,
)
from simclr_tf.scoring import groups as groups_lib
from simclr_tf.scoring import registry as network_registry
from simclr_tf.scoring import scores as scores_lib

# Evaluations that draw the evaluated images.
_WITH_PICTURES = {"map", "per_class", "retrieval"}


def score(
    run: opening.Run, model: simclr.SimCLR, *, baselines: bool, labelled: bool
) -> scores_lib.Scores:
    """Scores a network on the evaluation split.

    The classifier whose predictions evaluations read is the trained one of a fine-tuned or
    supervised network, and the logistic regression on the features of a pretrained one.

    Args:
        run: the run.
        model: its network.
        baselines: evaluates raw pixels and the untrained encoder, too; see `untrained.score`.
        labelled: whether both splits have labels; without them only `label_free` is measured.
    """
    run = dataclasses.replace(run, data=few_labels.with_all_draws(run.data))
    config, scores = run.config, scores_lib.Scores()
    if labelled:
        _score_with_labels(run, model, scores, baselines=baselines)
    if "label_free" in config.evaluation_names if labelled else config.evaluates_without_labels:
        found = unlabelled.score(run, model)
        if found is not None:
            scores.outcomes["label_free"] = found
    for found in scores.outcomes.values():
        scores.numbers.update(found.numbers)
    return scores


def _score_with_labels(
    run: opening.Run, model: simclr.SimCLR, scores: scores_lib.Scores, *, baselines: bool
) -> None:
    draws_pictures = not _WITH_PICTURES.isdisjoint(run.config.evaluation_names)
    seed = run.config.seed if draws_pictures else None
    outputs = forward.Outputs(pixels=baselines, thumbnail_seed=seed, shown=run.config.show_channels)
    network = forward.Forward(model, run.strategy, outputs)
    test = extraction.extract(run, network, run.data.eval_split)
    extraction.say_left_out(run, run.data.eval_split, len(test.labels))
    extraction.warn_of_missing_classes(run, test.labels)
    scores.test = test
    scores.numbers["eval/examples"] = len(test.labels)
    test_groups = groups_lib.of(run, run.data.eval_split, test)
    if test_groups is not None:
        scores.numbers["eval/groups"] = len(np.unique(test_groups))
    if test.logits is not None:
        scores.numbers.update(
            scores_lib.accuracies(
                "eval/label_", test.logits, test.labels, test_groups, seed=run.config.seed
            )
        )
        if not run.config.contrastive:
            scores.class_scores = test.logits
    if run.data.source.several_labels:
        several_labels.say_left_out(run, scores)
    if not run.config.linear_eval:
        return
    if draws_pictures:  # Of evaluated images only.
        network = forward.Forward(model, run.strategy, forward.Outputs(pixels=baselines))
    extracted = extraction.extract(run, network, run.data.train_split)
    extraction.say_left_out(run, run.data.train_split, len(extracted.labels))
    train = label_repeats.of_draw(run, extracted, 0)
    labels = (train.labels, test.labels)
    groups = groups_lib.of_both(run, train, test)
    fit, linear_scores = linear_fits.evaluate(
        run, "linear_eval", train.features, test.features, labels, scores.numbers, groups=groups
    )
    if run.data.draws:
        found = label_repeats.repeat(run, extracted, test, scores.numbers)
        scores.outcomes["few_labels"] = found
    temperature = None
    if scores.class_scores is None:
        scores.class_scores = linear_scores
        temperature = fit.temperature if isinstance(fit, linear.Fit) else None
    if train.pixels is not None and test.pixels is not None:
        pixels = (train.pixels, test.pixels)
        linear_fits.evaluate(
            run, "baseline/raw_pixels", *pixels, labels, scores.numbers, groups=groups
        )
        scores.numbers.update(untrained.score(run, pixels, labels, groups))
    _run_evaluations(run, model, scores, train, test, fit, temperature, test_groups)


def _run_evaluations(
    run: opening.Run,
    model: simclr.SimCLR,
    scores: scores_lib.Scores,
    train: features.Extracted,
    test: features.Extracted,
    fit: linear.Fit | one_vs_rest.Fit,
    temperature: float | None,
    test_groups: np.ndarray | None,
) -> None:
    """Runs the chosen evaluations that read labels, and adds what they find to `scores`."""
    assert run.data.source.class_names is not None and scores.class_scores is not None
    names = None
    if test.thumbnails is not None:
        all_names = run.data.source.example_names(run.data.eval_split)
        names = [all_names[position] for position in test.positions]
    inputs = outcome.Inputs(
        train_features=train.features,
        train_labels=train.labels,
        test_features=test.features,
        test_labels=test.labels,
        test_scores=scores.class_scores,
        temperature=temperature,
        class_names=run.data.source.class_names,
        seed=run.config.seed,
        thumbnails=test.thumbnails,
        test_names=names,
        test_groups=test_groups,
    )
    if isinstance(fit, one_vs_rest.Fit):
        several_labels.add(run, scores, inputs)
        return
    context = network.Context(run, model, train, test, fit, inputs)
    for name in run.config.evaluation_names:
        if name in registry.EVALUATIONS:
            with console.working(f"Evaluating {name}"):
                scores.outcomes[name] = registry.EVALUATIONS[name](inputs)
        elif name in network_registry.EVALUATIONS:
            found = network_registry.run(name, context)
            if found is not None:
                scores.outcomes[name] = found
