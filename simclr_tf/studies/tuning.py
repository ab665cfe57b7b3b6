"""Chooses settings of a study for every cell, on images that are not those of the results."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from simclr_tf.studies import attempts, cells, definition, outcomes


@dataclasses.dataclass(frozen=True)
class Trial:
    """A run of one choice of settings.

    Attributes:
        group: the values of the axes for which the choice is made.
        tuned: the labels of the settings.
        cell: the cell that is trained.
    """

    group: tuple[tuple[str, str], ...]
    tuned: definition.Labels
    cell: cells.Cell


def group_of(study: definition.Study, labels: definition.Labels) -> tuple[tuple[str, str], ...]:
    """Returns what decides which settings a cell has."""
    per = study.tuning.per if study.tuning else None
    return tuple(item for item in labels.items() if per is None or item[0] in per)


def trials(study: definition.Study, overrides: Mapping[str, Any]) -> list[Trial]:
    """Returns the runs to choose from; none if nothing is tuned."""
    if study.tuning is None:
        return []
    found: dict[tuple, list[Trial]] = {}
    for labels in study.all_labels():
        group = group_of(study, labels)
        if group not in found:
            found[group] = [
                _trial(study, group, labels, tuned, overrides)
                for tuned in _combinations(study.tuning.axes, labels)
            ]
    return [trial for of_group in found.values() for trial in of_group]


def _combinations(
    axes: tuple[definition.Axis, ...], labels: definition.Labels
) -> list[dict[str, str]]:
    """Returns the combinations of the tuned axes that a cell has."""
    own = tuple(dataclasses.replace(axis, only={}) for axis in axes if axis.applies_to(labels))
    return list(definition.combinations(own))


def _trial(
    study: definition.Study,
    group: tuple[tuple[str, str], ...],
    labels: definition.Labels,
    tuned: definition.Labels,
    overrides: Mapping[str, Any],
) -> Trial:
    assert study.tuning is not None
    seed = study.tuning.seed
    run = cells.make_run(
        study, labels, seed, overrides=overrides, tuned=tuned, more=study.tuning.flags
    )
    return Trial(group, tuned, cells.Cell(labels, seed, run, tuned))


def choose(
    tried: list[Trial], records: Mapping[str, attempts.Record], root: str
) -> dict[tuple, tuple[definition.Labels, dict[str, float]]]:
    """Returns, for each group, the labels with the highest accuracy, and all accuracies.

    Of equal ones, the first wins. A run that failed is not chosen. A group with a run that has not
    ended has no entry, because that run may turn out to be the best; neither has one without any
    run that is done.
    """
    chosen: dict[tuple, tuple[definition.Labels, dict[str, float]]] = {}
    unfinished = set()
    for trial in tried:
        record = records.get(trial.cell.run.identity)
        if record is None or record.status == attempts.INTERRUPTED:
            unfinished.add(trial.group)
            continue
        if record.status != attempts.DONE:
            continue
        accuracy = outcomes.read(trial.cell, root, record).accuracy
        best, accuracies = chosen.get(trial.group, (trial.tuned, {}))
        if not accuracies or accuracy > max(accuracies.values()):
            best = trial.tuned
        chosen[trial.group] = best, {**accuracies, definition.described(trial.tuned): accuracy}
    return {group: choice for group, choice in chosen.items() if group not in unfinished}


def cells_of(
    study: definition.Study,
    overrides: Mapping[str, Any],
    chosen: Mapping[tuple, tuple[definition.Labels, Mapping[str, float]]],
) -> list[cells.Cell]:
    """Returns the cells of a study with each seed, without those whose settings are not chosen.

    Args:
        study: the study.
        overrides: flags of the command line.
        chosen: what `choose` returns; empty if nothing is tuned.

    Raises:
        UserError: if settings cannot be combined.
    """
    found = []
    for labels in study.all_labels():
        tuned: definition.Labels = {}
        if study.tuning is not None:
            group = group_of(study, labels)
            if group not in chosen:
                continue
            tuned = chosen[group][0]
        for seed in study.seeds:
            run = cells.make_run(study, labels, seed, overrides=overrides, tuned=tuned)
            found.append(cells.Cell(labels, seed, run, tuned))
    return found
