"""The train command: trains a run, or resumes it, and exports a SavedModel."""

from __future__ import annotations

from concurrent import futures
import dataclasses
import os

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, distribute, later_imports, storage
from simclr_tf import preemption as preemption_lib
from simclr_tf import workers as workers_lib
from simclr_tf.commands import agreement, validation
from simclr_tf.commands import control as control_lib
from simclr_tf.data import shown as shown_lib
from simclr_tf.models import simclr
from simclr_tf.report import contact_sheet, overview
from simclr_tf.runs import (
    arithmetic,
    batches,
    best,
    class_counts,
    dataset,
    description,
    diagnosis,
    directory,
    initialization,
    lock,
    metrics_log,
    opening,
    resuming,
    scale,
    teachers,
    validation_images,
)
from simclr_tf.runs import checkpoints as checkpoints_lib
from simclr_tf.runs import weights as weights_lib
from simclr_tf.scoring import registry as network_registry
from simclr_tf.serving import export
from simclr_tf.training import (
    bad_steps,
    collapse,
    input_wait,
    loop,
    memory,
    objectives,
    schedules,
    setup,
)

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
    workers: workers_lib.Workers | None = None,
) -> tuple[opening.Run, simclr.SimCLR]:
    """Trains a run to its end, resuming from its last checkpoint, and exports a SavedModel.

    Args:
        config: the settings.
        strategy: the strategy that trains on the replicas.
        weights: the weights of --checkpoint, to start from; None without one.
        preemption: signals that end training early.
        eval_split_given: see `dataset.open_data`.
        batch_size_given: see `opening.open_run`.
        workers: the connection to the other workers; None for a single one.

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
    if config.mode == "train_then_eval":
        network_registry.check(run)
    count = run.data.source.num_examples(run.data.train_split)
    count -= validation_images.count(config, count)
    plan = schedules.make_plan(run.config, count)
    resuming.check_length(run.model_dir, plan.total_steps)
    directory.ensure_writable(run.model_dir)
    with lock.hold(run.model_dir) as held, diagnosis.explained_encoder(config):
        return _train(
            run, teacher, control_lib.Control(preemption, held, workers or workers_lib.Alone())
        )


def _train(
    run: opening.Run, teacher: teachers.Teacher | None, control: control_lib.Control
) -> tuple[opening.Run, simclr.SimCLR]:
    """Trains a run whose directory is locked."""
    # Checked again: before the lock was held, another training may have changed the run.
    resumption = resuming.check(run.config, run.model_dir, run.data)
    run = scale.with_scale(opening.exclude_unreadable(run))
    agreement.check_arithmetic(control.workers, run)
    agreement.check_images(control.workers, run)
    if run.architecture.pixels.is_rgb:
        dataset.warn_of_dark_images(run.data)
    drawn = _draw_validation_images(run)
    training = _prepare(_without(run, drawn), teacher)
    model = training.learner.model
    validates = None if drawn is None else validation.Validation(run, drawn, model)
    checkpoints = checkpoints_lib.Checkpoints(
        run.model_dir, model, training.learner.optimizer, keep=run.config.keep_checkpoint_max
    )
    origin = _initialize(training, checkpoints, resumption)
    agreement.check_weights(control.workers, model, int(checkpoints.step), teacher)
    needed = _estimate_memory(training)
    unfinished = int(checkpoints.step) < training.plan.total_steps
    if unfinished:
        _check_memory(training, needed)
    # Only now: if the start is refused, stored settings stay as they were.
    description.write(run, resumption, int(checkpoints.step), unfinished=unfinished)
    if not int(checkpoints.step):
        description.write_start(run.model_dir, origin)
    stream = setup.make_batches(training, int(checkpoints.step))
    overview.before_training(run, training.plan, model, origin, needed, kept=stream.kept)
    try:
        if validates is not None:
            _resume_validation(training.plan, checkpoints, validates)
        if unfinished:
            _fit(training, stream, checkpoints, control, validates)
    except (tf.errors.OpError, OSError) as error:
        raise diagnosis.explain_training_error(run, error) from error
    control.held.check(now=True)
    with console.working("Exporting the SavedModel, and loading it in a new process"):
        export.export(
            model,
            run.model_dir,
            int(checkpoints.step),
            keep=run.config.keep_hub_module_max,
            names=run.config.export_output_names,
            weights_license=run.config.weights_license,
        )
    return run, model


def _prepare(run: opening.Run, teacher: teachers.Teacher | None) -> setup.Training:
    """Builds the network and all that trains it."""
    config = run.config
    plan = schedules.make_plan(config, run.data.source.num_examples(run.data.train_split))
    schedule = schedules.make_schedule(config, plan)
    model = run.new_model()
    with run.strategy.scope():
        learner = setup.make_learner(config, model, schedule)
    try:
        counts = class_counts.count(config, run.data)
        by_class = batches.open_by_class(config, run.data)
    except tf.errors.OpError as error:
        raise diagnosis.find_unreadable_image(run, error) from error
    class_counts.write(run.model_dir, counts)
    task = setup.make_task(config, run.strategy, learner, teacher, counts)
    return setup.Training(run, plan, schedule, learner, task, by_class)


def _draw_validation_images(run: opening.Run) -> validation_images.Drawn | None:
    """Divides the training split, if the run is evaluated during training."""
    if not run.config.eval_epochs:
        return None
    try:
        return validation_images.draw(run.config, run.data)
    except tf.errors.OpError as error:
        raise diagnosis.find_unreadable_image(run, error) from error


def _without(run: opening.Run, drawn: validation_images.Drawn | None) -> opening.Run:
    """Returns the run that trains on the images that are not left out."""
    if drawn is None:
        return run
    data = dataclasses.replace(run.data, source=drawn.to_train(run.data.source))
    return dataclasses.replace(run, data=data)


def _resume_validation(
    plan: schedules.Plan,
    checkpoints: checkpoints_lib.Checkpoints,
    validates: validation.Validation,
) -> None:
    """Evaluates the checkpoint to resume from, if the evaluation was interrupted."""
    step = int(checkpoints.step)
    if plan.validates(step) and not validates.is_done(step):
        log = metrics_log.MetricsLog(checkpoints.model_dir, from_step=step)
        validates.evaluate(step, log)
        checkpoints.remove_old()


def _initialize(
    training: setup.Training,
    checkpoints: checkpoints_lib.Checkpoints,
    resumption: resuming.Resumption,
) -> list[str]:
    """Loads the run's own checkpoint, or the weights to start from; returns a report of it."""
    run, model = training.run, training.learner.model
    own = checkpoints.restore_latest()
    start = int(checkpoints.step)
    best.forget_after(run.model_dir, start, checkpoints_lib.steps(run.model_dir))
    if own is not None:
        if start < training.plan.total_steps:
            return [f"resumed from {own}"]
        resuming.check_unfinished(resumption, run.model_dir, start)
        return [f"{own}: finished at step {start:,}, nothing to train"]
    if run.weights is None:
        origin = f"from scratch: initial weights of seed {run.config.seed}"
        hint = "" if run.config.contrastive else " (--checkpoint names a pretraining run)"
        return [origin + hint]
    return initialization.start_from(
        run.weights, model, zero_init_logits_layer=run.config.zero_init_logits_layer
    )


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
    if total is not None and run.arithmetic.mixed_precision == arithmetic.FLOAT32:
        images = training.plan.batch_size // run.strategy.num_replicas_in_sync
        memory.check_possible(needed, images, run.config.accum_chunks, total)


