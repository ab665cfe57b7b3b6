"""The eval command: evaluates a checkpoint, and writes result.json and a table."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console
from simclr_tf.data import layout
from simclr_tf.evaluation import features, linear
from simclr_tf.models import simclr
from simclr_tf.report import overview
from simclr_tf.runs import checkpoints as checkpoints_lib
from simclr_tf.runs import compatibility, diagnosis, directory, initialization, opening

# What each linear evaluation reads, by its name in result.json.
_INPUTS = {
    "linear_eval": "the features",
    "baseline/raw_pixels": "raw pixels",
    "baseline/random_encoder": "the features of the untrained encoder",
}


def evaluate(
    run: opening.Run, model: simclr.SimCLR | None = None, *, baselines: bool = False
) -> dict:
    """Evaluates a trained network or the last checkpoint of a run, and writes result.json.

    Args:
        run: the run.
        model: its trained network; None reads the last checkpoint in the run directory or, if there
            is none, the weights of --checkpoint.
        baselines: evaluates raw pixels and the untrained encoder, too.

    Returns:
        The contents of result.json.

    Raises:
        UserError: if the run has neither a checkpoint nor weights of --checkpoint.
    """
    from_weights = model is None
    if model is None:
        model = run.new_model()
    checkpoints = checkpoints_lib.Checkpoints(run.model_dir, model, None)
    from_weights &= checkpoints.restore_latest() is None
    step = _load_weights(run, model) if from_weights else int(checkpoints.step)
    start = time.monotonic()
    result: dict[str, Any] = {"global_step": step, **_measure(run, model, baselines=baselines)}
    if not from_weights:
        seconds = float(checkpoints.seconds)
        result["train/seconds"] = round(seconds, 3)
        trained = step * run.config.train_batch_size
        result["train/images_per_second"] = round(trained / seconds, 3) if seconds else 0.0
    result["eval/seconds"] = round(time.monotonic() - start, 3)
    written = directory.write_result(run.model_dir, result)
    overview.after_evaluation(run, written, kept=written.keys() - result.keys())
    return written


def _load_weights(run: opening.Run, model: simclr.SimCLR) -> int:
    """Loads the weights of --checkpoint, and returns the step that they were trained to."""
    if run.weights is None:
        raise compatibility.nothing_to_evaluate(run.model_dir)
    for line in initialization.start_from(run.weights, model, zero_init_logits_layer=False):
        console.say(line)
    return run.weights.step


def _measure(run: opening.Run, model: simclr.SimCLR, *, baselines: bool) -> dict[str, Any]:
    """Returns the scores with what they belong to, or why there are none."""
    missing = run.data.why_unlabelled(run.data.train_split)
    missing = missing or run.data.why_unlabelled(run.data.eval_split)
    if missing is not None:
        return {"eval/skipped": missing}
    try:
        scores = _scores(run, model, baselines=baselines)
    except tf.errors.OpError as error:
        raise diagnosis.find_unreadable_image(run, error) from error
    return {directory.MEASURED_ON: _measured_on(run, model), **scores}


def _measured_on(run: opening.Run, model: simclr.SimCLR) -> dict[str, Any]:
    """Returns the weights and the data that the numbers of an evaluation belong to."""
    config, data = run.config, run.data
    return {
        "weights": features.fingerprint(model)[:16],
        "dataset": config.dataset,
        "data_dir": config.data_dir,
        **({} if config.labels == config_lib.Config.labels else {"labels": config.labels}),
        "train_split": data.train_split,
        "train_examples": _number_of_examples(run, data.train_split),
        "eval_split": data.eval_split,
        "eval_examples": _number_of_examples(run, data.eval_split),
    }


def _number_of_examples(run: opening.Run, split: str) -> int:
    """Returns how many examples of a split an evaluation reads."""
    config, count = run.config, run.data.source.num_examples(split)
    if split == run.data.train_split:
        return min(count, config.linear_eval_examples)
    return min(count, config.eval_steps * config.eval_batch_size or count)


def _scores(run: opening.Run, model: simclr.SimCLR, *, baselines: bool) -> dict[str, Any]:
    config = run.config
    test = _extract(run, model, run.data.eval_split, with_pixels=baselines)
    _warn_of_missing_classes(run, test.labels)
    result: dict[str, Any] = {"eval/examples": len(test.labels)}
    if test.logits is not None:
        for k in (1, 5):
            result[f"eval/label_top_{k}_accuracy"] = linear.top_k_accuracy(
                test.logits, test.labels, k
            )
    if not config.linear_eval:
        return result
    train = _extract(run, model, run.data.train_split, with_pixels=baselines)
    labels, seed = (train.labels, test.labels), config.seed
    result.update(_probe("linear_eval", train.features, test.features, labels, seed))
    if train.pixels is not None and test.pixels is not None:
        result.update(_probe("baseline/raw_pixels", train.pixels, test.pixels, labels, seed))
        untrained = run.new_model()
        label = "features of the untrained encoder"
        train_u = _extract(run, untrained, run.data.train_split, what=label)
        test_u = _extract(run, untrained, run.data.eval_split, what=label)
        result.update(
            _probe("baseline/random_encoder", train_u.features, test_u.features, labels, seed)
        )
    return result


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
    what: str = "features",
) -> features.Extracted:
    config, count = run.config, run.data.source.num_examples(split)
    limit = _number_of_examples(run, split)
    if split == run.data.train_split and limit < count:
        console.say(
            f"The linear evaluation learns from the first {limit:,} of {count:,} images "
            "(--linear_eval_examples)."
        )
    return features.extract(
        model,
        run.data.source,
        split,
        batch_size=config.eval_batch_size,
        limit=limit,
        with_pixels=with_pixels,
        what=what,
    )


def _probe(
    name: str,
    train: np.ndarray,
    test: np.ndarray,
    labels: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> dict[str, Any]:
    """Evaluates features (n, f) and (m, f), given the labels of both; `name` is that in the result.

    Returns:
        The accuracies and the chosen strength, by their names in result.json.
    """
    what = f"the linear classifier on {_INPUTS[name]}"
    with console.working(f"Fitting {what}"):
        score = linear.linear_evaluation(train, labels[0], test, labels[1], seed=seed)
    if not score.converged:
        console.warn(f"{what.capitalize()} reached its iteration limit.")
    return {
        f"{name}/top_1_accuracy": score.top_1_accuracy,
        f"{name}/top_5_accuracy": score.top_5_accuracy,
        f"{name}/l2_inverse_strength": score.strength,
    }
