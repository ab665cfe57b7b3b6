"""The eval command: evaluates a checkpoint, and writes result.json and a table."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console
from simclr_tf import workers as workers_lib
from simclr_tf.commands import agreement
from simclr_tf.data import labels
from simclr_tf.evaluation import features
from simclr_tf.models import simclr
from simclr_tf.report import evaluation_files, overview
from simclr_tf.runs import checkpoints as checkpoints_lib
from simclr_tf.runs import (
    class_scores,
    compatibility,
    diagnosis,
    directory,
    few_labels,
    initialization,
    opening,
    predictions,
)
from simclr_tf.scoring import extraction, groups, trained
from simclr_tf.scoring import registry as network_registry
from simclr_tf.scoring import scores as scores_lib
from simclr_tf.serving import bundle, forms


def evaluate(
    run: opening.Run,
    model: simclr.SimCLR | None = None,
    *,
    baselines: bool = False,
    workers: workers_lib.Workers | None = None,
) -> dict:
    """Evaluates a trained network or the last checkpoint of a run, and writes result.json.

    Args:
        run: the run.
        model: its trained network; None reads the last checkpoint in the run directory or, if there
            is none, the weights of --checkpoint.
        baselines: evaluates raw pixels and the untrained encoder, too.
        workers: the connection to the other workers; None for a single one.

    Returns:
        The contents of result.json.

    Raises:
        UserError: if the run has neither a checkpoint nor weights of --checkpoint.
    """
    from_weights = model is None
    if model is None:
        network_registry.check(run)
        model = run.new_model()
    checkpoints = checkpoints_lib.Checkpoints(run.model_dir, model, None)
    from_weights &= checkpoints.restore_latest() is None
    step = _load_weights(run, model) if from_weights else int(checkpoints.step)
    agreement.check_arithmetic(workers or workers_lib.Alone(), run)
    agreement.check_images(workers or workers_lib.Alone(), run)
    agreement.check_weights(workers or workers_lib.Alone(), model, step)
    start = time.monotonic()
    scores = _measure(run, model, baselines=baselines)
    result: dict[str, Any] = {"global_step": step, **scores.numbers}
    if not from_weights:
        seconds = float(checkpoints.seconds)
        result["train/seconds"] = round(seconds, 3)
        trained = step * run.config.train_batch_size
        result["train/images_per_second"] = round(trained / seconds, 3) if seconds else 0.0
    result["eval/seconds"] = round(time.monotonic() - start, 3)
    written = directory.write_result(run.model_dir, result)
    for form in forms.ALL:
        folder = os.path.join(run.model_dir, form.folder, str(step))
        bundle.update_metrics(folder, run.model_dir, step)
    if written.keys() == result.keys():  # What earlier files describe was replaced.
        evaluation_files.remove(run.model_dir, step)
        predictions.remove(run.model_dir)
        class_scores.remove(run.model_dir)
    evaluation_files.write(run.model_dir, step, scores.outcomes)
    _write_predictions(run, step, scores)
    _warn_of_training_images(run)
    overview.after_evaluation(
        run, written, kept=written.keys() - result.keys(), outcomes=scores.outcomes
    )
    return written


def _warn_of_training_images(run: opening.Run) -> None:
    """Warns if evaluated images are in the training split, too."""
    data, splits = run.data, run.data.source.splits
    named = [
        {name for name in splits for term in split.split("+") if term.split("[")[0].strip() == name}
        for split in (data.train_split, data.eval_split)
    ]
    if not named[0] & named[1]:
        return  # They have no images in common, and listing those may take long.
    evaluated = data.source.example_names(data.eval_split)
    common = len(set(evaluated) & set(data.source.example_names(data.train_split)))
    if common:
        console.warn(
            f"{common:,} of the {len(evaluated):,} images of {data.eval_split!r} are also in "
            f"the training split {data.train_split!r}; their accuracy says little about new images."
        )


def _write_predictions(run: opening.Run, step: int, scores: scores_lib.Scores) -> None:
    """Writes the prediction for every evaluated image, if there are predictions."""
    if scores.class_scores is None or scores.test is None:
        return
    names = np.array(run.data.source.example_names(run.data.eval_split), object)
    class_names = run.data.source.class_names
    assert class_names is not None
    if run.data.source.several_labels:
        of_images = class_scores.ClassScores(
            class_names,
            names[scores.test.positions],
            scores.test.labels,
            scores.class_scores,
        )
        class_scores.write(run.model_dir, of_images)
        return
    found = predictions.of_scores(
        step,
        names[scores.test.positions],
        scores.test.labels,
        scores.class_scores,
        class_names,
        groups=groups.names_of(run, run.data.eval_split, scores.test),
    )
    predictions.write(run.model_dir, found)


def _load_weights(run: opening.Run, model: simclr.SimCLR) -> int:
    """Loads the weights of --checkpoint, and returns the step that they were trained to."""
    if run.weights is None:
        raise compatibility.nothing_to_evaluate(run.model_dir)
    for line in initialization.start_from(run.weights, model, zero_init_logits_layer=False):
        console.say(line)
    return run.weights.step


def _measure(run: opening.Run, model: simclr.SimCLR, *, baselines: bool) -> scores_lib.Scores:
    """Returns the scores with what they belong to, or why there are none."""
    missing = run.data.why_unlabelled(run.data.train_split)
    missing = missing or run.data.why_unlabelled(run.data.eval_split)
    try:
        scores = trained.score(run, model, baselines=baselines, labelled=missing is None)
    except tf.errors.ResourceExhaustedError as error:
        raise diagnosis.out_of_memory(
            "eval_batch_size", run.config.eval_batch_size, error
        ) from error
    except tf.errors.OpError as error:
        raise diagnosis.find_unreadable_image(run, error) from error
    if missing is not None:
        scores.numbers["eval/skipped"] = missing
    if scores.numbers.keys() != {"eval/skipped"}:
        scores.numbers = {directory.MEASURED_ON: _measured_on(run, model), **scores.numbers}
    return scores


def _measured_on(run: opening.Run, model: simclr.SimCLR) -> dict[str, Any]:
    """Returns the weights and the data that the numbers of an evaluation belong to."""
    config, data = run.config, run.data
    return {
        "weights": features.fingerprint(model)[:16],
        "dataset": config.dataset,
        "data_dir": config.data_dir,
        **({} if config.labels == config_lib.Config.labels else {"labels": config.labels}),
        **({} if config.group is None else {"group": config.group}),
        "train_split": data.train_split,
        "train_examples": extraction.number_of_examples(run, data.train_split),
        **few_labels.described(config),
        "train_labels": labels.fingerprint(data.source, data.train_split),
        "eval_split": data.eval_split,
        "eval_examples": extraction.number_of_examples(run, data.eval_split),
        "eval_labels": labels.fingerprint(data.source, data.eval_split),
    }