def _fit(
    training: setup.Training,
    stream: batches.Batches,
    checkpoints: checkpoints_lib.Checkpoints,
    control: control_lib.Control,
    validates: validation.Validation | None,
) -> None:
    """Trains from the step of the checkpoints to the end of the plan."""
    run = training.run
    log = metrics_log.MetricsLog(run.model_dir, from_step=stream.start_step)
    trainer = _make_trainer(training, stream, log)
    evaluates = run.config.mode == "train_then_eval"
    imports = later_imports.LaterImports(
        (*(later_imports.OF_EVALUATION if evaluates else ()), *later_imports.OF_REPORT)
    )

    def validate(step: int) -> None:
        control.held.check(now=True)
        if validates is not None:
            validates.evaluate(step, log)

    try:
        with control.preemption.training():
            loop.fit(
                control.held.checked(imports.beside(trainer.train)),
                training.plan,
                training.schedule,
                checkpoints,
                log,
                chance=objectives.chance_loss(run.config),
                judges_rank=_judges_rank(run),
                input_remedies=input_wait.remedies(
                    run.config, accelerator=distribute.has_accelerator(run.strategy)
                ),
                should_stop=lambda: control.preemption.requested,
                agree=control.agree,
                validate=validate,
            )
            control.workers.exchange("trained")  # None ends while another one saves.
            imports.finish()
    except loop.NotFiniteError as error:
        with console.working("Searching for the layer, and saving the step"):
            report = bad_steps.report(trainer.in_use(), checkpoints, error, control.workers)
        raise report from error


def _make_trainer(
    training: setup.Training, stream: batches.Batches, log: metrics_log.MetricsLog
) -> setup.Trainer:
    """Returns what trains; in the meantime, the views of the first batch are made and shown."""
    _ = stream.whole  # Both need it.
    working = console.working("Making the first views, and tracing the step")
    with working, futures.ThreadPoolExecutor(1) as thread:
        shown = thread.submit(_show_views, stream, log)
        trainer = setup.make_trainer(training, stream)
        # It also reads the images that are kept in memory, which training should not do again.
        shown.result()
    return trainer


def _judges_rank(run: opening.Run) -> bool:
    replicas = run.strategy.num_replicas_in_sync
    images = run.config.train_batch_size // (replicas * run.config.accum_chunks)
    return collapse.judges_rank(reads_labels=run.config.reads_labels, images=images)


def _show_views(stream: batches.Batches, log: metrics_log.MetricsLog) -> None:
    """Writes a picture of the views of the first batch, for the user and for TensorBoard."""
    run = stream.run

    def first_views(batch: batches.Batch) -> batches.Batch:
        batch = {name: x[:_SHOWN_IMAGES] for name, x in batch.items()}
        on_device = run.config.resolved_augment_on == "device"
        if not on_device:
            return batch
        return batches.make_views(run.config, run.strategy, batch, run.architecture.pixels)

    shown = stream.whole.map(tf.autograph.experimental.do_not_convert(first_views))
    batch = next(iter(shown))
    views = batch["views"].numpy().swapaxes(0, 1)  # (v, b, s, s, c)
    rows = shown_lib.rows_of_views(views, run.architecture.pixels, run.config.show_channels)
    sheet = contact_sheet.draw(rows)
    log.image("train/views", stream.start_step, sheet)
    storage.write_png(os.path.join(run.model_dir, _VIEWS), sheet)
