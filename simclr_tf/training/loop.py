"""The training loop: many steps per call, metrics, checkpoints, and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import math
import time
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from simclr_tf import console, errors
from simclr_tf.training import averages, schedules, steps

if TYPE_CHECKING:
    from simclr_tf.runs import checkpoints as checkpoints_lib
    from simclr_tf.runs import metrics_log

# A call of the compiled loop should take about this long: long enough to hide the cost of
# calling, short enough for a progress bar.
_SECONDS_PER_CALL = 1.0
_MAX_STEPS_PER_CALL = 100
_Clock = Callable[[], tf.Tensor]


class NotFiniteError(errors.UserError):
    """Training met a loss, a gradient or weights that are not finite.

    Attributes:
        what: what is not finite, as the beginning of a sentence.
        step: the step to run again, whose first is 1. If weights are not finite at a checkpoint, it
            is the next one. The weights and the optimizer are those before it.
        last: metrics of the last step that ran, which is not the step to run again if `before` is
            true.
        before: whether the weights were found to be not finite before that step.
        rate: learning rate of the last step.
    """

    def __init__(
        self, what: str, step: int, last: dict[str, float], *, before: bool, rate: float
    ) -> None:
        self.what, self.step, self.last = what, step, last
        self.before, self.rate = before, rate
        norm = last.get(steps.GRADIENT_NORM, math.nan)
        super().__init__(f"{what} not finite (gradient norm {norm:.4g}, learning rate {rate:.4g})")


def _host_clock() -> tf.Tensor:
    """Returns the seconds since 1970 as `tf.timestamp` does, which is not deterministic."""
    return tf.ensure_shape(tf.numpy_function(time.time, [], tf.float64), [])


def _train_once(step: steps.Step, iterator: Any, clock: _Clock) -> tuple[tf.Tensor, tf.Tensor]:
    """Trains for one step; returns the seconds of waiting for its batch, and its metrics."""
    start = clock()
    with tf.control_dependencies([start]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        waited = tf.maximum(clock() - start, 0.0)  # The clock may be set back.
    # Otherwise a machine with one core may train first, and count that as waiting.
    with tf.control_dependencies([waited]):
        metrics = step.train(batch)
    return waited, tf.stack([metrics[name] for name in step.metrics])


def _is_good(step: steps.Step, last: tf.Tensor) -> tf.Tensor:
    """Returns whether the loss is finite, and the gradient where the loss is not scaled."""
    finite = tf.math.is_finite(last)
    good = finite[step.metrics.index(steps.TOTAL_LOSS)]
    return good if step.scales_loss else good & finite[step.metrics.index(steps.GRADIENT_NORM)]


def compile_steps(
    step: steps.Step, *, deterministic: bool = False, iterator: Iterator | None = None
) -> Callable[[Iterator, int], averages.Sums]:
    """Returns a function of (iterator, count) that trains for `count` steps.

    All steps of a call run in a single graph, unless the step consists of several.

    Args:
        step: the step.
        deterministic: whether TensorFlow's operations have to be deterministic.
        iterator: if given, the graph is traced for its batches now, not by the first call.
    """
    clock = _host_clock if deterministic else tf.timestamp
    names = step.metrics

    def train_many(iterator: Any, count: tf.Tensor) -> Any:
        def unfinished(done: tf.Tensor, *rest: tf.Tensor) -> tf.Tensor:
            return (done < count) & _is_good(step, rest[-1])

        def body(
            done: tf.Tensor, waited: tf.Tensor, totals: tf.Tensor, missing: tf.Tensor, _: tf.Tensor
        ) -> Any:
            # Fetch the next batch only after the previous step, so `waited` measures input alone.
            with tf.control_dependencies([totals]):
                newly_waited, last = _train_once(step, iterator, clock)
            finite = tf.math.is_finite(last)
            return (
                done + 1,
                waited + newly_waited,
                totals + tf.where(finite, last, 0.0),
                missing + tf.cast(~finite, tf.int32),
                last,
            )

        zeros = tf.zeros([len(names)])
        start = (
            tf.constant(0),
            tf.constant(0.0, tf.float64),
            zeros,
            tf.zeros([len(names)], tf.int32),
            zeros,
        )
        return tf.while_loop(unfinished, body, start, parallel_iterations=1)

    # Outside a graph, tf.while_loop is a Python loop.
    run = train_many
    if not step.multi_graph:
        run = tf.function(train_many, autograph=step.autograph)
        if iterator is not None:
            run.get_concrete_function(iterator, tf.constant(0))

    def call(iterator: Iterator, count: int) -> averages.Sums:
        return _sums(step, *run(iterator, tf.constant(count)))

    return call


def _sums(
    step: steps.Step,
    done: tf.Tensor,
    waited: tf.Tensor,
    totals: tf.Tensor,
    missing: tf.Tensor,
    last: tf.Tensor,
) -> averages.Sums:
    """Returns what several steps gave: see `compile_steps`."""
    names = step.metrics
    return averages.Sums(
        int(done),
        float(waited),
        bool(_is_good(step, last)),
        dict(zip(names, totals.numpy().tolist())),
        {name: n for name, n in zip(names, missing.numpy().tolist()) if n},
        dict(zip(names, last.numpy().tolist())),
    )


def fit(
    train_steps: Callable[[int], averages.Sums],
    plan: schedules.Plan,
    schedule: schedules.Schedule,
    checkpoints: checkpoints_lib.Checkpoints,
    log: metrics_log.MetricsLog,
    *,
    chance: float | None = None,
    judges_rank: bool = False,
    input_remedies: Sequence[str] = (),
    should_stop: Callable[[], bool] = lambda: False,
    agree: Callable[[bool, float], tuple[bool, float]] = lambda stops, pace: (stops, pace),
    validate: Callable[[int], None] = lambda step: None,
) -> None:
    """Trains from the current step of `checkpoints` to the end of the plan, or to an early stop.

    Args:
        train_steps: trains for a number of steps, from the current step of `checkpoints` on.
        plan: the number of steps, and how often to save and to log.
        schedule: the learning rate of each step, for the log.
        checkpoints: the checkpoints of the run, with its current step.
        log: the log of the metrics.
        chance: chance-level contrastive loss, if it is defined.
        judges_rank: see `collapse.judges_rank`.
        input_remedies: see `input_wait.remedies`.
        should_stop: whether to stop early, after saving a checkpoint; asked after every call of
            `train_steps`.
        agree: makes several workers do the same: takes whether to stop and the seconds of a step
            here, and returns those on which all of them act.
        validate: evaluates the network after a number of steps, when the plan has an evaluation
            and the checkpoint of that step is complete.

    Raises:
        NotFiniteError: if the loss, the gradient or a weight is not finite.
        UserError: if a checkpoint cannot be written.
    """
    means = averages.Averages(plan, chance, judges_rank=judges_rank, input_remedies=input_remedies)
    step, per_call = int(checkpoints.step), 1
    with console.Progress("step", plan.total_steps, step, slow_start=True) as progress:
        while step < plan.total_steps:
            count = min(per_call, _steps_to_next_event(plan, step))
            start = time.monotonic()
            sums = train_steps(count)
            seconds = time.monotonic() - start
            step += sums.steps
            rate = float(schedule(step - 1))
            checkpoints.step.assign(step if sums.finite else step - 1)
            _check_step(sums, step, rate)
            checkpoints.seconds.assign_add(seconds)
            means.add(sums, seconds)
            progress.update(step, means.summary())
            stops, pace = agree(should_stop(), seconds / sums.steps)
            ends = step == plan.total_steps or stops
            validates = plan.validates(step)
            if step % plan.summary_steps == 0 or ends:
                log.write(step, {**means.flush(), "learning_rate": rate})
            if step % plan.checkpoint_steps == 0 or ends or validates:
                _check_weights(checkpoints, sums, step, rate)
                checkpoints.save()
            if validates and not stops:  # A run that was stopped does it when it resumes.
                validate(step)
                checkpoints.remove_old()
            if ends:
                break
            per_call = _steps_per_call(pace, per_call)


def _check_step(sums: averages.Sums, step: int, rate: float) -> None:
    """Raises NotFiniteError if the loss or the gradient of the last step is not finite."""
    if sums.finite:
        return
    loss_is_finite = math.isfinite(sums.last[steps.TOTAL_LOSS])
    what = f"The {'gradient' if loss_is_finite else 'loss'} of step {step} is"
    raise NotFiniteError(what, step, sums.last, before=False, rate=rate)


def _check_weights(
    checkpoints: checkpoints_lib.Checkpoints, sums: averages.Sums, step: int, rate: float
) -> None:
    """Raises NotFiniteError if a weight is not finite.

    The loss of a step does not show what its own update does to the weights.
    """
    if not checkpoints.has_finite_weights():
        what = f"The weights after step {step} are"
        raise NotFiniteError(what, step + 1, sums.last, before=True, rate=rate)


def _steps_to_next_event(plan: schedules.Plan, step: int) -> int:
    """Returns the steps until a checkpoint, a log entry, an evaluation, or the end is due."""
    every = [plan.checkpoint_steps, plan.summary_steps, plan.validation_steps or plan.total_steps]
    return min(plan.total_steps - step, *(n - step % n for n in every))


def _steps_per_call(seconds_per_step: float, previous: int) -> int:
    """Returns the steps of the next call, which grow gradually: the first call also compiles."""
    fitting = int(_SECONDS_PER_CALL / max(seconds_per_step, 1e-6))
    return max(1, min(fitting, 4 * previous, _MAX_STEPS_PER_CALL))
