"""The tables before training and after evaluation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, keras_api, text
from simclr_tf.evaluation import intervals, outcome
from simclr_tf.runs import best, builders, measured
from simclr_tf.training import memory, objectives, resizing

if TYPE_CHECKING:
    from simclr_tf.models import simclr
    from simclr_tf.runs import opening
    from simclr_tf.training import schedules

# Evaluations whose intervals are over images, whatever groups they are of.
_SHOWN_RANGES = 4
_OVER_IMAGES = ("probes", "label_free", "robustness", "shifts", "ood")


def before_training(
    run: opening.Run,
    plan: schedules.Plan,
    model: simclr.SimCLR,
    origin: list[str],
    estimate: memory.Estimate,
    *,
    kept: str | None = None,
) -> None:
    """Prints the plan of a training run, from its data to its initial weights.

    Args:
        run: the run.
        plan: its steps.
        model: its network.
        origin: where its initial weights come from.
        estimate: the memory of a step.
        kept: how the training images are kept in memory; None if they are not.
    """
    config, source, replicas = run.config, run.data.source, run.strategy.num_replicas_in_sync
    batch = plan.batch_size
    rows = {
        "data set": f"{source.name}: {_splits(run)}",
        "classes": _classes(source.class_names, several=source.several_labels),
        "image size": _image_size(config, plan),
        **_pixels(run),
        **_standardized(run),
        "encoder": _encoder(run, model),
        "parameters": f"{_count(model.encoder):,} encoder, {_count(model):,} in all",
        "batch": _batch(run, batch, replicas),
        **({} if kept is None else {"images": kept}),
        **_validation(run, plan),
    }
    if config.contrastive:
        rows["contrast"] = _contrast(config)
    rows["steps"] = (
        f"{plan.total_steps:,} ({plan.total_steps * batch / plan.num_examples:.3g} epochs), "
        f"{plan.warmup_steps:,} of them warm-up"
    )
    rows["optimizer"] = f"{config.optimizer}, peak rate {plan.peak_rate:.4g}, {_decay(config)}"
    rows["arithmetic"] = _arithmetic(run)
    rows["software"] = f"TensorFlow {tf.__version__}, Keras {keras_api.version()}"
    free = memory.free_bytes(run.strategy)
    rows["memory"] = _memory(estimate, batch // replicas, config.accum_chunks, free)
    rows["start"] = "\n".join(origin)
    rows["run directory"] = run.model_dir
    console.facts(kind_of_training(config), rows)
    for note in source.notes:
        console.say(note)
    if free is not None:
        suggestion = memory.suggestion(estimate, batch // replicas, config.accum_chunks, free)
        if suggestion:
            console.warn(suggestion)


def _batch(run: opening.Run, images: int, replicas: int) -> str:
    """Describes a batch: its images, their replicas and chunks, and who chose their number."""
    summary = f"{images} images over {text.count(replicas, 'replica')} ({images // replicas} each)"
    if run.config.accum_chunks > 1:
        summary += f", in {run.config.accum_chunks} chunks one after another"
    if run.batch_was_fitted:
        summary += "; chosen to suit the images and the machine, --train_batch_size"
    return summary


def _validation(run: opening.Run, plan: schedules.Plan) -> dict[str, str]:
    """Returns a row on the images that validate during training, if there are any."""
    split, epochs = run.data.train_split, run.config.eval_epochs
    left_out = run.data.source.num_examples(split) - plan.num_examples
    if not left_out:
        return {}
    every = "epoch" if epochs == 1 else f"{epochs} epochs"
    return {
        "validation": f"{left_out:,} of the images of {split}, left out of training; every {every} "
        "(--eval_epochs)"
    }


def _image_size(config: config_lib.Config, plan: schedules.Plan) -> str:
    """Returns the size of the images, or the sizes of the views one after another."""
    *first, last = resizing.phases(config, plan.total_steps)
    until = [f"{phase.size} px up to step {phase.end:,}" for phase in first]
    return ", ".join([*until, f"{'then ' if until else ''}{last.size} px"])


def _pixels(run: opening.Run) -> dict[str, str]:
    """Returns rows on channels, scale and views of other images than 8-bit RGB."""
    pixels = run.architecture.pixels
    if pixels.is_rgb:
        return {}
    policy = builders.policy_of(run.config, pixels)
    return {
        "channels": pixels.described(),
        "scale": f"to [0, 1] by {pixels.scale}: {pixels.ranges(_SHOWN_RANGES)}",
        "views": ", ".join(policy.ops) or "none",
    }


def _standardized(run: opening.Run) -> dict[str, str]:
    """Returns a row on the mean and the standard deviation that the network divides by."""
    pixels = run.architecture.pixels
    if pixels.mean is None or pixels.deviation is None:
        return {}
    pairs = [f"{mean:.3g} ({std:.3g})" for mean, std in zip(pixels.mean, pixels.deviation)]
    listed = text.shortened(pairs, most=_SHOWN_RANGES)
    return {"standardized": f"by the mean (and deviation) of each channel: {listed}"}


def kind_of_training(config: config_lib.Config) -> str:
    """Returns what kind of training this is."""
    if config.contrastive:
        return "Pretraining"
    if config.resolved_objective == "distill":
        return "Distillation"
    return "Supervised training" if config.checkpoint is None else "Fine-tuning"


def _memory(estimate: memory.Estimate, images: int, chunks: int, free: int | None) -> str:
    step = f"about {text.gib(estimate.step(images, chunks=chunks))} per step and replica"
    return f"{step}, {'free memory unknown' if free is None else f'of {text.gib(free)} free'}"


def _decay(config: config_lib.Config) -> str:
    """Describes how the learning rate falls after warm-up."""
    decay = config.decay
    if decay.interval is not None:
        return f"then times {decay.factor:g} every {decay.interval:g} epochs"
    if decay.epochs:
        epochs = ", ".join(f"{epoch:g}" for epoch in decay.epochs)
        return f"then times {decay.factor:g} at epoch {epochs}"
    return "then a cosine to 0"


def _contrast(config: config_lib.Config) -> str:
    """Describes the contrastive objective, with its loss at chance level."""
    objective, views = config.resolved_objective, config.num_views
    summary = objective if views == 2 else f"{objective} of {views} views"
    if config.decoupled:
        summary = f"decoupled {summary}"
    if objective in config_lib.SUPERVISED_CONTRAST:
        others = views * config.train_batch_size - 1
        summary += f", {others} other views per anchor, positives by label"
    else:
        summary += f", {objectives.num_negatives(config)} negatives per anchor"
    if objective == "margin_triplet":
        return f"{summary}, margin {config.margin:g}"
    summary += f", temperature {config.temperature:g}"
    chance = objectives.chance_loss(config)
    return summary if chance is None else f"{summary}, chance loss {chance:.3f}"


def _splits(run: opening.Run) -> str:
    train, test = run.data.train_split, run.data.eval_split
    counts = [f"{run.data.source.num_examples(train):,} images in {train}"]
    if test.split("[")[0].split("+")[0] in run.data.source.splits:
        counts.append(f"{run.data.source.num_examples(test):,} in {test}")
    return ", ".join(counts)


def _classes(names: tuple[str, ...] | None, *, several: bool) -> str:
    if names is None:
        return "unlabelled, so there is no linear head"
    how = ", of which an image may show several" if several else ""
    return f"{len(names)}{how}: {text.shortened(names, most=12)}"


def _encoder(run: opening.Run, model: simclr.SimCLR) -> str:
    shape = run.architecture
    if run.config.encoder != "resnet":
        return f"{shape.encoder_name}, {model.encoder.num_features} features"
    stem = "3x3, no max-pool" if shape.stem == "small" else "7x7 stride 2, max-pool"
    if shape.sk_ratio and shape.stem == "imagenet":
        stem = "three 3x3, max-pool"
    extras = "".join(
        f", {what} {ratio:g}"
        for what, ratio in (
            ("selective kernels", shape.sk_ratio),
            ("squeeze-excitation", shape.se_ratio),
        )
        if ratio
    )
    how = "chosen by image size" if run.config.stem == "auto" else "given explicitly"
    return (
        f"{shape.encoder_name}, width {shape.width_multiplier}{extras}, "
        f"{model.encoder.num_features} features; {shape.stem} stem ({stem}; {how}, --stem)"
    )


def _arithmetic(run: opening.Run) -> str:
    strategy = type(run.strategy).__name__.replace("V1", "").replace("V2", "")
    return f"{run.arithmetic}, {strategy}{', XLA' if run.config.jit_compile else ''}"


def _count(model: Any) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def after_evaluation(
    run: opening.Run,
    result: dict[str, Any],
    *,
    kept: Collection[str],
    outcomes: Mapping[str, outcome.Outcome],
) -> None:
    """Prints the accuracies of an evaluation, with those of the baselines.

    Args:
        run: the run.
        result: the contents of result.json.
        kept: the names of the numbers that an earlier evaluation measured.
        outcomes: name of an evaluation -> what it found.
    """
    if "eval/skipped" in result:
        if not outcomes:
            console.say(f"Not evaluated: {result['eval/skipped']}.")
            return
        console.say(f"No accuracy was measured: {result['eval/skipped']}.")
    rows, earlier, measure = [], [], measured.measure_of(result)
    accuracies = measured.accuracy_names(result, contrastive=run.config.contrastive)
    for key, name in accuracies.items():
        if f"{key}{measure}" in result:
            rows.append([name, _with_interval(result, f"{key}{measure}")])
            beside = result.get(f"{key}{measured.BESIDE[measure]}")
            rows[-1].append("" if beside is None else f"{beside:.1%}")
        if f"{key}{measure}" in kept:
            earlier.append(name)
    title = f"{run.data.source.name}, split {run.data.eval_split}"
    if "eval/examples" in result:
        title += f" ({result['eval/examples']:,} images)"
    title += f", step {result['global_step']:,}"
    if rows:
        first, second = measured.TITLES[measure]
        what = "accuracy" if measure == measured.MEASURES[0] else "several labels"
        console.table(title, [what, f"{first} (95% interval)", second], rows)
    more = [list(row) for found in outcomes.values() for row in found.rows]
    if more:
        console.table(title, ["evaluation", "value (95% interval)"], more)
    if "eval/groups" in result:
        console.say(_groups(result["eval/groups"], outcomes))
    if earlier:
        console.say(f"From an earlier evaluation of the same weights: {', '.join(earlier)}.")
    _say_best(run.model_dir, result["global_step"])
    names = (
        "result.json",
        best.FILE,
        "predictions.parquet",
        "class_scores.parquet",
        "evaluation/",
        "saved_model/",
        "views.png",
    )
    existing = [name for name in names if tf.io.gfile.exists(os.path.join(run.model_dir, name))]
    console.say(f"Files in {run.model_dir}: {', '.join(existing)}.")


def _groups(number: int, outcomes: Collection[str]) -> str:
    """Returns a sentence on which intervals are over groups."""
    if number == 1:
        return "All evaluated images are one group (--group), so the intervals are 0 to 100%."
    others = [name for name in outcomes if name in _OVER_IMAGES]
    but = f", except for those of {', '.join(others)}, which are over images" if others else ""
    return f"The intervals are over {number:,} groups of images (--group){but}."


def _say_best(model_dir: str, step: int) -> None:
    """Says which checkpoint was the best during training, if it is not the evaluated one."""
    found = best.read(model_dir)
    if found is not None and found.step != step:
        evaluated = found.candidates.get(step)
        here = "" if evaluated is None else f", and {evaluated:.4g} at step {step:,}"
        console.say(
            f"The best step during training was {found.step:,}: {found.metric} was "
            f"{found.value:.4g}{here}. --checkpoint={os.path.join(model_dir, best.ALIAS)} reads it."
        )


def _with_interval(result: dict[str, Any], name: str) -> str:
    """Returns an accuracy as text; those of older versions have no interval."""
    if f"{name}_95" not in result:
        return f"{result[name]:.1%}"
    return intervals.Interval(result[name], *result[f"{name}_95"]).percent()
