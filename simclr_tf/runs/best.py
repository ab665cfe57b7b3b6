"""best.json: which of the evaluated checkpoints of a run is the best.

Its checkpoint is kept, however few others are. RUN/best stands for it where a checkpoint can be
named.
"""

from __future__ import annotations

from collections.abc import Collection
import dataclasses
import math
import os

import tensorflow as tf

from simclr_tf import errors, storage

FILE = "best.json"
ALIAS = "best"  # In place of ckpt-STEP.


@dataclasses.dataclass(frozen=True)
class Best:
    """The evaluated checkpoints of a run.

    Attributes:
        metric: name of the number by which they are compared; higher is better.
        images: identifies the images that it was measured on.
        candidates: step -> value of the metric, in the order of the steps.
        step: step of the best one. Of equal ones it is the earlier.
    """

    metric: str
    images: str
    candidates: dict[int, float]
    step: int

    @property
    def value(self) -> float:
        """Value of the metric of the best one."""
        return self.candidates[self.step]


def read(model_dir: str) -> Best | None:
    """Returns what best.json holds; None if there is none.

    Raises:
        UserError: if it is damaged.
    """
    path = os.path.join(model_dir, FILE)
    if not tf.io.gfile.exists(path):
        return None
    stored = storage.read_json(path)
    try:
        candidates = {int(one["step"]): float(one["value"]) for one in stored["candidates"]}
        best = Best(stored["metric"], stored["images"], candidates, stored["step"])
        _ = best.value
    except (TypeError, KeyError, ValueError) as error:
        raise errors.UserError(
            f"{path} is damaged (it does not list checkpoints); restore or remove it."
        ) from error
    return best


def add(
    model_dir: str,
    complete: Collection[int],
    *,
    metric: str,
    images: str,
    step: int,
    value: float,
) -> Best:
    """Adds a candidate, and writes best.json.

    Candidates that were measured in another way are not compared with it, and are removed.

    Args:
        model_dir: the run directory.
        complete: steps of the checkpoints that are there, with that of the candidate. The best one
            is among them.
        metric: see `Best`.
        images: see `Best`.
        step: step of the candidate.
        value: its value of the metric.

    Returns:
        What was written.
    """
    best = read(model_dir)
    candidates = {}
    if best is not None and (best.metric, best.images) == (metric, images):
        candidates = best.candidates
    return _write(model_dir, metric, images, {**candidates, step: value}, complete)


def forget_after(model_dir: str, step: int, complete: Collection[int]) -> None:
    """Removes the candidates that a resumed run does not have: those of later steps.

    Args:
        model_dir: the run directory.
        step: the step that training resumes from.
        complete: see `add`.
    """
    best = read(model_dir)
    if best is None or (max(best.candidates) <= step and best.step in complete):
        return
    candidates = {one: value for one, value in best.candidates.items() if one <= step}
    if candidates.keys() & set(complete):
        _write(model_dir, best.metric, best.images, candidates, complete)
    else:
        tf.io.gfile.remove(os.path.join(model_dir, FILE))


def _write(
    model_dir: str,
    metric: str,
    images: str,
    candidates: dict[int, float],
    complete: Collection[int],
) -> Best:
    possible = [one for one in sorted(candidates) if one in complete]
    # Of equal ones, max returns the first.
    step = max(possible, key=lambda one: _comparable(candidates[one]))
    content = {
        "step": step,
        "metric": metric,
        "value": candidates[step],
        "images": images,
        "candidates": [{"step": one, "value": candidates[one]} for one in sorted(candidates)],
    }
    storage.write_json(os.path.join(model_dir, FILE), content)
    return Best(metric, images, candidates, step)


def _comparable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
