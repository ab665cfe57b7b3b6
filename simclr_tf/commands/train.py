"""The train command: trains a run, or resumes it, and exports a SavedModel."""

from __future__ import annotations

import dataclasses
import os

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, storage
from simclr_tf import preemption as preemption_lib
from simclr_tf.models import simclr
from simclr_tf.report import contact_sheet, overview
from simclr_tf.runs import (
    batches,
    dataset,
    diagnosis,
    directory,
    environment,
    few_labels,
    initialization,
    lock,
    metrics_log,
    opening,
    resuming,
    teachers,
)
from simclr_tf.runs import checkpoints as checkpoints_lib
from simclr_tf.runs import weights as weights_lib
from simclr_tf.serving import export
from simclr_tf.training import bad_steps, loop, memory, objectives, schedules, setup

# The picture of views, and how many images of the first batch it shows.
_VIEWS, _SHOWN_IMAGES = "views.png", 8


def train(
    config: config_lib.Config,
    strategy: tf.distribute.Strategy,
    weights: weights_lib.Weights | None,
    preemption: preemption_lib.Preemption,
    *,
    eval_split_given: bool,
    batch_size_given: bool = True,
) -> tuple[opening.Run, simclr.SimCLR]:
    """Trains a run to its end, resuming from its last checkpoint, and exports a SavedModel.

    Args:
        config: the settings.
        strategy: the strategy that trains on the replicas.
        weights: the weights of --checkpoint, to start from; None without one.
        preemption: signals that end training early.
        eval_split_given: see `dataset.open_data`.
        batch_size_given: see `opening.open_run`.

    Returns:
        The run and its trained network.

    Raises:
        UserError: for whatever the user can fix.
        Preempted: if a signal ended training early.
    """
    teacher = setup.open_teacher(config, strategy)
    run = opening.open_run(
        config,
        strategy,
        weights,
        teacher=teacher,
        eval_split_given=eval_split_given,
        batch_size_given=batch_size_given,
    )
    # Refuses an impossible plan before the run directory is made.
    resuming.check_length(run.model_dir, _make_plan(run).total_steps)
    directory.ensure_writable(run.model_dir)
    with lock.hold(run.model_dir) as held, diagnosis.explained_encoder(config):
        return _train(run, teacher, preemption, held)


def _train(
    run: opening.Run,
    teacher: teachers.Teacher | None,
    preemption: preemption_lib.Preemption,
    held: lock.Held,
) -> tuple[opening.Run, simclr.SimCLR]:
    """Trains a run whose directory is locked."""
    # Checked again: before the lock was held, another training may have changed the run.
    resumption = resuming.check(run.config, run.model_dir, run.data)
    run = opening.exclude_unreadable(run)
    dataset.warn_of_dark_images(run.data)
    training = _prepare(run, teacher)
    model = training.learner.model
    checkpoints = checkpoints_lib.Checkpoints(
        run.model_dir, model, training.learner.optimizer, keep=run.config.keep_checkpoint_max
    )
    origin = _initialize(training, checkpoints, resumption)
    needed = _estimate_memory(training)
    unfinished = int(checkpoints.step) < training.plan.total_steps
    if unfinished:
        _check_memory(training, needed)
    # Only now: if the start is refused, stored settings stay as they were.
    _write_description(run, resumption, int(checkpoints.step))
    overview.before_training(run, training.plan, model, origin, needed)
    try:
        if unfinished:
            _fit(training, checkpoints, preemption, held)
    except (tf.errors.OpError, OSError) as error:
        raise diagnosis.explain_training_error(run, error) from error
    held.check(now=True)
    with console.working("Exporting the SavedModel"):
        export.export(
            model, run.model_dir, int(checkpoints.step), keep=run.config.keep_hub_module_max
        )
    return run, model


def _prepare(run: opening.Run, teacher: teachers.Teacher | None) -> setup.Training:
    """Builds the network and all that trains it."""
    config = run.config
    plan = _make_plan(run)
    schedule = schedules.make_schedule(config, plan)
    model = run.new_model()
    with run.strategy.scope():
        learner = setup.make_learner(config, model, schedule)
    task = setup.make_task(config, run.strategy, learner, teacher)
    try:
        by_class = batches.open_by_class(config, run.data)
    except tf.errors.OpError as error:
        raise diagnosis.find_unreadable_image(run, error) from error
    return setup.Training(run, plan, schedule, learner, task, by_class)


