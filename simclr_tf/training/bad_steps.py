"""Finds where the first number was not finite in a training step, and reports it.

The update of such a step is left out, so its weights and optimizer are at hand when it is found.
Only the moving averages of batch norm have already followed its batch; no training step reads them.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from simclr_tf import errors, keras_api, multi_worker, text
from simclr_tf import workers as workers_lib
from simclr_tf.models import simclr
from simclr_tf.runs import bad_step, batches, checkpoints
from simclr_tf.training import layer_outputs, loop, setup, steps, tasks

_REMEDY = (
    "Lower --learning_rate, lengthen --warmup_epochs or set --clip_gradient_norm, and start in a "
    "new --model_dir."
)


@dataclasses.dataclass(frozen=True)
class _Finding:
    """Where the first number is not finite.

    Attributes:
        clause: the clause of a sentence that says it.
        layer: position of the layer in the forward pass, if it is known.
    """

    clause: str
    layer: float = math.inf


def report(
    training: setup.Training,
    state: checkpoints.Checkpoints,
    error: loop.NotFiniteError,
    workers: workers_lib.Workers,
) -> errors.UserError:
    """Saves a step, searches its forward pass, and returns the error to raise.

    Args:
        training: the run.
        state: the weights, the optimizer and the number of steps, all before the step.
        error: raised by `loop.fit`.
        workers: the connection to the other workers, on which the error is the same.
    """
    run = training.run
    batch = None
    if run.config.data_service is None:
        batch = next(iter(batches.Batches(run, training.by_class, error.step - 1).distributed()))
    try:
        finding = _find(training, batch)
    except Exception as failure:  # Nothing may hide the report of the step.
        finding = _Finding(f"its layers could not be searched ({text.reason(failure)})")
    # Each worker searches the layers of its own images.
    everyone = workers.exchange([finding.layer, finding.clause])
    clause = min(everyone, key=lambda found: found[0])[1]
    facts = bad_step.Facts(
        step=error.step,
        loss=None if error.before else error.last[steps.TOTAL_LOSS],
        gradient_norm=None if error.before else error.last[steps.GRADIENT_NORM],
        learning_rate=error.rate,
        num_examples=training.plan.num_examples,
        replicas=run.strategy.num_replicas_in_sync,
        seed=run.config.seed,
        finding=clause,
        has_batch=batch is not None,
    )
    kept = text.last_checkpoint(checkpoints.latest(run.model_dir))
    arrays = None if batch is None else _joined(run.strategy, batch)
    # The step is run again in the same arithmetic, on whatever machine.
    config = dataclasses.replace(run.config, mixed_precision=run.arithmetic.mixed_precision)
    saved = bad_step.save(config, facts, arrays, state)
    return errors.UserError(f"{error}: {clause}; {saved}; {kept}. {_REMEDY}")


def _find(training: setup.Training, batch: tasks.Batch | None) -> _Finding:
    model = training.learner.model
    before = first_bad_weight(model)
    if before is not None:
        return _Finding(f"the first of the weights that are not finite is {before}")
    if batch is None:
        clause = "--data_service makes batches that cannot be repeated, so its cause is unknown"
        return _Finding(clause)
    run = training.run
    if isinstance(run.strategy, tf.distribute.TPUStrategy):
        return _Finding("on a TPU its layers are not searched")
    outputs = layer_outputs.measure(
        model, training.task, run.strategy, batch, chunks=run.config.accum_chunks
    )
    bad = layer_outputs.first_bad(outputs)
    return _Finding(explain(outputs), math.inf if bad is None else outputs.index(bad))


def explain(outputs: list[layer_outputs.Output]) -> str:
    """Returns the clause of a sentence that names the first output that is not finite."""
    bad = layer_outputs.first_bad(outputs)
    if bad is None:
        return "the outputs of all layers are finite, so it comes from the loss or its gradient"
    if bad.name == layer_outputs.VIEWS:
        return "the images themselves are not finite"
    return f"the first layer whose output is not finite is {bad.name}"


def first_bad_weight(model: simclr.SimCLR) -> str | None:
    """Returns the name of the first variable that is not finite; not of a moving average."""
    for name, variable in keras_api.named_variables(model):
        if variable.trainable and not np.all(np.isfinite(variable.numpy())):
            return name
    return None


def _joined(strategy: tf.distribute.Strategy, batch: tasks.Batch) -> dict[str, np.ndarray]:
    """Returns the batch of all replicas."""
    if multi_worker.num_workers(strategy) > 1:
        batch = tf.function(lambda: strategy.run(multi_worker.gather, (batch,)), autograph=False)()
    return multi_worker.local_rows(strategy, batch)
