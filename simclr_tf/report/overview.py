"""The tables before training and after evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simclr_tf import config as config_lib
from simclr_tf import console
from simclr_tf.training import memory, objectives

if TYPE_CHECKING:
    from simclr_tf.models import simclr
    from simclr_tf.runs import opening
    from simclr_tf.training import schedules


def before_training(
    run: opening.Run,
    plan: schedules.Plan,
    model: simclr.SimCLR,
    origin: list[str],
    estimate: memory.Estimate,
) -> None:
    """Prints what will happen: data, network, batch, steps, rate, memory, where it starts."""
    config, source, replicas = run.config, run.source, run.strategy.num_replicas_in_sync
    batch = plan.batch_size
    rows = {
        "data set": f"{source.name}: {_splits(run)}",
        "classes": _classes(source.class_names),
        "image size": f"{config.image_size} px",
        "encoder": _encoder(run, model),
        "parameters": f"{_count(model.encoder):,} encoder, {_count(model):,} in all",
        "batch": f"{batch} images over {replicas} replica{'s' if replicas > 1 else ''}"
        f" ({batch // replicas} each)",
    }
    if config.pretraining:
        rows["contrast"] = _contrast(config)
    rows["steps"] = (
        f"{plan.total_steps:,} ({plan.total_steps * batch / plan.num_examples:.3g} epochs), "
        f"{plan.warmup_steps:,} of them warm-up"
    )
    rows["optimizer"] = f"{config.optimizer}, peak rate {plan.peak_rate:.4g}, {_decay(config)}"
    rows["arithmetic"] = _arithmetic(run)
    free = memory.free_bytes(run.strategy)
    rows["memory"] = _memory(estimate, batch // replicas, config.accum_chunks, free)
    rows["start"] = "\n".join(origin)
    rows["run directory"] = run.model_dir
    if config.accum_chunks > 1:
        rows["batch"] += f", in {config.accum_chunks} chunks one after another"
    title = "Pretraining" if config.pretraining else "Fine-tuning"
    console.facts(title, rows)
    for note in source.notes:
        console.say(note)
    if free is not None:
        suggestion = memory.suggestion(estimate, batch // replicas, config.accum_chunks, free)
        if suggestion:
            console.warn(suggestion)


def _memory(estimate: memory.Estimate, images: int, chunks: int, free: int | None) -> str:
    step = f"about {memory.gib(estimate.step(images, chunks=chunks))} per step and replica"
    return f"{step}, {'free memory unknown' if free is None else f'of {memory.gib(free)} free'}"


def _decay(config: config_lib.Config) -> str:
    """Says how the rate falls after warm-up."""
    if config.learning_rate_decay == "cosine":
        return "then a cosine to 0"
    when = "every" if config.learning_rate_decay == "exponential" else "at epoch"
    unit = " epochs" if when == "every" else ""
    told = ", ".join(f"{epoch:g}" for epoch in config.decay_at)
    return f"then times {config.decay_factor:g} {when} {told}{unit}"


def _contrast(config: config_lib.Config) -> str:
    """Says what is told apart, and the loss of telling nothing apart."""
    objective, batch = config.resolved_objective, config.train_batch_size
    if objective in config_lib.SUPERVISED_CONTRAST:
        told = f"{objective}, {2 * batch - 1} other views per anchor, positives by label"
    else:
        negatives = 2 * batch - 2 if config.negatives == "both" else batch - 1
        told = f"{objective}, {negatives} negatives per anchor"
    if objective == "margin_triplet":
        return f"{told}, margin {config.margin:g}"
    told += f", temperature {config.temperature:g}"
    chance = objectives.chance_loss(config)
    return told if chance is None else f"{told}, chance loss {chance:.3f}"


def _splits(run: opening.Run) -> str:
    train, test = run.config.train_split, run.config.eval_split
    counts = [f"{run.source.num_examples(train):,} images in {train}"]
    if test.split("[")[0].split("+")[0] in run.source.splits:
        counts.append(f"{run.source.num_examples(test):,} in {test}")
    return ", ".join(counts)


def _classes(names: tuple[str, ...] | None) -> str:
    if names is None:
        return "unlabelled: the linear head is left out"
    shown = ", ".join(names[:12])
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"{len(names)}: {shown}{more}"


def _encoder(run: opening.Run, model: simclr.SimCLR) -> str:
    shape = run.architecture
    if run.config.encoder != "resnet":
        return f"{shape.encoder_name}, {model.encoder.num_features} features"
    told = "3x3, no max-pool" if shape.stem == "small" else "7x7 stride 2, max-pool"
    if shape.sk_ratio and shape.stem == "imagenet":
        told = "three 3x3, max-pool"
    extras = "".join(
        f", {what} {ratio:g}"
        for what, ratio in (
            ("selective kernels", shape.sk_ratio),
            ("squeeze-excitation", shape.se_ratio),
        )
        if ratio
    )
    how = "chosen by image size" if run.config.stem == "auto" else "asked for"
    return (
        f"{shape.encoder_name}, width {shape.width_multiplier}{extras}, "
        f"{model.encoder.num_features} features; {shape.stem} stem ({told}; {how}, --stem)"
    )


def _arithmetic(run: opening.Run) -> str:
    precision = run.config.mixed_precision
    told = "float32" if precision == "none" else f"mixed {precision}"
    strategy = type(run.strategy).__name__.replace("V1", "").replace("V2", "")
    return f"{told}, {strategy}{', XLA' if run.config.jit_compile else ''}"


def _count(model: Any) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def after_evaluation(run: opening.Run, result: dict[str, Any]) -> None:
    """Prints how good the representation is, beside what it must beat."""
    if "eval/skipped" in result:
        console.say(f"Not evaluated: {result['eval/skipped']}.")
        return
    named = {
        "linear_eval": "linear evaluation of the encoder",
        "eval/label": "online linear head" if run.config.pretraining else "fine-tuned classifier",
        "baseline/random_encoder": "linear evaluation, untrained encoder",
        "baseline/raw_pixels": "linear evaluation, raw pixels",
    }
    rows = []
    for key, told in named.items():
        join = "_" if key == "eval/label" else "/"
        if f"{key}{join}top_1_accuracy" in result:
            scores = [result[f"{key}{join}top_{k}_accuracy"] for k in (1, 5)]
            rows.append([told, *(f"{score:.1%}" for score in scores)])
    title = (
        f"{run.source.name}, split {run.config.eval_split} "
        f"({run.source.num_examples(run.config.eval_split):,} images), "
        f"step {result['global_step']:,}"
    )
    console.scores(title, ["how good is it?", "top-1", "top-5"], rows)
    console.say(f"result.json, saved_model/ and views.png are in {run.model_dir}")
