"""The few labels of a run: drawn from its training split, all others hidden, and listed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import csv
import dataclasses
import io
import os
from typing import TYPE_CHECKING, Any

from simclr_tf import config as config_lib
from simclr_tf import console, errors, storage
from simclr_tf.data import few_labels, labels

if TYPE_CHECKING:
    from simclr_tf.runs import dataset

LIST = "labels_used.csv"
# Settings that decide which labels are used.
SETTINGS = ("labels_per_class", "label_fraction", "label_draw")


def restrict(config: config_lib.Config, data: dataset.Data) -> dataset.Data:
    """Draws the labels that a run uses, if it does not use all.

    Images whose label is not drawn are removed from the training split if the encoder learns from
    labels. Otherwise they stay, without a label.

    Args:
        config: the settings.
        data: the data with all labels.

    Returns:
        The data with the labels of the first draw, and all draws.

    Raises:
        UserError: if the training split has no labels or a class too few, or if it is also
            evaluated.
    """
    if not config.has_few_labels:
        return data
    flag = settings_text(config)
    if not labels.is_labelled(data.source, data.train_split):
        raise errors.UserError(
            f"{flag} draws from the labels of the split {data.train_split!r}, and "
            f"{data.source.name!r} has none there; leave it out, or use images with labels."
        )
    if config.mode != "train" and data.eval_split == data.train_split:
        raise errors.UserError(
            f"{flag} hides labels of the split {data.train_split!r}, which is also evaluated; set "
            "--eval_split to another one."
        )
    with console.working("Drawing the images whose labels are used"):
        label_of = few_labels.examples_of(data.source, data.train_split)
    draws = tuple(
        few_labels.draw(
            label_of,
            per_class=config.labels_per_class,
            fraction=config.label_fraction,
            seed=config.seed,
            number=config.label_draw + repetition,
        )
        for repetition in range(config.label_draws)
    )
    limit = few_labels.exclude_others if config.reads_labels else few_labels.hide_labels
    source = limit(data.source, data.train_split, draws[0].label_of)
    notes = (*source.notes, *_notes(config, draws[0], len(label_of)))
    return dataclasses.replace(data, source=dataclasses.replace(source, notes=notes), draws=draws)


def _notes(config: config_lib.Config, draw: few_labels.Draw, labelled: int) -> list[str]:
    """Returns what the user should know about the first draw."""
    note = f"Of {labelled:,} labels {len(draw.label_of):,} are used: {draw.summary()}"
    if not config.reads_labels:
        note += "; the encoder learns from all images, without labels"
    notes = [f"{note} (seed {config.seed}, draw {draw.number}; listed in {LIST})."]
    if draw.rounded_up:
        notes.append(
            f"{draw.rounded_up:,} of {len(draw.sizes):,} classes have so few images that "
            f"--label_fraction={config.label_fraction:g} of them is less than half an image; one "
            "image of each is used."
        )
    return notes


def settings_text(config: config_lib.Config) -> str:
    """Returns the flag that limits the labels."""
    if config.labels_per_class:
        return f"--labels_per_class={config.labels_per_class}"
    return f"--label_fraction={config.label_fraction:g}"


def with_all_draws(data: dataset.Data) -> dataset.Data:
    """Returns the data with the labels of all draws, for evaluations that repeat them."""
    if len(data.draws) < 2:
        return data
    names = set().union(*(draw.label_of for draw in data.draws))
    source = few_labels.hide_labels(data.source, data.train_split, names)
    return dataclasses.replace(data, source=source)


def described(config: config_lib.Config) -> dict[str, Any]:
    """Returns the settings that decide which labels are used, or nothing if all are."""
    if not config.has_few_labels:
        return {}
    return {name: getattr(config, name) for name in SETTINGS if getattr(config, name)}


def rows(draws: Sequence[few_labels.Draw]) -> list[list[str]]:
    """Returns the rows of the list of used labels, with a column for the draw if there are more."""
    if len(draws) == 1:
        return [["name", "label"], *map(list, draws[0].label_of.items())]
    return [
        ["draw", "name", "label"],
        *(
            [str(draw.number), name, label]
            for draw in draws
            for name, label in draw.label_of.items()
        ),
    ]


def write_list(model_dir: str, draws: Sequence[few_labels.Draw]) -> None:
    """Writes labels_used.csv, with the images whose labels training uses, if they are few.

    Raises:
        UserError: if the file cannot be written.
    """
    if draws:
        storage.replace(os.path.join(model_dir, LIST), _csv(rows(draws[:1])))


def _csv(lines: Iterable[list[str]]) -> str:
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows(lines)
    return content.getvalue()
