"""The evaluation on other data sets of the same classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simclr_tf import console, text
from simclr_tf.evaluation import outcome, shifts
from simclr_tf.runs import opening
from simclr_tf.scoring import other_images

if TYPE_CHECKING:
    from simclr_tf.scoring import network

_FLAG = "shift_datasets"


def check(run: opening.Run) -> None:
    """Opens the data sets, so that what is wrong with them is reported before long work.

    Raises:
        UserError: if one cannot be opened, or has other classes or no labels.
    """
    assert run.data.source.class_names is not None
    for other in _open(run):
        other_images.class_numbers(_FLAG, other, run.data.source.class_names)


def evaluate(context: network.Context) -> outcome.Outcome:
    """Evaluates the classifier on each data set of --shift_datasets.

    Raises:
        UserError: as `check`, or if an image cannot be read.
    """
    inputs = context.inputs
    test = shifts.Predictions(inputs.test_scores, inputs.test_labels)
    found = {}
    for other in _open(context.run):
        of_other = other_images.class_numbers(_FLAG, other, inputs.class_names)
        extracted = other_images.extract(context, other, labelled_only=True)
        labels = of_other[extracted.labels]
        _say_missing(other, labels, inputs)
        found[other.short] = shifts.Predictions(
            context.class_scores(extracted.features, extracted.logits), labels
        )
    return shifts.evaluate(test, found)


def _open(run: opening.Run) -> list[other_images.OtherSet]:
    return other_images.open_sets(run.config, _FLAG, run.config.shift_names, labels="folders")


def _say_missing(other: other_images.OtherSet, labels: np.ndarray, inputs: outcome.Inputs) -> None:
    """Reports that a data set has no images of some evaluated classes."""
    missing = np.setdiff1d(inputs.test_labels, labels)
    if len(missing):
        names = [inputs.class_names[label] for label in missing]
        console.say(
            f"{other.name} has no images of {len(missing):,} of the {len(inputs.class_names):,} "
            f"classes ({text.shortened(names)}); its images are classified as one of all classes, "
            "and the drop is from images of the same classes."
        )
