"""Pictures of the wrong predictions that a classifier was most certain of."""

from __future__ import annotations

import numpy as np
import scipy

from simclr_tf.data import shown
from simclr_tf.evaluation import outcome, thumbnails

_ROWS, _COLUMNS = 3, 8


def pictures(
    inputs: outcome.Inputs, small: thumbnails.Thumbnails
) -> list[tuple[str, list[outcome.Tile]]]:
    """Returns rows of images: of the wrong predictions, those with the highest probability.

    Below an image are the predicted class with its probability, and the label.

    Args:
        inputs: what the evaluations read.
        small: small copies of evaluated images; others are not shown.
    """
    log_p = scipy.special.log_softmax(inputs.test_scores[small.rows].astype(np.float64), 1)
    predicted, labels = np.argmax(log_p, 1), inputs.test_labels[small.rows]
    certainty = np.max(log_p, 1)
    order = np.argsort(-certainty, kind="stable")
    wrong = order[predicted[order] != labels[order]][: _ROWS * _COLUMNS]
    names = inputs.class_names
    tiles = [
        outcome.Tile(
            small.images[index] / 255,
            (
                f"{names[predicted[index]]} ({np.exp(certainty[index]):.1%})",
                f"label: {names[labels[index]]}",
            ),
        )
        for index in wrong
    ]
    starts = range(0, len(tiles), _COLUMNS)
    return [
        (
            shown.with_channels(
                f"most certain wrong predictions, from number {start + 1}", small.channels
            ),
            tiles[start : start + _COLUMNS],
        )
        for start in starts
    ]
