"""The evaluation on data sets of other classes: whether the network shows that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simclr_tf.evaluation import ood, outcome
from simclr_tf.runs import opening
from simclr_tf.scoring import other_images

if TYPE_CHECKING:
    from simclr_tf.scoring import network


def check(run: opening.Run) -> None:
    """Opens the data sets, so that what is wrong with them is reported before long work.

    Raises:
        UserError: if one cannot be opened.
    """
    _open(run)


def evaluate(context: network.Context) -> outcome.Outcome:
    """Scores the images of each data set of --ood_datasets, with labels or without.

    Raises:
        UserError: if a data set cannot be opened, or an image cannot be read.
    """
    inputs = context.inputs
    found = {}
    for other in _open(context.run):
        extracted = other_images.extract(context, other, labelled_only=False)
        found[other.short] = ood.Images(
            extracted.features, context.class_scores(extracted.features, extracted.logits)
        )
    test = ood.Images(inputs.test_features, inputs.test_scores)
    return ood.evaluate(inputs.train_features, inputs.train_labels, test, found)


def _open(run: opening.Run) -> list[other_images.OtherSet]:
    return other_images.open_sets(run.config, "ood_datasets", run.config.ood_names, labels="none")
