"""The results of the cells of a study, read from their run directories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import json
import os
from typing import Any

import numpy as np

from simclr_tf import errors, storage, text
from simclr_tf.runs import directory, predictions
from simclr_tf.studies import attempts, cells, definition

_RESULT, _METRICS = "result.json", "metrics.jsonl"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a cell with one seed.

    Attributes:
        cell: the cell.
        right: image -> whether its class was predicted; by name of the image.
        numbers: the numbers of result.json, and the last value of each metric of training.
        images: number of images that training read, repeated ones included.
        views: number of augmented views of them.
        record: how its training ended and what it cost.
    """

    cell: cells.Cell
    right: Mapping[str, bool]
    numbers: Mapping[str, Any]
    images: int
    views: int
    record: attempts.Record

    @property
    def accuracy(self) -> float:
        """The fraction of images whose class was predicted."""
        return float(np.mean(list(self.right.values()))) if self.right else float("nan")

    def value(self, metric: str) -> float:
        """Returns the accuracy or a number of result.json or of the metrics.

        Raises:
            UserError: if there is no such number.
        """
        if metric == definition.ACCURACY:
            return self.accuracy
        value = self.number(metric)
        if value is None:
            numbers = sorted(name for name in self.numbers if self.number(name) is not None)
            near = text.suggestion(metric, numbers) or f"; it has {text.shortened(numbers, 20)}"
            raise errors.UserError(
                f"{self.cell.run.title} has no number {metric}{near}. Correct the metric of the "
                "study."
            )
        return value

    def number(self, name: str) -> float | None:
        """Returns a number of result.json or of the metrics; None if there is no such number."""
        value: Any = self.numbers.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if is_number else None


def read(cell: cells.Cell, root: str, record: attempts.Record) -> Outcome:
    """Reads the result of a cell.

    Args:
        cell: the cell, whose run is done.
        root: the folder of all studies.
        record: the record of its run.

    Raises:
        UserError: if a file is missing or damaged.
    """
    folder = cell.run.folder(root)
    found = predictions.read(folder)
    numbers = {**_last_metrics(folder), **storage.read_json(os.path.join(folder, _RESULT))}
    images, views = _amount(folder, numbers)
    return Outcome(
        cell=cell,
        right=dict(zip(map(str, found.names), map(bool, found.right), strict=True)),
        numbers=numbers,
        images=images,
        views=views,
        record=record,
    )


def _last_metrics(folder: str) -> dict[str, float]:
    """Returns the last value of each metric of training."""
    last: dict[str, float] = {}
    path = os.path.join(folder, _METRICS)
    if not os.path.exists(path):
        return last
    for line in storage.read_text(path).splitlines():
        # The last line of a run that was killed may be incomplete.
        with contextlib.suppress(ValueError, TypeError):
            last.update(json.loads(line))
    return last


def _amount(folder: str, numbers: Mapping[str, Any]) -> tuple[int, int]:
    """Returns how many images and views training processed."""
    config = directory.read_config(folder)
    if config is None:
        raise errors.UserError(
            f"{folder}/{directory.FLAGS} is missing; remove the folder, and the same study trains "
            "it again."
        )
    images = int(numbers.get("global_step", 0)) * config.train_batch_size
    return images, images * config.resolved_num_views


def aligned(outcomes: Sequence[Outcome]) -> list[np.ndarray]:
    """Returns which images each cell predicts right, in the same order of images.

    Raises:
        UserError: if the cells were evaluated on different images.
    """
    names = sorted(outcomes[0].right)
    for other in outcomes[1:]:
        if sorted(other.right) != names:
            raise errors.UserError(
                f"{outcomes[0].cell.run.title} and {other.cell.run.title} were evaluated on "
                "different images, so they cannot be compared; give them the same --eval_split."
            )
    return [np.array([one.right[name] for name in names]) for one in outcomes]
