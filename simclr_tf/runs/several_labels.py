"""Refuses settings that have no meaning for images that may have several labels."""

from __future__ import annotations

from collections.abc import Iterator

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.data import sources


def check(config: config_lib.Config, source: sources.Source) -> None:
    """Refuses settings of a run that are defined for images with one label each.

    Args:
        config: the settings.
        source: the data set, whose images may have several labels.

    Raises:
        UserError: for the first of them, with the remedy.
    """
    for flag, why, remedy in _without_meaning(config):
        raise errors.UserError(
            f"{flag} {why}, and the images of {source.name} may have several labels; {remedy}."
        )


def _without_meaning(config: config_lib.Config) -> Iterator[tuple[str, str, str]]:
    """Yields a flag, why it needs one label per image, and what to do instead."""
    leave_out = "leave it out"
    if config.label_smoothing:
        flag = f"--label_smoothing={config.label_smoothing:g}"
        yield flag, "spreads one label over the other classes", leave_out
    for name in ("mixup", "cutmix"):
        value = getattr(config, name)
        if value:
            yield f"--{name}={value:g}", "weighs the labels of two images with one each", leave_out
    if config.resolved_objective in (*config_lib.SUPERVISED_CONTRAST, "distill"):
        other = "nt_xent" if config.contrastive else "supervised"
        why = "compares images by their one class"
        if config.resolved_objective == "distill":
            why = "teaches probabilities of classes that exclude each other"
        yield f"--objective={config.resolved_objective}", why, f"use --objective={other}"
    if config.samples_per_class:
        flag = f"--samples_per_class={config.samples_per_class}"
        yield flag, "draws batches class by class", leave_out
    if config.has_few_labels:
        flag = f"--label_fraction={config.label_fraction:g}"
        if config.labels_per_class:
            flag = f"--labels_per_class={config.labels_per_class}"
        remedy = "leave it out, or list fewer images in the file of labels"
        yield flag, "draws labels class by class", remedy
