"""Builds what trains a run from its settings: the teacher, the learner, the task and the step."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import distribute, keras_optimizers, multi_worker
from simclr_tf.data import balanced, in_memory, mixing
from simclr_tf.losses import classification
from simclr_tf.models import simclr
from simclr_tf.runs import batches, dataset, kept_images, opening, teachers
from simclr_tf.training import (
    accumulation,
    averages,
    label_terms,
    loop,
    objectives,
    optimizers,
    placement,
    resizing,
    schedules,
    steps,
    tasks,
)


@dataclasses.dataclass(frozen=True)
class Training:
    """A run with what only its training needs.

    Attributes:
        run: the run.
        plan: its steps.
        schedule: its learning rate.
        learner: the network and its optimizer.
        task: what the network learns; it makes the views if the device is to make them.
        by_class: the training images by class, if batches are balanced.
    """

    run: opening.Run
    plan: schedules.Plan
    schedule: schedules.Schedule
    learner: steps.Learner
    task: tasks.Task
    by_class: balanced.ByClass | None


def open_teacher(
    config: config_lib.Config, strategy: tf.distribute.Strategy
) -> teachers.Teacher | None:
    """Returns the network that the run learns from; None without --teacher."""
    if config.teacher is None:
        return None
    with strategy.scope():
        return teachers.load(config.teacher, image_size=config.image_size)


def make_learner(
    config: config_lib.Config, model: simclr.SimCLR, schedule: schedules.Schedule
) -> steps.Learner:
    """Returns the network with its optimizer. Call it in the strategy's scope."""
    if config.contrastive:
        variables = model.trainable_variables
    else:
        model.encoder.freeze(config.fine_tune_after_block)
        variables = model.classifier_variables()
    optimizer = optimizers.make_optimizer(config, model, variables, schedule)
    trained = {variable.ref() for variable in variables}
    decayed = [v for v in optimizers.decay_in_loss(config, model) if v.ref() in trained]
    return steps.Learner(
        model,
        optimizer,
        variables,
        decayed,
        config.weight_decay,
        clip_norm=config.clip_gradient_norm,
    )


def make_task(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    learner: steps.Learner,
    teacher: teachers.Teacher | None,
    class_counts: np.ndarray | None = None,
) -> tasks.Task:
    """Returns the task that the network learns, which makes the views if the device is to.

    Args:
        config: the settings.
        strategy: the strategy.
        learner: the network.
        teacher: the network that it learns from; None without one.
        class_counts: see `class_counts.count`.
    """
    task = _objective_task(config, learner, teacher, class_counts)
    if config.resolved_augment_on == placement.HOST:
        return task
    return _making_views(task, config, strategy, learner)


def _making_views(
    task: tasks.Task,
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    learner: steps.Learner,
) -> tasks.Task:
    """Returns the task that also makes the views."""
    pixels = learner.model.architecture.pixels
    return dataclasses.replace(
        task, make_views=lambda batch: batches.make_views(config, strategy, batch, pixels)
    )


def _with_views_of_device(training: Training) -> Training:
    """Returns the same training, with views that the device makes instead of the host."""
    run = training.run
    config = dataclasses.replace(run.config, augment_on=placement.DEVICE)
    task = _making_views(training.task, config, run.strategy, training.learner)
    return dataclasses.replace(training, run=dataclasses.replace(run, config=config), task=task)


def _objective_task(
    config: config_lib.Config,
    learner: steps.Learner,
    teacher: teachers.Teacher | None,
    class_counts: np.ndarray | None,
) -> tasks.Task:
    model = learner.model
    if config.contrastive:
        return tasks.contrastive_task(
            model,
            objectives.make_objective(config),
            temperature=config.temperature,
            hidden_norm=config.hidden_norm,
            labelled=model.linear_head is not None,
            term=_label_term(config, model),
        )
    if teacher is not None:
        return tasks.distillation_task(
            model,
            teacher.logits,
            temperature=config.distillation_temperature,
            weight=config.distillation_weight,
            autograph=teacher.needs_autograph,
        )
    return tasks.supervised_task(
        model, term=_label_term(config, model, class_counts), mixer=_make_mixer(config, learner)
    )


def _label_term(
    config: config_lib.Config, model: simclr.SimCLR, class_counts: np.ndarray | None = None
) -> label_terms.LabelTerm:
    """Returns how the linear head learns from labels."""
    several, weights = model.architecture.several_labels, None
    if class_counts is not None:
        counts = class_counts if several else class_counts[:, 0]
        weights = classification.class_balanced_weights(np.maximum(counts, 1), config.class_balance)
    if several:
        return label_terms.several_labels(weights)
    # Of the head that is trained beside a contrast, --label_smoothing is 0.
    return label_terms.one_label(config.label_smoothing, weights)


