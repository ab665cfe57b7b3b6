"""The train command: from a run to trained weights, a checkpoint and a SavedModel."""

from __future__ import annotations

import dataclasses
import functools
import os

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console
from simclr_tf.data import mixing, pipeline
from simclr_tf.models import simclr
from simclr_tf.report import overview
from simclr_tf.runs import builders, diagnosis, directory, initialization, metrics_log, opening
from simclr_tf.runs import checkpoints as checkpoints_lib
from simclr_tf.serving import export
from simclr_tf.training import (
    accumulation,
    loop,
    memory,
    objectives,
    optimizers,
    schedules,
    steps,
    tasks,
)


def train(run: opening.Run) -> simclr.SimCLR:
    """Trains, or goes on training, and exports the outcome.

    Args:
        run: what to train, on what.

    Returns:
        The trained network.
    """
    config = run.config
    plan = schedules.make_plan(config, run.source.num_examples(config.train_split))
    schedule = schedules.make_schedule(config, plan)
    model = run.new_model()
    with run.strategy.scope():
        learner = _make_learner(run, model, schedule)
    checkpoints = checkpoints_lib.Checkpoints(
        run.model_dir, model, learner.optimizer, keep=config.keep_checkpoint_max
    )
    origin = _start(run, model, checkpoints)
    # Only now: a start that is refused leaves the run directory as it was.
    directory.write_architecture(run.model_dir, run.architecture)
    directory.write_config(run.model_dir, config)
    overview.before_training(run, plan, model, origin, _estimate_memory(run, learner))
    try:
        log = metrics_log.MetricsLog(run.model_dir, from_step=int(checkpoints.step))
        if int(checkpoints.step) < plan.total_steps:
            _fit(run, plan, schedule, learner, checkpoints, log)
    except (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError, OSError) as error:
        raise diagnosis.explain_resource_error(run, error) from error
    with console.working("exported the SavedModel"):
        export.export(model, run.model_dir, int(checkpoints.step), keep=config.keep_hub_module_max)
    return model


def _make_learner(
    run: opening.Run, model: simclr.SimCLR, schedule: schedules.Schedule
) -> steps.Learner:
    config = run.config
    if config.contrastive:
        variables = model.trainable_variables
    else:
        model.encoder.freeze(config.fine_tune_after_block)
        variables = model.classifier_variables()
    optimizer = optimizers.make_optimizer(config, model, variables, schedule)
    trained = {variable.ref() for variable in variables}
    decayed = [v for v in optimizers.decay_in_loss(config, model) if v.ref() in trained]
    return steps.Learner(model, optimizer, variables, decayed, config.weight_decay)


def _start(
    run: opening.Run, model: simclr.SimCLR, checkpoints: checkpoints_lib.Checkpoints
) -> list[str]:
    """Starts where it should: own checkpoint, given checkpoint, or initial weights."""
    own = checkpoints.restore_latest()
    if own is not None:
        return [f"resumed from {own}"]
    if run.weights is None:
        told = f"from scratch: initial weights of seed {run.config.seed}"
        return [told if run.config.contrastive else f"{told} (--checkpoint names a pretraining)"]
    return initialization.start_from(
        run.weights, model, zero_init_logits_layer=run.config.zero_init_logits_layer
    )


def _fit(
    run: opening.Run,
    plan: schedules.Plan,
    schedule: schedules.Schedule,
    learner: steps.Learner,
    checkpoints: checkpoints_lib.Checkpoints,
    log: metrics_log.MetricsLog,
) -> None:
    config, start = run.config, int(checkpoints.step)
    _show_views(run, start, log)
    train_steps = loop.compile_steps(_make_step(run, learner))
    try:
        loop.fit(
            train_steps,
            iter(_distributed(run, start)),
            plan,
            schedule,
            checkpoints,
            log,
            chance=objectives.chance_loss(config),
        )
    except tf.errors.InvalidArgumentError as error:
        raise diagnosis.find_undecodable_image(run, error) from error


def _estimate_memory(run: opening.Run, learner: steps.Learner) -> memory.Estimate:
    with console.working("estimated the memory of a step"):
        return memory.estimate(
            learner,
            _make_task(run, learner),
            views=run.num_views,
            image_size=run.config.image_size,
        )


