"""What the list of all studies says of one, from its results or from the file of earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
import os
from typing import Any

from simclr_tf import errors, storage
from simclr_tf.evaluation import contrasts, intervals
from simclr_tf.studies import definition, results


@dataclasses.dataclass(frozen=True)
class Summary:
    """A study in the list of all studies.

    Attributes:
        study: the study.
        tested: the test of each expected order; None if one of its cells is not done.
        cells: number of cells that are done, each seed counted.
        costs: how long each run took, in seconds, by its identity.
    """

    study: definition.Study
    tested: Sequence[contrasts.Contrast | None]
    cells: int
    costs: Mapping[str, float]


def of_results(found: results.Results) -> Summary:
    """Returns the summary of results."""
    tested = [one.contrast for one in found.verdicts]
    return Summary(found.study, tested, len(found.finished), found.costs)


def path_of(folder: str, study: definition.Study) -> str:
    """Returns the file of the results of a study."""
    return os.path.join(folder, f"{study.name}.json")


def read(folder: str, study: definition.Study) -> Summary | None:
    """Returns the summary of the results that the program wrote earlier.

    Args:
        folder: where they are.
        study: the study.

    Returns:
        None if there are none, or if they are of other expected orders.

    Raises:
        UserError: if the file cannot be read.
    """
    path = path_of(folder, study)
    if not os.path.exists(path):
        return None
    stored = storage.read_json(path)
    try:
        if stored["orders_sha256"] != study.orders_hash:
            return None
        return Summary(
            study,
            [_contrast(one) for one in stored["orders"]],
            len(stored["cells"]),
            {str(run): float(seconds) for run, seconds in stored["costs"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise errors.UserError(
            f"{path} is not a file of results ({error!r}); delete it and run the study again."
        ) from error


def _contrast(stored: Mapping[str, Any]) -> contrasts.Contrast | None:
    """Returns the test of an order, None if one of its cells was not done."""
    if "p" not in stored:
        return None
    values = (stored["difference"], *stored["difference_95"])
    return contrasts.Contrast(
        intervals.Interval(*(_number(value) for value in values)),
        tuple(_number(value) for value in stored["of_seeds"]),
        float(stored["p"]),
        tuple(stored["mcnemar"]),
    )


def _number(stored: float | None) -> float:
    """Returns a number, NaN for one that JSON could not hold."""
    return math.nan if stored is None else float(stored)
