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
    yield from _objectives(config)
    if config.samples_per_class:
        flag = f"--samples_per_class={config.samples_per_class}"
        yield flag, "draws batches class by class", leave_out
    if config.has_few_labels:
        flag = f"--label_fraction={config.label_fraction:g}"
        if config.labels_per_class:
            flag = f"--labels_per_class={config.labels_per_class}"
        remedy = "leave it out, or learn from fewer images, such as --train_split='train[:10%]'"
        yield flag, "draws labels class by class", remedy


def _objectives(config: config_lib.Config) -> Iterator[tuple[str, str, str]]:
    """Yields the same for objectives, and for settings of SupCon."""
    objective = config.resolved_objective
    if objective in ("supcon_in", "n_pairs"):
        why = "compares images by their one class"
        yield f"--objective={objective}", why, "use --objective=supcon or nt_xent"
    if objective == "distill":
        why = "teaches probabilities of classes that exclude each other"
        yield "--objective=distill", why, "use --objective=supervised"
    if objective == "supcon" and config.supcon_positives:
        flag = f"--supcon_positives={config.supcon_positives}"
        yield flag, "counts the positives of one class", "leave it out"
    if objective == "supcon" and config.supcon_class_average:
        why = "averages the views of each class, as if each were of one"
        yield "--supcon_class_average", why, "leave it out"
    if objective == "supcon" and config.decoupled:
        yield "--decoupled", "leaves the views of one class out", "leave it out"