def _make_step(run: opening.Run, learner: steps.Learner) -> steps.Step:
    config, task = run.config, _make_task(run, learner)
    if config.resolved_augment_on == "device":
        task = dataclasses.replace(task, make_views=lambda batch: _views_of(run, batch))
    if config.accum_chunks == 1:
        return steps.whole_step(learner, task, run.strategy, jit_compile=config.jit_compile)
    return accumulation.chunked_step(
        learner, task, run.strategy, config.accum_chunks, jit_compile=config.jit_compile
    )


def _make_task(run: opening.Run, learner: steps.Learner) -> tasks.Task:
    """Returns the task that the run trains on."""
    config, model = run.config, learner.model
    if config.contrastive:
        return tasks.contrastive_task(
            model,
            objectives.make_objective(config),
            temperature=config.temperature,
            hidden_norm=config.hidden_norm,
            labelled=model.linear_head is not None,
        )
    if config.resolved_objective == "distill":
        assert run.teacher is not None
        return tasks.distillation_task(
            model,
            run.teacher.logits,
            temperature=config.distillation_temperature,
            weight=config.distillation_weight,
            autograph=run.teacher.needs_autograph,
        )
    return tasks.supervised_task(
        model, label_smoothing=config.label_smoothing, mixer=_make_mixer(config, learner)
    )


def _make_mixer(config: config_lib.Config, learner: steps.Learner) -> tasks.Mixer | None:
    """Returns what mixes the images of a step, a function of the seed and the step's number."""
    if not (config.mixup or config.cutmix):
        return None
    mix, alpha = (mixing.mixup, config.mixup) if config.mixup else (mixing.cutmix, config.cutmix)

    def mixer(images: tf.Tensor, labels: tf.Tensor) -> mixing.Mixed:
        step = tf.cast(learner.optimizer.iterations, tf.int32)
        return mix(images, labels, tf.stack([config.seed, step]), alpha=alpha)

    return mixer


def _views_of(run: opening.Run, batch: tasks.Batch) -> tasks.Batch:
    """Makes the views of a batch, or of a part of it, inside the step."""
    hosts = getattr(run.strategy.extended, "num_hosts", 1)  # More than one on a TPU pod only.
    return pipeline.views_of_batch(
        batch,
        builders.policy_of(run.config),
        num_views=run.num_views,
        total=run.config.train_batch_size // hosts,
    )


def _distributed(run: opening.Run, start_step: int) -> tf.distribute.DistributedDataset:
    """Returns the endless stream of training batches, dealt out to the replicas."""
    per_replica = run.config.train_batch_size // run.strategy.num_replicas_in_sync

    def of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
        batches = _batches(run, start_step, context.num_input_pipelines, context.input_pipeline_id)
        if context.num_replicas_in_sync == context.num_input_pipelines:
            return batches
        # Views are made for the whole host and then dealt out, so that they are the same
        # whatever the number of replicas.
        return batches.rebatch(per_replica).prefetch(2 * run.strategy.num_replicas_in_sync)

    return run.strategy.distribute_datasets_from_function(of_host)


def _batches(
    run: opening.Run, start_step: int, num_shards: int = 1, shard: int = 0
) -> tf.data.Dataset:
    config = run.config
    return pipeline.train_batches(
        run.source,
        config.train_split,
        builders.policy_of(config),
        batch_size=config.train_batch_size,
        num_views=run.num_views,
        seed=config.seed,
        start_step=start_step,
        num_shards=num_shards,
        shard=shard,
        cache=config.cache_dataset,
        augment_on=config.resolved_augment_on,
        data_service=config.data_service,
        by_class=run.by_class,
        samples_per_class=config.samples_per_class,
    )


def _shown(run: opening.Run, batch: tasks.Batch) -> tasks.Batch:
    """Returns the first images of a batch, with their views."""
    batch = {name: x[: metrics_log.SHOWN_IMAGES] for name, x in batch.items()}
    return _views_of(run, batch) if run.config.resolved_augment_on == "device" else batch


def _show_views(run: opening.Run, step: int, log: metrics_log.MetricsLog) -> None:
    """Puts the views of the first batch before the person's eyes: a picture and TensorBoard."""
    try:
        with console.working("made the first views"):
            batch = next(iter(_batches(run, step).map(functools.partial(_shown, run))))
    except tf.errors.InvalidArgumentError as error:
        raise diagnosis.find_undecodable_image(run, error) from error
    grid = metrics_log.view_grid(batch["views"].numpy())
    log.image("train/views", step, grid)
    metrics_log.write_png(os.path.join(run.model_dir, metrics_log.VIEWS), grid)
