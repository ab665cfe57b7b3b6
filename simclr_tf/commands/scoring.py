"""Scores a network: extracts features once, fits classifiers to them, and runs evaluations."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from simclr_tf import console
from simclr_tf.data import layout
from simclr_tf.evaluation import features, intervals, label_free, linear, outcome, registry
from simclr_tf.models import simclr
from simclr_tf.runs import builders, opening

# What each linear evaluation reads, by its name in result.json.
_INPUTS = {
    "linear_eval": "the features",
    "baseline/raw_pixels": "raw pixels",
    "baseline/random_encoder": "the features of the untrained encoder",
    "baseline/random_encoder/zero_gammas": "the features of the untrained encoder",
    "baseline/random_encoder/unit_gammas": "the features of the untrained encoder with unit gammas",
}
_FEATURES = "features"
# Images and views of each that evaluations without labels draw. The paper of LiDAR: 50 views.
_LABEL_FREE_IMAGES, _LABEL_FREE_VIEWS = 1000, 10


@dataclasses.dataclass
class Scores:
    """What was measured.

    Attributes:
        numbers: for result.json, by name.
        outcomes: name of an evaluation -> what it found.
        test: what was extracted from the evaluated images; None if they have no labels.
        class_scores: (m, c) unnormalised log probabilities of the classifier that evaluations
            read; None without one.
    """

    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    outcomes: dict[str, outcome.Outcome] = dataclasses.field(default_factory=dict)
    test: features.Extracted | None = None
    class_scores: np.ndarray | None = None


def number_of_examples(run: opening.Run, split: str) -> int:
    """Returns how many examples of a split an evaluation reads, if all of them have labels."""
    config, count = run.config, run.data.source.num_examples(split)
    if split == run.data.train_split:
        return min(count, config.linear_eval_examples)
    return min(count, config.eval_steps * config.eval_batch_size or count)


def score(run: opening.Run, model: simclr.SimCLR, *, baselines: bool, labelled: bool) -> Scores:
    """Scores a network on the evaluation split.

    The classifier whose predictions evaluations read is the trained one of a fine-tuned or
    supervised network, and the logistic regression on the features of a pretrained one.

    Args:
        run: the run.
        model: its network.
        baselines: evaluates raw pixels and the untrained encoder, too; see `_untrained_scores`.
        labelled: whether both splits have labels; without them only `label_free` is measured.
    """
    config, scores = run.config, Scores()
    if labelled:
        _score_with_labels(run, model, scores, baselines=baselines)
    if "label_free" in config.evaluation_names if labelled else config.evaluates_without_labels:
        _score_without_labels(run, model, scores)
    for found in scores.outcomes.values():
        scores.numbers.update(found.numbers)
    return scores


def _score_with_labels(
    run: opening.Run,
    model: simclr.SimCLR,
    scores: Scores,
    *,
    baselines: bool,
) -> None:
    config = run.config
    test = _extract(run, model, run.data.eval_split, with_pixels=baselines)
    _say_left_out(run, run.data.eval_split, len(test.labels))
    _warn_of_missing_classes(run, test.labels)
    scores.test = test
    scores.numbers["eval/examples"] = len(test.labels)
    if test.logits is not None:
        scores.numbers.update(_accuracies("eval/label_", test.logits, test.labels))
        if not config.contrastive:
            scores.class_scores = test.logits
    if not config.linear_eval:
        return
    train = _extract(run, model, run.data.train_split, with_pixels=baselines)
    _say_left_out(run, run.data.train_split, len(train.labels))
    labels = (train.labels, test.labels)
    fit = _probe(run, "linear_eval", train.features, test.features, labels, scores.numbers)
    temperature = None
    if scores.class_scores is None:
        scores.class_scores, temperature = fit.scores, fit.temperature
    if train.pixels is not None and test.pixels is not None:
        pixels = (train.pixels, test.pixels)
        _probe(run, "baseline/raw_pixels", *pixels, labels, scores.numbers)
        scores.numbers.update(_untrained_scores(run, labels))
    assert run.data.source.class_names is not None
    inputs = outcome.Inputs(
        train_features=train.features,
        train_labels=train.labels,
        test_features=test.features,
        test_labels=test.labels,
        test_scores=scores.class_scores,
        temperature=temperature,
        class_names=run.data.source.class_names,
        seed=config.seed,
    )
    for name in config.evaluation_names:
        if name in registry.EVALUATIONS:
            with console.working(f"Evaluating {name}"):
                scores.outcomes[name] = registry.EVALUATIONS[name](inputs)


def _score_without_labels(run: opening.Run, model: simclr.SimCLR, scores: Scores) -> None:
    """Measures what needs no labels, on random views of images of the evaluation split."""
    views = features.extract_views(
        model,
        run.data.source,
        run.data.eval_split,
        builders.policy_of(run.config),
        images=_LABEL_FREE_IMAGES,
        num_views=_LABEL_FREE_VIEWS,
        seed=run.config.seed,
        strategy=run.strategy,
    )
    if views is None:
        console.warn(f"{run.data.eval_split} has too few images for evaluations without labels.")
        return
    scores.outcomes["label_free"] = label_free.evaluate(views)


def _untrained_scores(run: opening.Run, labels: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Evaluates the untrained encoder, with the better of two initialisations as the baseline.

    A ResNet whose residual branches end with a gamma of zero, as training initialises it, is
    initially little more than its stem. With unit gammas it may be a stronger baseline or a weaker
    one, so both are evaluated. The choice reads the labels of the evaluation split, which can only
    favour the baseline, and never the trained encoder.

    Args:
        run: the run.
        labels: those of the training and of the evaluation split.

    Returns:
        The scores as "baseline/random_encoder/...". If there are two initialisations, the better
        one has these names, "baseline/random_encoder/initialization" names it, and both have names
        of their own, "baseline/random_encoder/zero_gammas/..." and ".../unit_gammas/...".
    """
    baseline, model = "baseline/random_encoder", run.new_model()

    def score_of(name: str, what: str) -> dict[str, Any]:
        train, test = (
            _extract(run, model, split, what=what)
            for split in (run.data.train_split, run.data.eval_split)
        )
        found: dict[str, Any] = {}
        _probe(run, name, train.features, test.features, labels, found)
        return found

    if not model.has_zero_gammas:
        return score_of(baseline, "features of the untrained encoder")
    result = score_of(f"{baseline}/zero_gammas", "features of the untrained encoder")
    model.set_unit_gammas()
    result |= score_of(f"{baseline}/unit_gammas", "features with unit gammas")
    # On a tie it is the initialisation of training, which comes first.
    names = ("zero_gammas", "unit_gammas")
    best = max(names, key=lambda name: result[f"{baseline}/{name}/top_1_accuracy"])
    prefix = f"{baseline}/{best}/"
    chosen = {
        f"{baseline}/{name.removeprefix(prefix)}": value
        for name, value in result.items()
        if name.startswith(prefix)
    }
    return {**chosen, f"{baseline}/initialization": best, **result}


