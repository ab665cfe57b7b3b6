"""What is worth a warning in a report: sentences on what a run recorded and measured."""

from __future__ import annotations

from collections.abc import Iterator
import os

import numpy as np

from simclr_tf import errors, text
from simclr_tf.report import curves, result_numbers, run_files
from simclr_tf.runs import best, directory, validation_images
from simclr_tf.training import collapse, input_wait, schedules

# A loss above this fraction of its level of chance is near it.
_NEAR_CHANCE = 0.98
# A network that recognises views more often than this has learned something. At a low temperature,
# its loss may be above its level of chance nevertheless. In small batches, where one of B views is
# recognised by chance, it is more often than this times that.
_RECOGNISED, _TIMES_CHANCE = 0.1, 1.5
_COLLAPSE = (collapse.SPREAD, collapse.NEGATIVE_COSINE, collapse.RANK)


def of_run(run: run_files.RunFiles) -> list[str]:
    """Returns the warnings of a run, the most important ones first."""
    return [
        *_of_training(run),
        *_of_progress(run),
        *_of_accuracies(run),
        *_of_images(run),
        *run.problems,
    ]


def plan_of(run: run_files.RunFiles) -> schedules.Plan | None:
    """Returns how long the run trains; None if its settings or images are unknown."""
    images = run.data.get("images")
    if run.config is None or type(images) is not int or run.excluded:
        return None
    try:
        images -= validation_images.count(run.config, images)
        return schedules.make_plan(run.config, images)
    except errors.UserError:
        return None


def _of_training(run: run_files.RunFiles) -> Iterator[str]:
    if run.bad_step:
        step, finding = (run.bad_step.get(name) for name in ("step", "finding"))
        yield (
            f"Training met a number that is not finite at step {step}: {finding}. --mode=replay "
            f"--model_dir={run.folder} runs that step again, from {directory.BAD_STEP}/."
        )
    collapsed = _collapse(run)
    if collapsed is not None:
        yield collapsed
    yield from _loss_near_chance(run)
    wait = run.metrics.columns.get("train/input_wait")
    if wait is not None and len(wait.values) > 1:
        # The first record has the start of the input.
        slow = input_wait.warning(float(np.mean(wait.values[1:])), _input_remedies(run))
        if slow is not None:
            yield slow


def _input_remedies(run: run_files.RunFiles) -> list[str]:
    if run.config is None:
        return []
    devices = run.environment.get("devices")
    accelerator = isinstance(devices, list) and set(devices) != {"CPU"}
    return input_wait.remedies(run.config, accelerator=accelerator)


def _collapse(run: run_files.RunFiles) -> str | None:
    """Returns the warning of a collapse, as training prints it."""
    columns = [run.metrics.columns.get(name) for name in _COLLAPSE]
    config, plan = run.config, plan_of(run)
    if config is None or any(column is None for column in columns):
        return None
    replicas = run.environment.get("replicas")
    replicas = replicas if type(replicas) is int and replicas > 0 else 1
    images = config.train_batch_size // (config.accum_chunks * replicas)
    watch = collapse.Watch(
        warmup_steps=0 if plan is None else plan.warmup_steps,
        judges_rank=collapse.judges_rank(reads_labels=config.reads_labels, images=images),
    )
    by_step = [dict(zip(one.steps.tolist(), one.values.tolist())) for one in columns if one]
    for step in by_step[0]:
        if all(step in values for values in by_step):
            means = {name: values[step] for name, values in zip(_COLLAPSE, by_step)}
            warning = watch.judge(step, means)
            if warning is not None:
                return f"{warning} (Step {step:,}.)"
    return None


def _loss_near_chance(run: run_files.RunFiles) -> Iterator[str]:
    """Yields a warning if the last training loss is near its level of chance, or above it."""
    loss, accuracy = (run.metrics.last(f"train/contrast_{name}") for name in ("loss", "acc"))
    chance = curves.loss_at_chance(run)
    if loss is None or accuracy is None or chance is None:
        yield from _label_loss_above_chance(run)
        return
    where = "is above" if loss > chance else "is near"
    sentence = f"The last contrastive loss, {loss:.3f}, {where} that of equal projections, "
    recognised = f"views are recognised in {accuracy:.1%} of the cases"
    by_chance = 0.0 if run.config is None else 1 / run.config.train_batch_size
    if loss >= _NEAR_CHANCE * chance and accuracy < max(_RECOGNISED, _TIMES_CHANCE * by_chance):
        yield (
            f"{sentence}{chance:.3f}, and {recognised}: the network has hardly learned to "
            "distinguish images."
        )
    elif loss > chance:
        yield (
            f"{sentence}{chance:.3f}, although {recognised}: training may have been too short, its "
            "learning rate too high or --temperature too low."
        )


