"""Checks data sets whose images may have several labels, see `data.indicators`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simclr_tf import config as config_lib
from simclr_tf import console, errors
from simclr_tf.data import sources, subsets
from simclr_tf.runs import few_labels


def check_settings(config: config_lib.Config, name: str) -> None:
    """Refuses settings that need one label per image.

    Args:
        config: the settings.
        name: name of the data set.

    Raises:
        UserError: if there is such a setting.
    """
    if config.transfer_grid != "none":
        raise errors.UserError(
            f"--transfer_grid={config.transfer_grid} fine-tunes on images with one label each, and "
            f"those of {name} may have several; use --transfer_grid=none, or leave {name} out."
        )
    if config.has_few_labels:
        raise errors.UserError(
            f"{few_labels.settings_text(config)} draws images class by class, and those of {name} "
            f"may have several classes; leave it out, or leave {name} out of --transfer_to."
        )


def check_splits(name: str, source: sources.Source, learned: str, scored: str) -> None:
    """Reads the labels of two splits, and refuses those without which nothing can be measured.

    Args:
        name: name of the data set.
        source: the data set.
        learned: the split to learn from.
        scored: the split to score on.

    Raises:
        UserError: see `check`.
    """
    assert source.class_names is not None
    with console.working(f"Reading the labels of {name}"):
        labels = [subsets.read_names_and_labels(source, split)[1] for split in (learned, scored)]
    check(name, source.class_names, *labels)


def check(name: str, class_names: Sequence[str], learned: np.ndarray, scored: np.ndarray) -> None:
    """Refuses labels with a class that cannot be learned or scored.

    Args:
        name: name of the data set.
        class_names: names of the c classes.
        learned: (n, c) labels of the images to learn from.
        scored: (m, c) those of the images to score.

    Raises:
        UserError: if an image of the class, or one without it, is missing among them.
    """
    to_learn, to_score = (
        f"{len(learned):,} images to learn from",
        f"{len(scored):,} images to score",
    )
    for problem, flag, missing in (
        (f"none of the {to_learn} shows", "train_split", ~np.any(learned == 1, 0)),
        (f"all of the {to_learn} show", "train_split", ~np.any(learned == 0, 0)),
        (f"none of the {to_score} shows", "eval_split", ~np.any(scored == 1, 0)),
    ):
        lacking = [class_names[column] for column in np.flatnonzero(missing)]
        if lacking:
            others = f" ({len(lacking)} of {len(class_names)} classes)" if lacking[1:] else ""
            raise errors.UserError(
                f"--transfer_to names {name}, of which {problem} the class {lacking[0]!r}{others}; "
                f"set --{flag} to other images, or leave {name} out."
            )
