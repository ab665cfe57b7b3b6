"""Extracts the features that evaluations read, and reports which images are left out."""

from __future__ import annotations

import numpy as np

from simclr_tf import console
from simclr_tf.data import layout
from simclr_tf.evaluation import features, forward
from simclr_tf.runs import opening

_FEATURES = "features"


def number_of_examples(run: opening.Run, split: str) -> int:
    """Returns how many examples of a split an evaluation reads, if all of them have labels."""
    config, count = run.config, run.data.source.num_examples(split)
    if split == run.data.train_split and run.data.draws:
        return len(set().union(*(draw.label_of for draw in run.data.draws)))
    if split == run.data.train_split:
        return min(count, config.linear_eval_examples)
    return min(count, config.eval_steps * config.eval_batch_size or count)


def extract(
    run: opening.Run, network: forward.Forward, split: str, *, what: str = _FEATURES
) -> features.Extracted:
    """Runs a network over the labelled images of a split.

    Args:
        run: the run.
        network: the network and what to extract. One for all splits is compiled once.
        split: the training or the evaluation split.
        what: name of the work in the progress line.
    """
    config, count = run.config, run.data.source.num_examples(split)
    limit = number_of_examples(run, split)
    of_all_labels = split == run.data.train_split and not run.data.draws
    if of_all_labels and limit < count and what == _FEATURES:
        console.say(
            f"The linear evaluation learns from the first {limit:,} of {count:,} images "
            "(--linear_eval_examples)."
        )
    return features.extract(
        network,
        run.data.source,
        split,
        batch_size=config.eval_batch_size,
        limit=limit,
        labelled_only=True,
        progress=what,
    )


def say_left_out(run: opening.Run, split: str, used: int) -> None:
    """Reports that images of a split have no label, if fewer were used than requested."""
    if used < number_of_examples(run, split):
        console.say(
            f"Evaluated are the {used:,} of {run.data.source.num_examples(split):,} images of "
            f"{split!r} that have labels."
        )


def warn_of_missing_classes(run: opening.Run, labels: np.ndarray) -> None:
    """Warns of classes that the evaluated images do not have.

    Args:
        run: the run.
        labels: (n,) their classes, or (n, c) of several.
    """
    names = run.data.source.class_names
    assert names is not None
    several = labels.ndim > 1
    numbers = np.flatnonzero(np.any(labels == 1, 0)) if several else np.unique(labels[labels >= 0])
    present = [names[label] for label in numbers]
    missing = layout.missing_classes(run.data.eval_split, present, names, what="evaluated images")
    if missing:
        what = "means" if several else "accuracies"
        console.warn(f"{missing} The {what} are of the other classes only.")
