"""Studies that need no training: what is measured for the values of their axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import math
import os
from typing import Any

from matplotlib import figure as figure_lib
import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf.data import evaluation_images, views
from simclr_tf.evaluation import color_histograms, outcome
from simclr_tf.losses import positive_gradients
from simclr_tf.runs import builders, dataset
from simclr_tf.studies import attempts, cells, definition, outcomes

_BATCH, _MOST_IMAGES = 250, 5000
_PROJECTIONS = 128
_SHOWN_IMAGES, _SHOWN_CROPS = 2, 6


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a measurement found for one cell.

    Attributes:
        right: name of an image -> whether it was recognised; empty if images are not the unit.
        numbers: further numbers by name.
    """

    right: Mapping[str, bool]
    numbers: Mapping[str, float]


Measure = Callable[[config_lib.Config, definition.Labels], Measured]


def outcomes_of(study: definition.Study, overrides: Mapping[str, Any]) -> list[outcomes.Outcome]:
    """Returns the results of a study without training.

    Args:
        study: a study with a measurement.
        overrides: flags of the command line.

    Raises:
        UserError: if its data cannot be read or its settings cannot be combined.
    """
    found = []
    measure = MEASUREMENTS[study.measurement or ""].measure
    for labels in study.all_labels():
        for seed in study.seeds:
            run = cells.make_run(study, labels, seed, overrides=overrides)
            measured = measure(run.config(os.curdir), labels)
            record = attempts.Record(attempts.DONE, (), 0.0, 0.0, 0, 1, "", 1)
            cell = cells.Cell(labels, seed, run)
            found.append(outcomes.Outcome(cell, measured.right, measured.numbers, 0, 0, record))
    return found


def _views(config: config_lib.Config, number: int, num_views: int) -> tuple[list[str], np.ndarray]:
    """Returns the names of the first images of the evaluation split, and views of them.

    Returns:
        The names, and (n, v, s, s, 3) in [0, 1], in the order of the names.
    """
    source, made = dataset.open_source(config), []
    names = source.example_names(config.eval_split)[:number]
    batches = evaluation_images.batches(
        source, config.eval_split, batch_size=_BATCH, image_size=config.image_size
    ).take(math.ceil(len(names) / _BATCH))
    for index, batch in enumerate(batches):
        seed = tf.constant([config.seed, index])
        policy = builders.policy_of(config)
        made.append(views.make_views(batch["image"], seed, policy, num_views=num_views).numpy())
    return names, np.concatenate(made)[: len(names)]


def _color_histograms(config: config_lib.Config, labels: definition.Labels) -> Measured:
    del labels  # The flags say it all.
    names, made = _views(config, _MOST_IMAGES, 2)
    right = color_histograms.recognised(made[:, 0], made[:, 1])
    return Measured(dict(zip(names, map(bool, right), strict=True)), {})


def _positive_gradients(config: config_lib.Config, labels: definition.Labels) -> Measured:
    norms = positive_gradients.norms(
        float(labels["cosine"]),
        images=config.train_batch_size,
        dimensions=_PROJECTIONS,
        temperature=config.temperature,
        seed=config.seed,
    ).numpy()
    return Measured({}, {"gradient_norm": float(norms.mean())})


def draw_histograms(study: definition.Study, overrides: Mapping[str, Any]) -> outcome.Draw:
    """Returns what draws the histograms of crops of two images, as in SimCLR's figure 6."""
    made = []
    for labels in study.all_labels():
        run = cells.make_run(study, labels, study.seeds[0], overrides=overrides)
        _, shown = _views(run.config(os.curdir), _SHOWN_IMAGES, _SHOWN_CROPS)
        made.append((definition.described(labels), shown))

    def draw(target: figure_lib.Figure) -> None:
        rows = [(title, one) for title, shown in made for one in shown]
        axes = target.subplots(len(rows), _SHOWN_CROPS, sharex=True, squeeze=False)
        for of_row, (title, shown) in zip(axes, rows, strict=True):
            for axis, view in zip(of_row, shown, strict=True):
                levels = view.mean(-1).ravel()
                axis.hist(
                    levels,
                    bins=color_histograms.BINS,
                    range=(0, 1),
                    histtype="stepfilled",  # One path, which keeps the file small.
                    color="#555555",
                )
                axis.set_yticks([])
                axis.inset_axes((0.62, 0.55, 0.38, 0.45)).imshow(view)
                axis.child_axes[0].axis("off")
            of_row[0].set_ylabel(title.replace(", ", ",\n"), fontsize=7)

    return draw


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A measurement, and a picture beside its figure.

    Attributes:
        measure: measures one cell.
        picture: returns what draws the picture; None if there is none.
    """

    measure: Measure
    picture: Callable[[definition.Study, Mapping[str, Any]], outcome.Draw] | None = None


# Of each name in `definition.MEASUREMENTS`.
MEASUREMENTS = {
    "color_histograms": Measurement(_color_histograms, draw_histograms),
    "positive_gradients": Measurement(_positive_gradients),
}


def picture_of(study: definition.Study, overrides: Mapping[str, Any]) -> outcome.Draw | None:
    """Returns what draws a picture beside the figure of a study; None if there is none."""
    picture = MEASUREMENTS[study.measurement].picture if study.measurement is not None else None
    return picture(study, overrides) if picture is not None else None