def _say_left_out(run: opening.Run, split: str, used: int) -> None:
    """Reports that images of a split have no label, if fewer were used than requested."""
    if used < number_of_examples(run, split):
        console.say(
            f"Evaluated are the {used:,} of {run.data.source.num_examples(split):,} images of "
            f"{split!r} that have labels."
        )


def _warn_of_missing_classes(run: opening.Run, labels: np.ndarray) -> None:
    """Warns of classes that the evaluated images, whose labels (n,) are given, do not have."""
    names = run.data.source.class_names
    assert names is not None
    present = [names[label] for label in np.unique(labels) if label >= 0]
    missing = layout.missing_classes(run.data.eval_split, present, names, what="evaluated images")
    if missing:
        console.warn(f"{missing} The accuracies are of the other classes only.")


def _extract(
    run: opening.Run,
    model: simclr.SimCLR,
    split: str,
    *,
    with_pixels: bool = False,
    what: str = _FEATURES,
) -> features.Extracted:
    config, count = run.config, run.data.source.num_examples(split)
    limit = number_of_examples(run, split)
    if split == run.data.train_split and limit < count and what == _FEATURES:
        console.say(
            f"The linear evaluation learns from the first {limit:,} of {count:,} images "
            "(--linear_eval_examples)."
        )
    return features.extract(
        model,
        run.data.source,
        split,
        batch_size=config.eval_batch_size,
        strategy=run.strategy,
        limit=limit,
        labelled_only=True,
        with_pixels=with_pixels,
        what=what,
    )


def _probe(
    run: opening.Run,
    name: str,
    train: np.ndarray,
    test: np.ndarray,
    labels: tuple[np.ndarray, np.ndarray],
    numbers: dict[str, Any],
) -> linear.Fit:
    """Evaluates features (n, f) and (m, f) linearly, given the labels of both.

    Args:
        run: the run.
        name: the name in result.json, under which accuracies and strength are added to `numbers`.
        train: the features to fit.
        test: the features to evaluate on.
        labels: those of both.
        numbers: the numbers so far.
    """
    what = f"the linear classifier on {_INPUTS[name]}"
    assert run.data.source.class_names is not None
    with console.working(f"Fitting {what}"):
        fit = linear.fit(
            train,
            labels[0],
            test,
            num_classes=len(run.data.source.class_names),
            seed=run.config.seed,
        )
    if not fit.converged:
        console.warn(f"{what.capitalize()} reached its iteration limit.")
    numbers.update(_accuracies(f"{name}/", fit.scores, labels[1]))
    numbers[f"{name}/l2_inverse_strength"] = fit.strength
    return fit


def _accuracies(prefix: str, scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Returns top-1 and top-5 accuracy with their intervals, by their names in result.json."""
    numbers: dict[str, Any] = {}
    for k in (1, 5):
        found = intervals.accuracy(linear.top_k_hits(scores, labels, k))
        numbers[f"{prefix}top_{k}_accuracy"] = found.value
        numbers[f"{prefix}top_{k}_accuracy_95"] = [found.low, found.high]
    return numbers
