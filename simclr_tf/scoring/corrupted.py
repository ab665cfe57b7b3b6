"""Predictions for corrupted images, which are made here or are those of a prepared data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.data import corruptions
from simclr_tf.evaluation import in_memory, robustness
from simclr_tf.runs import dataset, opening
from simclr_tf.scoring import other_images

if TYPE_CHECKING:
    from simclr_tf.scoring import network

# The same for all runs, so that they are compared on the same images.
_SEED = 0
# What prepared data sets call some corruptions.
_OTHER_NAMES = {"elastic_transform": "elastic", "glass_blur": "frosted_glass_blur"}
# The memory that images take is reported where it is larger.
_MUCH_MEMORY = 2**30


class Corrupted(NamedTuple):
    """What was found of one corruption of one severity.

    Attributes:
        cell: the predictions.
        example: (s, s, 3) uint8, the first image; None of a prepared data set.
    """

    cell: robustness.Cell
    example: np.ndarray | None


def made(context: network.Context) -> Iterator[Corrupted]:
    """Yields what is found of the evaluated images, first as they are, then of each corruption.

    The images are read once, as the network sees them. Those that are corrupted are drawn without
    looking at their labels.

    Raises:
        UserError: if they do not fit in memory, or cannot be corrupted.
    """
    config, side = context.run.config, context.model.architecture.image_size
    number = examples(context.run.config, len(context.test.labels))
    rows = np.sort(np.random.default_rng(_SEED).permutation(len(context.test.labels))[:number])
    positions, labels = context.test.positions[rows], context.test.labels[rows]
    split = context.run.data.eval_split
    needed = 2 * number * side * side * 3
    if needed > _MUCH_MEMORY:
        dataset.check_memory("corruption_examples", split, needed)
    blocks = other_images.read(context.run.data.source, split, side, wanted=positions, limit=number)
    images = np.concatenate([block for block, _ in blocks])
    classify = _classifier(context, number)
    clean = robustness.measure(*robustness.CLEAN, classify(images), labels)
    yield Corrupted(clean, images[0])
    kinds = [(name, level) for name in config.corruption_names for level in config.severities]
    with corruptions.workers(number * len(kinds)) as workers:
        for name, severity in kinds:
            corrupted = workers.corrupt(images, positions, name, severity, seed=_SEED)
            cell = robustness.measure(name, severity, classify(corrupted), labels)
            yield Corrupted(cell, corrupted[0])


def prepared(context: network.Context) -> Iterator[Corrupted]:
    """Yields the same of the evaluation split, and of each configuration of --corrupted_dataset.

    Raises:
        UserError: if there is no such configuration, or it has other classes.
    """
    config, inputs = context.run.config, context.inputs
    side = context.model.architecture.image_size
    classify = _classifier(context, config.eval_batch_size)
    clean = robustness.measure(*robustness.CLEAN, inputs.test_scores, inputs.test_labels)
    yield Corrupted(clean, None)
    for name in config.corruption_names:
        for severity in config.severities:
            other = open_prepared(config, name, severity)
            classes = other_images.class_numbers("corrupted_dataset", other, inputs.class_names)
            limit = examples(config, other.source.num_examples(other.split))
            with other_images.explained(other.name):
                blocks = [
                    (classify(images), classes[labels])
                    for images, labels in other_images.read(
                        other.source, other.split, side, wanted=None, limit=limit
                    )
                ]
            scores, labels = (np.concatenate(parts) for parts in zip(*blocks))
            yield Corrupted(robustness.measure(name, severity, scores, labels), None)


def examples(config: config_lib.Config, count: int) -> int:
    """Returns how many of a number of images --corruption_examples selects."""
    return min(count, config.corruption_examples or count)


def open_prepared(config: config_lib.Config, name: str, severity: int) -> other_images.OtherSet:
    """Opens the configuration of --corrupted_dataset with one corruption of one severity.

    Raises:
        UserError: if there is none.
    """
    problem: errors.UserError | None = None
    for one in filter(None, (name, _OTHER_NAMES.get(name))):
        full = f"{config.corrupted_dataset}/{one}_{severity}"
        try:
            return other_images.open_sets(config, "corrupted_dataset", [full], labels="folders")[0]
        except errors.UserError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _classifier(context: network.Context, images: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from images (n, s, s, 3) uint8 to class scores (n, c).

    Args:
        context: the network and its classifier.
        images: the most images that it is called with, as far as known.
    """
    run: opening.Run = context.run
    batch = min(run.config.eval_batch_size, images)
    network_of_images = in_memory.Network(context.model, batch_size=batch, strategy=run.strategy)
    return lambda images: context.class_scores(*network_of_images(images))
