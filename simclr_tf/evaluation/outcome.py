"""What an evaluation reads, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from simclr_tf.evaluation import intervals

if TYPE_CHECKING:
    from matplotlib import figure

    # Draws into an empty figure.
    Draw = Callable[[figure.Figure], None]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The features and labels that every evaluation reads.

    Attributes:
        train_features: (n, f) float32, of the training split.
        train_labels: (n,) their classes.
        test_features: (m, f) float32, of the evaluation split.
        test_labels: (m,) their classes.
        test_scores: (m, c) unnormalised log probabilities of a classifier that did not see the
            evaluation split; column i is class i.
        temperature: divides these scores so that they are calibrated, fitted without the
            evaluation split; None if it was not fitted.
        class_names: names of the c classes.
        seed: seed of whatever an evaluation draws.
    """

    train_features: np.ndarray
    train_labels: np.ndarray
    test_features: np.ndarray
    test_labels: np.ndarray
    test_scores: np.ndarray
    temperature: float | None
    class_names: tuple[str, ...]
    seed: int


@dataclasses.dataclass
class Outcome:
    """What an evaluation found.

    Attributes:
        numbers: name -> number, or the ends of its interval, for result.json.
        rows: (what, value) of each line for people.
        tables: name of a CSV file -> its rows, the first with the names of the columns.
        figures: name of an image file -> function that draws it into an empty figure.
        pictures: name of a PNG file -> rows of images, a caption and (n, s, s, 3) float in [0, 1]
            each.
    """

    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    rows: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    tables: dict[str, list[list[str]]] = dataclasses.field(default_factory=dict)
    figures: dict[str, Draw] = dataclasses.field(default_factory=dict)
    pictures: dict[str, list[tuple[str, np.ndarray]]] = dataclasses.field(default_factory=dict)

    def add(self, name: str, what: str, interval: intervals.Interval) -> None:
        """Adds an accuracy with its interval.

        Args:
            name: its name in result.json; the interval is NAME_95.
            what: its name in the table.
            interval: the accuracy.
        """
        self.numbers[name] = interval.value
        self.numbers[f"{name}_95"] = [interval.low, interval.high]
        self.rows.append((what, interval.percent()))

    def add_number(self, name: str, what: str, value: float, shown: str) -> None:
        """Adds a number without an interval; `shown` is how the table writes it."""
        self.numbers[name] = value
        self.rows.append((what, shown))
