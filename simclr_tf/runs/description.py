"""Stores what describes a run in its directory: network, settings, data, arithmetic and machine."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os

from simclr_tf import storage
from simclr_tf.runs import arithmetic, directory, environment, few_labels, opening, resuming

START, INITIAL_WEIGHTS = "start.json", "initial_weights"


def write(
    run: opening.Run, resumption: resuming.Resumption, step: int, *, unfinished: bool
) -> None:
    """Stores the description of a run, and what changed since it was trained last.

    The machine and the arithmetic of a finished run stay those that it was trained with.

    Args:
        run: the run.
        resumption: the result of `resuming.check`.
        step: the step that training starts from.
        unfinished: whether there are steps to train.

    Raises:
        UserError: if the disk is full or refuses.
    """
    directory.write_architecture(run.model_dir, run.architecture)
    if unfinished:
        changes = (*resumption.changes, *_changed_arithmetic(run, resumption))
        resumption = dataclasses.replace(resumption, changes=changes)
    resolved = dataclasses.replace(run.config, eval_split=run.data.eval_split)
    resuming.record(resolved, run.model_dir, resumption, step)
    few_labels.write_list(run.model_dir, run.data.draws)
    if unfinished or environment.arithmetic_of(run.model_dir) is None:
        environment.write(run.model_dir, run.strategy, run.arithmetic)


def write_start(model_dir: str, origin: Sequence[str]) -> None:
    """Stores what a run starts from, before its first step.

    Args:
        model_dir: the run directory.
        origin: sentences on where the initial weights come from, and how they were adapted.

    Raises:
        UserError: if the disk is full or refuses.
    """
    storage.write_json(os.path.join(model_dir, START), {INITIAL_WEIGHTS: list(origin)})


def _changed_arithmetic(run: opening.Run, resumption: resuming.Resumption) -> list[resuming.Change]:
    """Returns how --mixed_precision=auto differs from what it was on the machine before."""
    both = (resumption.stored, run.config)
    if any(config is None or config.mixed_precision != arithmetic.AUTO for config in both):
        return []
    before, now = environment.arithmetic_of(run.model_dir), run.arithmetic
    if before is None or before.name == now.name:
        return []
    return [resuming.Change("what --mixed_precision=auto is", before.name, now.name)]
