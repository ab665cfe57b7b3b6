"""The compare command: compares the predictions of runs for the same images."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, paths, pixel_format, storage, text
from simclr_tf.data import evaluation_images, shown
from simclr_tf.evaluation import comparison, intervals
from simclr_tf.report import contact_sheet
from simclr_tf.runs import dataset, directory
from simclr_tf.runs import predictions as predictions_lib

RESULT, PICTURE = "comparison.json", "disagreements.png"
_PICTURES_PER_ROW = 8


def compare(config: config_lib.Config) -> None:
    """Compares runs with the first of them, on the images that all of them were evaluated on.

    Writes comparison.json, and a picture of images that the first two classify differently, to the
    settings' model_dir, or to the current directory.

    Args:
        config: the settings, with the run directories.

    Raises:
        UserError: if there are fewer than two runs, or they were evaluated on different images.
    """
    folders = folders_of(config)
    output = config.model_dir or "."
    directory.ensure_writable(output)
    measured = measure(folders, seed=config.seed)
    _print(measured)
    storage.write_json(os.path.join(output, RESULT), measured.to_json())
    picture = draw_disagreements(measured, measured.folders)
    if picture is not None:
        path = os.path.join(output, PICTURE)
        storage.write_png(path, picture)
        console.say(f"{path}: images where the first two runs differ.")


@dataclasses.dataclass(frozen=True)
class Measured:
    """Runs, each compared with the first of them.

    Attributes:
        folders: the run directories.
        found: the predictions of each run for the same images, in one order.
        accuracies: the accuracy of each run.
        compared: each run but the first, compared with that.
        adjusted: the p-values of these, adjusted for their number.
        groups: number of groups of the images; None if images are independent.
    """

    folders: list[str]
    found: list[predictions_lib.Predictions]
    accuracies: list[intervals.Interval]
    compared: list[comparison.Comparison]
    adjusted: list[float]
    groups: int | None

    def to_json(self) -> dict[str, Any]:
        """Returns the content of comparison.json."""
        return {
            "images": len(self.found[0].names),
            **({} if self.groups is None else {"groups": self.groups}),
            "runs": [
                {
                    "run": folder,
                    "global_step": one.step,
                    "accuracy": a.value,
                    "accuracy_95": [a.low, a.high],
                }
                for folder, one, a in zip(self.folders, self.found, self.accuracies, strict=True)
            ],
            "against_first": [
                {
                    "run": folder,
                    "difference": one.difference.value,
                    "difference_95": [one.difference.low, one.difference.high],
                    "only_first": one.only_first,
                    "only_this": one.only_second,
                    "p": one.p,
                    "p_adjusted": p,
                }
                for folder, one, p in zip(
                    self.folders[1:], self.compared, self.adjusted, strict=True
                )
            ],
        }


def measure(folders: list[str], *, seed: int) -> Measured:
    """Compares the predictions of runs with those of the first.

    Args:
        folders: the run directories.
        seed: seed of the intervals.

    Raises:
        UserError: if the runs were evaluated on different images, or not at all.
    """
    found = [predictions_lib.read(folder) for folder in folders]
    found[1:] = [
        _in_same_order(found[0], folders[0], other, folder)
        for other, folder in zip(found[1:], folders[1:], strict=True)
    ]
    groups = _common_groups(folders, found)
    compared = [
        comparison.compare(found[0].right, one.right, seed=seed, groups=groups) for one in found[1:]
    ]
    return Measured(
        folders,
        found,
        [intervals.accuracy(one.right, groups, seed=seed) for one in found],
        compared,
        comparison.holm([one.p for one in compared]),
        None if groups is None else len(set(groups)),
    )


def folders_of(config: config_lib.Config) -> list[str]:
    """Returns the run directories as absolute paths."""
    folders = [paths.absolute(folder) for folder in text.listed(config.runs)]
    if len(folders) < 2:
        raise errors.ArgumentError(
            "runs", config.runs, "must name at least two run directories, as in --runs=A,B."
        )
    same = [folder for folder in folders if folders.count(folder) > 1]
    if same:
        raise errors.ArgumentError("runs", config.runs, f"names {same[0]} twice; name it once.")
    return folders


def _in_same_order(
    first: predictions_lib.Predictions,
    first_folder: str,
    other: predictions_lib.Predictions,
    folder: str,
) -> predictions_lib.Predictions:
    """Returns the other predictions in the order of the first.

    Raises:
        UserError: if they are of other images, or the same images have other labels.
    """
    missing = sorted(set(first.names) ^ set(other.names))
    if missing:
        raise errors.UserError(
            f"{first_folder} and {folder} were not evaluated on the same images: {len(missing):,} "
            f"are only in one of them ({text.shortened(missing)}); evaluate both with --mode=eval "
            "on the same --dataset, --data_dir, --eval_split and --eval_steps."
        )
    position = {name: index for index, name in enumerate(other.names)}
    order = np.array([position[name] for name in first.names])
    ordered = predictions_lib.Predictions(
        other.step,
        other.names[order],
        other.labels[order],
        other.predicted[order],
        other.probability[order],
        None if other.groups is None else other.groups[order],
    )
    differing = first.names[first.labels != ordered.labels]
    if len(differing):
        raise errors.UserError(
            f"{first_folder} and {folder} have different labels for {len(differing):,} images "
            f"({text.shortened(list(differing))}), so their accuracies cannot be compared; "
            "evaluate both on the same data."
        )
    return ordered


def _common_groups(
    folders: list[str], found: list[predictions_lib.Predictions]
) -> np.ndarray | None:
    """Returns the groups of the images, by the runs that were evaluated with --group, if any.

    Raises:
        UserError: if two runs have different groups.
    """
    grouped = [
        (folder, one.groups)
        for folder, one in zip(folders, found, strict=True)
        if one.groups is not None
    ]
    if not grouped:
        return None
    (first_folder, groups), *others = grouped
    for folder, other in others:
        differing = found[0].names[groups != other]
        if len(differing):
            raise errors.UserError(
                f"{first_folder} and {folder} have different groups for {len(differing):,} images "
                f"({text.shortened(list(differing))}); evaluate both with the same --group."
            )
    return groups


def _print(measured: Measured) -> None:
    folders, found, accuracies = measured.folders, measured.found, measured.accuracies
    groups = measured.groups
    first = [f"{folders[0]}, step {found[0].step:,}", accuracies[0].percent()]
    rows = [[*first, "", "", ""]]
    for folder, of_run, accuracy, one, p in zip(
        folders[1:], found[1:], accuracies[1:], measured.compared, measured.adjusted, strict=True
    ):
        value, low, high = (100 * number for number in one.difference)
        rows.append(
            [
                f"{folder}, step {of_run.step:,}",
                accuracy.percent(),
                f"{value:+.1f} ({low:+.1f} to {high:+.1f})",
                f"{one.only_second} : {one.only_first}",
                f"{p:.2g}",
            ]
        )
    header = ["run", "accuracy (95%)", "difference, points (95%)", "only this : only first", "p"]
    title, test, choice = f"{len(found[0].names):,} images", "McNemar's exact test", "images"
    if groups is not None:
        title += f", intervals over {groups:,} groups"
        test, choice = "a sign-flip test of the differences of groups", "groups"
    console.table(title, header, rows)
    console.say(
        f"p: {test} against the first run, adjusted for the number of comparisons. It covers the "
        f"choice of the {choice}, not that of the training seed."
    )


def draw_disagreements(measured: Measured, names: Sequence[str]) -> np.ndarray | None:
    """Draws images that only the first run, and that only the second, classifies right.

    Args:
        measured: the result of `measure`.
        names: what the runs are called where the picture is shown.

    Returns:
        The picture (h, w, 3) uint8; None if there is none, which is said.
    """
    folders, (first, second) = measured.folders, measured.found[:2]
    wanted = {
        f"only {names[0]} is right": np.flatnonzero(first.right & ~second.right),
        f"only {names[1]} is right": np.flatnonzero(second.right & ~first.right),
    }
    wanted = {caption: rows[:_PICTURES_PER_ROW] for caption, rows in wanted.items() if len(rows)}
    if not wanted:
        console.say("The first two runs are right about the same images, so there is no picture.")
        return None
    try:
        images = _images(folders[0], first.names[np.concatenate(list(wanted.values()))])
    except (errors.UserError, tf.errors.OpError) as error:
        console.warn(f"Images where the runs differ could not be drawn ({text.reason(error)}).")
        return None
    rows = [
        (caption, np.stack([images[name] for name in first.names[indices]]))
        for caption, indices in wanted.items()
    ]
    return contact_sheet.draw(rows)


def _images(folder: str, names: np.ndarray) -> dict[str, np.ndarray]:
    """Returns some of the images that a run was evaluated on, (s, s, 3) in [0, 1], by name."""
    config = directory.read_config(folder)
    if config is None:
        raise errors.UserError(f"{folder} has no settings")
    source = dataset.open_source(config)
    order = source.example_names(config.eval_split)
    architecture = directory.read_architecture(folder)
    pixels = pixel_format.RGB if architecture is None else architecture.pixels
    channels = shown.choose(pixels, config.show_channels)
    source = source.with_pixels(pixels)
    batches = evaluation_images.batches(
        source, config.eval_split, batch_size=1, image_size=config.image_size
    )
    rest = set(names)
    images: dict[str, np.ndarray] = {}
    for name, batch in zip(order, batches, strict=True):
        if name in rest:
            images[name] = shown.as_rgb(batch["image"][0].numpy(), channels)
            rest.remove(name)
        if not rest:
            break
    return images