def _make_plan(run: opening.Run) -> schedules.Plan:
    return schedules.make_plan(run.config, run.data.source.num_examples(run.data.train_split))


def _initialize(
    training: setup.Training,
    checkpoints: checkpoints_lib.Checkpoints,
    resumption: resuming.Resumption,
) -> list[str]:
    """Loads the run's own checkpoint, or the weights to start from; returns a report of it."""
    run, model = training.run, training.learner.model
    own = checkpoints.restore_latest()
    if own is not None:
        step = int(checkpoints.step)
        if step < training.plan.total_steps:
            return [f"resumed from {own}"]
        resuming.check_unfinished(resumption, run.model_dir, step)
        return [f"{own}: finished at step {step:,}, nothing to train"]
    if run.weights is None:
        origin = f"from scratch: initial weights of seed {run.config.seed}"
        hint = "" if run.config.contrastive else " (--checkpoint names a pretraining run)"
        return [origin + hint]
    return initialization.start_from(
        run.weights, model, zero_init_logits_layer=run.config.zero_init_logits_layer
    )


def _write_description(run: opening.Run, resumption: resuming.Resumption, step: int) -> None:
    """Stores architecture, settings, data and environment in the run directory."""
    directory.write_architecture(run.model_dir, run.architecture)
    resolved = dataclasses.replace(run.config, eval_split=run.data.eval_split)
    resuming.record(resolved, run.model_dir, resumption, step)
    few_labels.write_list(run.model_dir, run.data.draws)
    environment.write(run.model_dir, run.strategy)


def _estimate_memory(training: setup.Training) -> memory.Estimate:
    run = training.run
    with console.working("Estimating the memory of a step"):
        return memory.estimate(
            training.learner,
            training.task,
            views=run.num_views,
            image_size=run.config.image_size,
        )


def _check_memory(training: setup.Training, needed: memory.Estimate) -> None:
    """Refuses a step that needs much more memory than there is."""
    run = training.run
    total = memory.total_bytes(run.strategy)
    # With mixed precision, estimates were measured to be up to twice what a step took on CPUs.
    if total is not None and run.config.mixed_precision == "none":
        images = training.plan.batch_size // run.strategy.num_replicas_in_sync
        memory.check_possible(needed, images, run.config.accum_chunks, total)


def _fit(
    training: setup.Training,
    checkpoints: checkpoints_lib.Checkpoints,
    preemption: preemption_lib.Preemption,
    held: lock.Held,
) -> None:
    """Trains from the step of the checkpoints to the end of the plan."""
    run, start = training.run, int(checkpoints.step)
    log = metrics_log.MetricsLog(run.model_dir, from_step=start)
    _show_views(training, start, log)
    step = setup.make_step(run.config, run.strategy, training.learner, training.task)
    try:
        with preemption.training():
            loop.fit(
                held.checked(loop.compile_steps(step)),
                iter(batches.distributed(run, training.by_class, start)),
                training.plan,
                training.schedule,
                checkpoints,
                log,
                chance=objectives.chance_loss(run.config),
                should_stop=lambda: preemption.requested,
            )
    except loop.NotFiniteError as error:
        with console.working("Searching for the layer, and saving the step"):
            report = bad_steps.report(training, checkpoints, error)
        raise report from error


def _show_views(training: setup.Training, step: int, log: metrics_log.MetricsLog) -> None:
    """Writes a picture of the views of the first batch, for the user and for TensorBoard."""
    run = training.run

    def first_views(batch: batches.Batch) -> batches.Batch:
        batch = {name: x[:_SHOWN_IMAGES] for name, x in batch.items()}
        on_device = run.config.resolved_augment_on == "device"
        return batches.make_views(run.config, run.strategy, batch) if on_device else batch

    shown = batches.train_batches(run, training.by_class, step).map(
        tf.autograph.experimental.do_not_convert(first_views)
    )
    with console.working("Making the first views"):
        batch = next(iter(shown))
    views = batch["views"].numpy().swapaxes(0, 1)  # (v, b, s, s, 3)
    rows = [(f"view {number} of each image", row) for number, row in enumerate(views, 1)]
    sheet = contact_sheet.draw(rows)
    log.image("train/views", step, sheet)
    storage.write_png(os.path.join(run.model_dir, _VIEWS), sheet)
