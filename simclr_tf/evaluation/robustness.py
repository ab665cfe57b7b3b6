"""Robustness to corruptions: accuracy and calibration at every severity, and their means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy

from simclr_tf import text
from simclr_tf.evaluation import calibration, intervals, outcome

if TYPE_CHECKING:
    from matplotlib import figure

# The corruption and the severity of images that are not corrupted.
CLEAN = ("none", 0)
# The key in result.json of the numbers that another run compares itself with.
CELLS = "robustness/cells"


class Score(NamedTuple):
    """How well images with one corruption of one severity are classified.

    Attributes:
        accuracy: fraction of right predictions.
        ece: expected calibration error, see `calibration`.
    """

    accuracy: float
    ece: float


@dataclasses.dataclass(frozen=True)
class Cell:
    """The predictions for n images with one corruption of one severity.

    Attributes:
        corruption: its name.
        severity: 1 to 5; 0 for images that are not corrupted.
        hits: (n,) bool, which predictions are right.
        labels: (n,) the classes.
        ece: expected calibration error, see `calibration`.
    """

    corruption: str
    severity: int
    hits: np.ndarray
    labels: np.ndarray
    ece: float

    @property
    def score(self) -> Score:
        """The accuracy and the calibration error."""
        return Score(float(np.mean(self.hits)), self.ece)


# (corruption, severity) -> score.
Scores = Mapping[tuple[str, int], Score]


def measure(corruption: str, severity: int, scores: np.ndarray, labels: np.ndarray) -> Cell:
    """Measures predictions for images with one corruption of one severity.

    Args:
        corruption: its name.
        severity: its severity.
        scores: (n, c) unnormalised log probabilities.
        labels: (n,) classes.
    """
    log_p = scipy.special.log_softmax(scores.astype(np.float64), 1)
    error = calibration.equal_width(log_p, labels).error()
    return Cell(corruption, severity, np.argmax(scores, 1) == labels, labels, error)


def evaluate(
    clean: Cell, cells: Sequence[Cell], baseline: tuple[str, Scores] | None
) -> outcome.Outcome:
    """Summarises the predictions for corrupted images.

    Args:
        clean: the predictions for images that are not corrupted.
        cells: those for corrupted images, for every corruption at every severity.
        baseline: the name of another run and its scores, which have at least the same keys; None
            for no comparison.

    Returns:
        The accuracy and calibration error of each cell, their means over all of them, and with a
        baseline the (relative) mean corruption error.
    """
    of_run = {(cell.corruption, cell.severity): cell.score for cell in (clean, *cells)}
    result = outcome.Outcome()
    result.add("robustness/clean_accuracy", "accuracy without corruption", _interval([clean]))
    result.add("robustness/mean_accuracy", "mean accuracy under corruption", _interval(cells))
    mean_error = float(np.mean([cell.ece for cell in cells]))
    what = "mean calibration error under corruption"
    result.add_number("robustness/mean_ece", what, mean_error, f"{mean_error:.2%}")
    result.numbers[CELLS] = {
        f"{corruption}/{severity}": list(score) for (corruption, severity), score in of_run.items()
    }
    result.tables["robustness.csv"] = _table((clean, *cells))
    curves = {"this run": of_run}
    if baseline is not None:
        name, of_baseline = baseline
        curves[name] = {key: of_baseline[key] for key in of_run}
        _add_comparison(result, of_run, of_baseline, name)
    result.figures["robustness.svg"] = lambda target: _draw(target, curves)
    return result


def scores_in(numbers: Any) -> Scores | None:
    """Returns the scores in the content of a result.json; None if there are none."""
    found = numbers.get(CELLS) if isinstance(numbers, dict) else None
    if not isinstance(found, dict):
        return None
    scores = {}
    for key, values in found.items():
        corruption, _, severity = key.rpartition("/")
        scores[corruption, int(severity)] = Score(*values)
    return scores


def corruption_errors(scores: Scores, baseline: Scores) -> dict[str, float]:
    """Returns the corruption error (CE) of each corruption (Hendrycks and Dietterich 2019).

    It is the error, summed over severities, divided by that of the baseline; NaN if the baseline
    makes no error.
    """
    return {
        name: _ratio(
            sum(1 - scores[key].accuracy for key in keys),
            sum(1 - baseline[key].accuracy for key in keys),
        )
        for name, keys in _by_corruption(scores).items()
    }


def relative_corruption_errors(scores: Scores, baseline: Scores) -> dict[str, float]:
    """Returns the same of the errors that a corruption adds to those without corruption.

    It is NaN if the corruption adds none to those of the baseline.
    """
    return {
        name: _ratio(
            sum(scores[CLEAN].accuracy - scores[key].accuracy for key in keys),
            sum(baseline[CLEAN].accuracy - baseline[key].accuracy for key in keys),
        )
        for name, keys in _by_corruption(scores).items()
    }


def _ratio(one: float, other: float) -> float:
    return one / other if other > 0 else float("nan")


def _by_corruption(scores: Scores) -> dict[str, list[tuple[str, int]]]:
    """Returns the keys of each corruption."""
    keys: dict[str, list[tuple[str, int]]] = {}
    for key in scores:
        if key != CLEAN:
            keys.setdefault(key[0], []).append(key)
    return keys


def _add_comparison(result: outcome.Outcome, scores: Scores, baseline: Scores, name: str) -> None:
    """Adds the errors relative to a baseline; a mean that is not defined is left out."""
    absolute = corruption_errors(scores, baseline)
    relative = relative_corruption_errors(scores, baseline)
    for key, what, values in (
        ("mce", f"mean corruption error (mCE), {name} = 100%", absolute),
        ("relative_mce", f"relative mCE, {name} = 100%", relative),
    ):
        undefined = [corruption for corruption, value in values.items() if np.isnan(value)]
        if undefined:
            result.rows.append((what, f"not defined for {text.shortened(undefined)}"))
            continue
        mean = float(np.mean(list(values.values())))
        result.add_number(f"robustness/{key}", what, mean, f"{mean:.1%}")
    result.tables["corruption_errors.csv"] = [
        ["corruption", "ce", "relative_ce"],
        *([one, repr(absolute[one]), repr(relative[one])] for one in absolute),
    ]


def _interval(cells: Sequence[Cell]) -> intervals.Interval:
    """Returns the mean accuracy of cells with its interval.

    The images of all cells are usually the same. Then the mean varies as that of each image's
    fraction of right predictions does, and Wilson's interval is that of as many independent
    predictions as vary so. Otherwise the ends are the means of the cells' ends, which is wide
    enough whatever the images have in common.
    """
    found = [intervals.accuracy(cell.hits) for cell in cells]
    value, low, high = (float(np.mean(values)) for values in zip(*found))
    if any(not np.array_equal(cell.labels, cells[0].labels) for cell in cells):
        return intervals.Interval(value, low, high)
    of_images = np.mean([cell.hits for cell in cells], 0)  # (n,)
    variance = float(np.var(of_images))
    count = len(of_images) * (value * (1 - value) / variance if variance else 1.0)
    return intervals.wilson(value, count)


def _table(cells: Sequence[Cell]) -> list[list[str]]:
    rows = [["corruption", "severity", "images", "accuracy", "low", "high", "ece"]]
    for cell in cells:
        found = intervals.accuracy(cell.hits)
        rows.append(
            [
                *(cell.corruption, str(cell.severity), str(len(cell.hits))),
                *(repr(float(value)) for value in (*found, cell.ece)),
            ]
        )
    return rows


def _draw(target: figure.Figure, curves: Mapping[str, Scores]) -> None:
    """Draws means over corruptions against severity, as in SupCon, figure 3."""
    panels = target.subplots(2, sharex=True)
    for name, scores in curves.items():
        severities = sorted({severity for _, severity in scores})
        for axes, position in zip(panels, (0, 1)):
            means = [
                np.mean([score[position] for (_, s), score in scores.items() if s == severity])
                for severity in severities
            ]
            axes.plot(severities, means, marker="o", label=name)
    panels[0].set(ylabel="accuracy", ylim=(0, 1))
    panels[1].set(xlabel="severity of the corruption (0: none)", ylabel="calibration error")
    panels[1].set_ylim(bottom=0)
    panels[1].set_xticks(severities)
    panels[0].legend()
