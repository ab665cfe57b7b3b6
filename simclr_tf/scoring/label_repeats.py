"""The linear evaluation with few labels: of each draw, and their mean and standard deviation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from simclr_tf.evaluation import features, outcome
from simclr_tf.runs import few_labels, opening
from simclr_tf.scoring import groups as groups_lib
from simclr_tf.scoring import linear_fits


def of_draw(run: opening.Run, extracted: features.Extracted, draw: int) -> features.Extracted:
    """Returns the rows of the training split whose labels a draw uses.

    Args:
        run: the run.
        extracted: what was extracted from the images of all draws.
        draw: position of the draw in the run's list; without draws, all rows are returned.
    """
    draws = run.data.draws
    if len(draws) < 2:
        return extracted
    names = np.array(run.data.source.example_names(run.data.train_split), object)
    label_of = draws[draw].label_of
    rows = np.array([name in label_of for name in names[extracted.positions]])
    selected = {
        field.name: None if value is None else value[rows]
        for field in dataclasses.fields(extracted)
        for value in (getattr(extracted, field.name),)
    }
    return features.Extracted(**selected)


def repeat(
    run: opening.Run,
    extracted: features.Extracted,
    test: features.Extracted,
    first: dict[str, Any],
) -> outcome.Outcome:
    """Repeats the linear evaluation for all draws but the first, and describes the labels.

    Args:
        run: the run.
        extracted: what was extracted from the training images of all draws.
        test: what was extracted from the evaluated images.
        first: the numbers of the first draw, among others.
    """
    found = _describe(run)
    numbers = [{name: first[name] for name in first if name.startswith("linear_eval/")}]
    for draw in range(1, len(run.data.draws)):
        train, of_draw_numbers = of_draw(run, extracted, draw), dict[str, Any]()
        labels = (train.labels, test.labels)
        linear_fits.evaluate(
            *(run, "linear_eval", train.features, test.features, labels, of_draw_numbers),
            groups=groups_lib.of_both(run, train, test),
        )
        numbers.append(of_draw_numbers)
    if len(numbers) > 1:
        _add_repeats(found, numbers)
    return found


def _describe(run: opening.Run) -> outcome.Outcome:
    """Returns how many labels the evaluation reads, and the list of their images."""
    found, first = outcome.Outcome(), run.data.draws[0]
    sizes = sorted(first.sizes.values())
    found.numbers = {
        "few_labels/images": len(first.label_of),
        "few_labels/classes": len(sizes),
        "few_labels/smallest_class": sizes[0],
        "few_labels/largest_class": sizes[-1],
        "few_labels/draws": len(run.data.draws),
    }
    found.rows = [(f"labels used (draw {first.number})", first.summary())]
    found.tables = {few_labels.LIST: few_labels.rows(run.data.draws)}
    return found


def _add_repeats(found: outcome.Outcome, numbers: list[dict[str, Any]]) -> None:
    """Adds the mean and the standard deviation over draws of the accuracies of a classifier.

    Args:
        found: what `_describe` returned.
        numbers: of each draw, name in result.json -> number.
    """
    for name in numbers[0]:
        if not name.endswith("_accuracy"):
            continue
        values = np.array([of_draw[name] for of_draw in numbers])
        mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
        found.numbers[f"few_labels/{name}"] = [float(value) for value in values]
        found.numbers[f"few_labels/{name}_mean"] = mean
        found.numbers[f"few_labels/{name}_std"] = deviation
        what = name.removesuffix("_accuracy").replace("linear_eval/", "linear evaluation, ")
        what = what.replace("_", "-")
        found.rows.append(
            (f"{what}: mean of {len(values)} draws", f"{mean:.1%}, deviation {100 * deviation:.1f}")
        )
