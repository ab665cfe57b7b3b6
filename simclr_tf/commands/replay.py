"""The replay command: runs the step again at which training met a number that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
import math

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors
from simclr_tf.models import simclr
from simclr_tf.runs import arithmetic, bad_step, checkpoints, class_counts, directory
from simclr_tf.training import bad_steps, layer_outputs, loop, schedules, setup, steps, tasks

# Replicas and GPUs may sum in another order.
_TOLERANCE = 1e-4


def replay(config: config_lib.Config, strategy: tf.distribute.Strategy) -> dict[str, float]:
    """Runs the saved step of --model_dir again, and prints what happens in it. Writes nothing.

    Args:
        config: the settings that were saved with the step.
        strategy: the strategy that runs on the replicas.

    Returns:
        The metrics of the step.

    Raises:
        UserError: if no step is saved, or it was saved without its batch.
    """
    if config.model_dir is None:
        raise errors.UserError("--mode=replay needs --model_dir, the directory of a training run.")
    saved = bad_step.read(config.model_dir)
    if saved.batch is None:
        raise errors.UserError(
            f"Step {saved.facts.step} was saved without its batch, because --data_service makes "
            f"batches that cannot be repeated; {saved.state} has the weights before it."
        )
    learner, task = _build(config, strategy, saved)
    outputs = layer_outputs.measure(
        learner.model,
        task,
        strategy,
        next(_batches(config, strategy, saved.batch)),
        chunks=config.accum_chunks,
    )
    step = setup.make_step(config, strategy, learner, task)
    train_steps = loop.compile_steps(step, deterministic=config.deterministic)
    before = bad_steps.first_bad_weight(learner.model)
    with console.working(f"Running step {saved.facts.step} again"):
        sums = train_steps(_batches(config, strategy, saved.batch), 1)
    _print(saved.facts, sums.last, outputs, before)
    _say_if_passed(config.model_dir, saved.facts.step)
    return sums.last


def _say_if_passed(model_dir: str, step: int) -> None:
    """Reports that the run was trained past the saved step, which is of an earlier attempt."""
    latest = checkpoints.latest(model_dir)
    if latest is not None and checkpoints.step_of(latest) >= step:
        console.say(
            f"This step is of an earlier attempt: the run has since been trained to step "
            f"{checkpoints.step_of(latest):,}."
        )


def _build(
    config: config_lib.Config, strategy: tf.distribute.Strategy, saved: bad_step.Saved
) -> tuple[steps.Learner, tasks.Task]:
    """Returns the learner in its state before the step, and the task."""
    assert config.model_dir is not None
    architecture = directory.read_architecture(config.model_dir)
    if architecture is None:
        raise errors.UserError(
            f"--model_dir={config.model_dir} has no architecture.json; restore it to replay a step."
        )
    schedule = schedules.make_schedule(
        config, schedules.make_plan(config, saved.facts.num_examples)
    )
    teacher = setup.open_teacher(config, strategy)
    with strategy.scope():
        model = simclr.SimCLR(
            architecture,
            seed=config.seed,
            mixed_precision=arithmetic.choose(config.mixed_precision, strategy).mixed_precision,
            global_bn=config.global_bn,
            recompute=config.recompute,
        )
        learner = setup.make_learner(config, model, schedule)
    checkpoints.Checkpoints(config.model_dir, model, learner.optimizer).restore(saved.state)
    return learner, setup.make_task(
        config, strategy, learner, teacher, class_counts.read(config.model_dir)
    )


def _batches(
    config: config_lib.Config, strategy: tf.distribute.Strategy, batch: dict[str, np.ndarray]
) -> Iterator[tasks.Batch]:
    """Returns an iterator that splits the batch among the replicas."""
    per_replica = config.train_batch_size // strategy.num_replicas_in_sync
    rows = tf.data.Dataset.from_tensor_slices(batch).batch(per_replica, drop_remainder=True)
    return iter(strategy.distribute_datasets_from_function(lambda _: rows))


def _print(
    facts: bad_step.Facts,
    metrics: dict[str, float],
    outputs: list[layer_outputs.Output],
    before: str | None,
) -> None:
    loss, norm = metrics[steps.TOTAL_LOSS], metrics[steps.GRADIENT_NORM]
    console.table(
        f"Outputs of the layers in step {facts.step:,}",
        ["layer", "min", "max", "finite"],
        [
            [x.name, f"{x.low:.4g}", f"{x.high:.4g}", f"no ({x.bad:,})" if x.bad else "yes"]
            for x in outputs
        ],
    )
    console.say(
        f"Step {facts.step:,}: loss {loss:.7g}, gradient norm {norm:.7g}, learning rate "
        f"{facts.learning_rate:.4g}."
    )
    if before is not None:
        console.say(f"The first of the weights that are not finite before the step is {before}.")
    finding = bad_steps.explain(outputs)
    console.say(f"{finding[0].upper()}{finding[1:]}.")
    if facts.loss is None or facts.gradient_norm is None:
        console.say("Training stopped before this step, so there is no result to compare with.")
    elif _same(loss, facts.loss) and _same(norm, facts.gradient_norm):
        console.say("The result is the same as in training.")
    else:
        console.warn(
            f"The result differs from training: loss {facts.loss:.7g}, gradient norm "
            f"{facts.gradient_norm:.7g} there."
        )


def _same(one: float, other: float) -> bool:
    """Returns whether two numbers are equal up to rounding, or both are NaN."""
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return one == other or math.isclose(one, other, rel_tol=_TOLERANCE)
