"""What an evaluation reads, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from simclr_tf.evaluation import intervals, thumbnails

if TYPE_CHECKING:
    from matplotlib import figure

    # Draws into an empty figure.
    Draw = Callable[[figure.Figure], None]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The features and labels that every evaluation reads.

    Attributes:
        train_features: (n, f) float32, of the training split.
        train_labels: (n,) their classes; (n, c), see `data.indicators`, of several labels.
        test_features: (m, f) float32, of the evaluation split.
        test_labels: (m,) their classes; (m, c) of several.
        test_scores: (m, c) unnormalised log probabilities of a classifier that did not see the
            evaluation split, or log odds of several labels; column i is class i.
        temperature: divides these scores so that they are calibrated, fitted without the
            evaluation split; None if it was not fitted.
        class_names: names of the c classes.
        seed: seed of whatever an evaluation draws.
        thumbnails: small copies of images of the evaluation split, for pictures; None without.
        test_names: (m,) names of the images of the evaluation split; None without.
        test_groups: (m,) their groups, as numbers; None if images are independent.
    """

    train_features: np.ndarray
    train_labels: np.ndarray
    test_features: np.ndarray
    test_labels: np.ndarray
    test_scores: np.ndarray
    temperature: float | None
    class_names: tuple[str, ...]
    seed: int
    thumbnails: thumbnails.Thumbnails | None = None
    test_names: Sequence[str] | None = None
    test_groups: np.ndarray | None = None

    def interval(self, hits: np.ndarray, rows: np.ndarray | None = None) -> intervals.Interval:
        """Returns the accuracy of images of the evaluation split, with its interval.

        Args:
            hits: (m,) bool, which of them were right.
            rows: positions of the images that count, or (m,) bool; None if all do.
        """
        rows = np.arange(len(hits)) if rows is None else rows
        groups = None if self.test_groups is None else self.test_groups[rows]
        return intervals.accuracy(hits[rows], groups, seed=self.seed)


@dataclasses.dataclass(frozen=True)
class Tile:
    """An image of a contact sheet.

    Attributes:
        image: (s, s, 3) float in [0, 1].
        lines: lines of text below it; of lines that are too long, the end is drawn.
        frame: colour of a frame around it; None for none.
    """

    image: np.ndarray
    lines: tuple[str, ...] = ()
    frame: str | None = None


@dataclasses.dataclass
class Outcome:
    """What an evaluation found.

    Attributes:
        numbers: name -> number, or the ends of its interval, for result.json.
        rows: (what, value) of each line for people.
        tables: name of a CSV file -> its rows, the first with the names of the columns.
        figures: name of an SVG file -> function that draws it into an empty figure.
        sheets: name of a PNG file -> its rows of images, each with a caption.
        files: name of another file, which may be in a folder -> its content.
    """

    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    rows: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    tables: dict[str, list[list[str]]] = dataclasses.field(default_factory=dict)
    figures: dict[str, Draw] = dataclasses.field(default_factory=dict)
    sheets: dict[str, list[tuple[str, list[Tile]]]] = dataclasses.field(default_factory=dict)
    files: dict[str, str | bytes] = dataclasses.field(default_factory=dict)

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