def _label_loss_above_chance(run: run_files.RunFiles) -> Iterator[str]:
    """Yields a warning if a network that learns from labels alone ended above chance."""
    loss, classes = run.metrics.last("train/supervised_loss"), len(run.class_names or ())
    if run.config is None or run.config.resolved_objective != "supervised" or classes < 2:
        return
    chance = curves.label_loss_at_chance(run)
    if loss is not None and chance is not None and loss > chance:
        yield (
            f"The last label loss, {loss:.3f}, is above that of equal probabilities, "
            f"{chance:.3f}: training may have been too short or its learning rate too "
            "high."
        )


def _of_progress(run: run_files.RunFiles) -> Iterator[str]:
    plan, last, evaluated = plan_of(run), run.metrics.last_step, run.evaluated_step
    if plan is not None and 0 < last < plan.total_steps:
        yield (
            f"Training has not finished: {last:,} of {plan.total_steps:,} steps are recorded. The "
            "same command resumes it."
        )
    if evaluated is not None and evaluated < last:
        yield f"The evaluation is of step {evaluated:,}; training has reached step {last:,}."
    if run.best is not None and evaluated is not None and run.best.step != evaluated:
        yield (
            f"The best step during training was {run.best.step:,} ({run.best.metric} "
            f"{run.best.value:.4g}), and step {evaluated:,} was evaluated. "
            f"--checkpoint={os.path.join(run.folder, best.ALIAS)} reads the best one."
        )
    if run.history:
        steps = ", ".join(str(entry.get("step")) for entry in run.history)
        yield f"Settings were changed during training, at step {steps}; see below."


def _of_accuracies(run: run_files.RunFiles) -> Iterator[str]:
    rows = result_numbers.accuracies(run.config, run.result)
    for row in rows:
        chance = _chance(run)
        interval = row.top_1.interval
        is_network = not row.top_1.key.startswith("baseline/")
        if not row.top_1.key.endswith("accuracy"):
            continue  # Chance is that of an accuracy.
        if chance is not None and interval is not None and is_network and interval.high < chance:
            yield (
                f"The {row.what} reaches {_shown(row.top_1)}, less than always giving the most "
                f"frequent class: {chance:.1%}."
            )
    encoder = next((row for row in rows if row.top_1.key.startswith("linear_eval/")), None)
    for row in rows:
        if encoder is not None and row.top_1.key.startswith("baseline/"):
            yield from _not_better(encoder, row)


def _not_better(
    encoder: result_numbers.Accuracy, baseline: result_numbers.Accuracy
) -> Iterator[str]:
    """Yields a warning unless the interval of an encoder is above that of a baseline."""
    found, other = encoder.top_1.interval, baseline.top_1.interval
    if found is None or other is None or found.low > other.high:
        return
    verdict, reason = "is clearly worse than", ""
    if found.high >= other.low:
        verdict = "is not clearly different from"
        reason = ": the intervals overlap"
        if found.value != other.value:
            which = "lower" if found.value < other.value else "higher"
            reason = f": it is {which}, but the intervals overlap"
    yield (
        f"The {encoder.what}, {_shown(encoder.top_1)}, {verdict} the {baseline.what}, "
        f"{_shown(baseline.top_1)}{reason}."
    )


def _shown(number: result_numbers.Number) -> str:
    """Returns an accuracy with its interval, as the table of accuracies has it."""
    return f"{number.shown} ({number.limits})"


def _chance(run: run_files.RunFiles) -> float | None:
    """Returns the accuracy of always giving the most frequent class; None if it is unknown."""
    rows = run.tables.get("per_class.csv", [])[1:]
    counts = [int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()]
    if sum(counts):
        return max(counts) / sum(counts)
    return 1 / len(run.class_names) if run.class_names else None


def _of_images(run: run_files.RunFiles) -> Iterator[str]:
    if run.excluded:
        yield (
            f"{text.count(len(run.excluded), 'unreadable image')} "
            f"{'was' if len(run.excluded) == 1 else 'were'} excluded: "
            f"{text.shortened(run.excluded, separator='; ')}."
        )
    groups = result_numbers.find(run.result, "eval/groups")
    if groups is not None and groups.value < 30:
        yield (
            f"The intervals are over {groups.value:.0f} groups of images, and somewhat too narrow "
            "with fewer than 30."
        )
