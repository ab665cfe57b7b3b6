"""The linear evaluation of a network on a data set (SimCLR, appendix B.8.1)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from simclr_tf.evaluation import features, forward, held_out, linear, one_vs_rest
from simclr_tf.models import simclr
from simclr_tf.runs import class_scores, opening, predictions
from simclr_tf.scoring import extraction, linear_fits
from simclr_tf.transfer import cells, networks, several_labels, targets


class _Candidate(NamedTuple):
    """A fitted classifier, with the features that it is evaluated on.

    Attributes:
        initialization: the initial weights of an untrained network; None for a trained one.
        fit: the classifier, or one for each class of images that may show several.
        held_out: its score on the images to choose on, by the metric of the data set.
        test: the images to evaluate on. Their labels are read when the candidate is chosen.
    """

    initialization: str | None
    fit: linear.Fit | one_vs_rest.Fit
    held_out: float
    test: features.Extracted


def inputs_of(network: networks.Network, target: targets.Target) -> dict[str, Any]:
    """Returns what the linear evaluation of a network on a data set depends on."""
    config, data = target.config, target.data
    return {
        "checkpoint": network.origin,
        "image_size": network.image_size,
        "dataset": config.dataset,
        "data_dir": config.data_dir,
        "train_split": target.all_split,
        "validation_split": target.validation_split,
        "eval_split": data.eval_split,
        "eval_images": config.eval_steps * config.eval_batch_size,
        "linear_eval_examples": config.linear_eval_examples,
        "seed": config.seed,
        "mixed_precision": config.mixed_precision,
    }


def evaluate(
    network: networks.Network,
    target: targets.Target,
    strategy: tf.distribute.Strategy,
    folder: str,
) -> None:
    """Fits a linear classifier to the features of a network, and stores its predictions.

    The strength of its penalty is chosen on images to choose on, then it is fitted to all training
    images. Images that may have several labels have a binary classifier for each class. An
    untrained network has two initialisations, as in the baseline of an evaluation; the one that is
    better on the images to choose on is taken.

    Args:
        network: the network.
        target: the data set.
        strategy: the strategy that runs on the replicas.
        folder: an existing folder, for the files of the cell.
    """
    run = opening.exclude_unreadable(network.run_on(target, strategy, folder))
    model = run.new_model()
    network.load(model)
    trained = network.weights is not None or not model.has_zero_gammas
    candidates = [_candidate(run, model, target, None if trained else "zero gammas")]
    if not trained:
        model.set_unit_gammas()
        candidates.append(_candidate(run, model, target, "unit gammas"))
    # On a tie the first one, which is the initialisation of training.
    chosen = max(candidates, key=lambda one: np.nan_to_num(one.held_out))
    _write(run, chosen, folder)
    several = target.data.source.several_labels
    scored = "mean_average_precision_11" if several else "accuracy"
    numbers = {
        "l2_inverse_strength": chosen.fit.strength,
        f"{scored}_to_choose_on": chosen.held_out,
        "converged": chosen.fit.converged,
        "initialization": chosen.initialization,
    }
    cells.finish(folder, inputs_of(network, target), numbers)


def _candidate(
    run: opening.Run, model: simclr.SimCLR, target: targets.Target, initialization: str | None
) -> _Candidate:
    data, frozen = run.data, forward.Forward(model, run.strategy)
    learned = [extraction.extract(run, frozen, data.train_split)]
    if target.validation_split is not None:
        learned.append(extraction.extract(run, frozen, target.validation_split))
    test = extraction.extract(run, frozen, data.eval_split)
    joined = np.concatenate([one.features for one in learned])
    labels = np.concatenate([one.labels for one in learned])
    split = None
    if target.validation_split is not None:
        split = held_out.Split(*np.split(np.arange(len(labels)), [len(learned[0].labels)]))
    what = f"the linear classifier on {target.name}"
    if data.source.several_labels:
        assert data.source.class_names is not None
        several_labels.check(target.name, data.source.class_names, labels, test.labels)
        of_each = linear_fits.fit_each_class(run, what, joined, labels, split=split)
        return _Candidate(initialization, of_each, of_each.held_out_precision, test)
    splits = None if split is None else [split]
    fit = linear_fits.fit_classifier(run, what, joined, labels, splits=splits)
    return _Candidate(initialization, fit, fit.held_out_accuracy, test)


def _write(run: opening.Run, chosen: _Candidate, folder: str) -> None:
    """Writes the predictions of the chosen classifier for the evaluation split."""
    class_names, test = run.data.source.class_names, chosen.test
    assert class_names is not None
    names = np.array(run.data.source.example_names(run.data.eval_split), object)
    scores = chosen.fit.scores(test.features)
    names = names[test.positions]
    if run.data.source.several_labels:
        found = class_scores.ClassScores(class_names, names, test.labels, scores)
        class_scores.write(folder, found)
        return
    step = 0 if run.weights is None else run.weights.step
    predictions.write(
        folder, predictions.of_scores(step, list(names), test.labels, scores, class_names)
    )