def _make_mixer(config: config_lib.Config, learner: steps.Learner) -> tasks.Mixer | None:
    """Returns a function that mixes the images of a step, seeded by (seed, step)."""
    if not (config.mixup or config.cutmix):
        return None
    mix, alpha = (mixing.mixup, config.mixup) if config.mixup else (mixing.cutmix, config.cutmix)

    def mixer(images: tf.Tensor, labels: tf.Tensor) -> mixing.Mixed:
        step = tf.cast(keras_optimizers.iterations(learner.optimizer), tf.int32)
        return mix(images, labels, tf.stack([config.seed, step]), alpha=alpha)

    return mixer


def make_step(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    learner: steps.Learner,
    task: tasks.Task,
) -> steps.Step:
    """Returns the training step of a run.

    Args:
        config: the settings.
        strategy: the strategy, which runs the step on every replica.
        learner: what to train.
        task: the result of `make_task`.
    """
    if config.accum_chunks == 1:
        return steps.whole_step(learner, task, strategy, jit_compile=config.jit_compile)
    return accumulation.chunked_step(
        learner, task, strategy, config.accum_chunks, jit_compile=config.jit_compile
    )


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What trains.

    Attributes:
        train: trains for a number of steps.
        in_use: returns the training, with the task whose steps are run now.
    """

    train: placement.Train
    in_use: Callable[[], Training]


def at_step(training: Training, step: int) -> Training:
    """Returns the training with views of the size of a step, counted from 0; see `resizing`."""
    run = training.run
    config = resizing.config_at(run.config, training.plan.total_steps, step)
    if config is run.config:
        return training
    task = training.task
    if config.resolved_augment_on == placement.DEVICE:
        task = _making_views(task, config, run.strategy, training.learner)
    return dataclasses.replace(training, run=dataclasses.replace(run, config=config), task=task)


def make_trainer(training: Training, stream: batches.Batches) -> Trainer:
    """Returns what trains on the batches of a stream, and then on larger views if there are some.

    Args:
        training: the training.
        stream: the result of `make_batches`.
    """
    start, total = stream.start_step, training.plan.total_steps
    in_use: list[Trainer] = []

    def make(step: int, end: int) -> placement.Train:
        of_phase = at_step(training, step)
        rest = stream
        if step != start:
            rest = dataclasses.replace(stream, run=of_phase.run, start_step=step)
        in_use[:] = [_trainer_of_one_size(of_phase, rest, end)]
        return in_use[0].train

    train = resizing.Resizing(make, resizing.phases(training.run.config, total), start)
    return Trainer(train, lambda: in_use[0].in_use())


def _trainer_of_one_size(training: Training, stream: batches.Batches, end: int) -> Trainer:
    """Returns what trains on the batches of a stream.

    With --augment_on=auto and an accelerator, it measures where views are made faster.

    Args:
        training: the training.
        stream: its batches.
        end: the step after the last one.
    """
    run, configured = training.run, training.run.config.resolved_augment_on

    @functools.cache
    def training_at(place: str) -> Training:
        return training if place == configured else _with_views_of_device(training)

    compiled: dict[str, Callable[[Any, int], averages.Sums]] = {}  # By place, to be used again.

    def compile_for(place: str, iterator: Any) -> Callable[[Any, int], averages.Sums]:
        there = training_at(place)
        step = make_step(there.run.config, run.strategy, there.learner, there.task)
        return loop.compile_steps(step, deterministic=run.config.deterministic, iterator=iterator)

    def make(place: str, step: int) -> placement.Train:
        rest = stream
        if place != configured or step != stream.start_step:
            rest = dataclasses.replace(stream, run=training_at(place).run, start_step=step)
        iterator = iter(rest.distributed())
        if place not in compiled:
            compiled[place] = compile_for(place, iterator)
        return functools.partial(compiled[place], iterator)

    if not _tries_device(run):
        return Trainer(make(configured, stream.start_step), lambda: training)
    trial = placement.Trial(
        make,
        stream.start_step,
        total_steps=end,
        batch_size=run.config.train_batch_size,
    )
    return Trainer(trial, lambda: training_at(trial.place))


def _tries_device(run: opening.Run) -> bool:
    """Returns whether to measure if the accelerator makes views faster.

    Not for several hosts, which would have to agree; not for the workers of a tf.data service,
    whose batches cannot begin at any step; and not with --cache_dataset, because the images in
    memory belong to a stream, and there would be two of these.
    """
    config = run.config
    return (
        config.augment_on == "auto"
        and config.resolved_augment_on == placement.HOST
        and not config.deterministic
        and config.data_service is None
        and not config.cache_dataset
        and multi_worker.num_input_hosts(run.strategy) == 1
        and distribute.has_accelerator(run.strategy)
    )


def make_batches(training: Training, start: int) -> batches.Batches:
    """Returns the batches of a run from a step on, with its images in memory if they are small.

    Their views have the size of that step, see `at_step`.
    """
    run, plan = at_step(training, start).run, training.plan
    images = (plan.total_steps - start) * plan.batch_size
    kept = kept_images.choose(run.config, run.data, images=images)
    table = None
    if kept is not None:
        table = in_memory.table(
            run.data.source.with_pixels(run.architecture.pixels),
            run.data.train_split,
            with_pillow=dataset.has_pillow(run.config),
        )
    return batches.Batches(run, training.by_class, start, kept, table)
