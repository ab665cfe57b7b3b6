"""The results of a study as one JSON file, from which its page and its verdicts can be made."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
import dataclasses
import math
import os
from typing import Any

import numpy as np

from simclr_tf.studies import attempts, definition, outcomes, verdicts

RESULTS = "results.json"


@dataclasses.dataclass(frozen=True)
class Results:
    """Everything that was measured.

    Attributes:
        study: the study.
        command: the command that runs or resumes it.
        finished: the results of the cells that are done.
        expected: number of cells, each seed counted, done or not.
        failed: title and last error of what failed.
        verdicts: one for each expected order.
        versions: the versions of the expected orders, see `plans.register`.
        chosen: group -> the tuned labels, and the accuracies on the images to choose on.
        machines: machine and commit of the runs, each once.
    """

    study: definition.Study
    command: str
    finished: Sequence[outcomes.Outcome]
    expected: int
    failed: Mapping[str, str]
    verdicts: Sequence[verdicts.Verdict]
    versions: Sequence[Mapping[str, Any]]
    chosen: Mapping[tuple, tuple[definition.Labels, Mapping[str, float]]]
    machines: Sequence[str]

    @property
    def seconds(self) -> float:
        """How long all runs took, one after the other."""
        return sum({one.cell.run.identity: one.record.seconds for one in self.finished}.values())

    def of_labels(self) -> list[tuple[definition.Labels, list[outcomes.Outcome]]]:
        """Returns the cells in the order of the study, each with its seeds."""
        grouped: list[tuple[definition.Labels, list[outcomes.Outcome]]] = []
        for labels in self.study.all_labels():
            found = [one for one in self.finished if one.cell.labels == labels]
            if found:
                grouped.append((labels, found))
        return grouped


def machine_of(folder: str) -> str:
    """Returns the machine and the commit of a run in a few words."""
    stored = attempts.environment_of(folder)
    commit = str(stored.get("commit") or "unknown")[:9]
    return (
        f"{stored.get('host_cores', '?')} cores ({stored.get('host_cpu', 'unknown processor')}), "
        f"TensorFlow {stored.get('tensorflow', '?')}, commit {commit}"
    )


def to_json(results: Results, root: str) -> dict[str, Any]:
    """Returns what is written to results.json."""
    study = results.study
    names = sorted(results.finished[0].right) if results.finished else []
    return {
        "study": study.name,
        "command": results.command,
        "orders_sha256": study.orders_hash,
        "orders_versions": list(results.versions),
        "machines": list(results.machines),
        "images": names,
        "cells": [
            {
                "labels": dict(one.cell.labels),
                "tuned": dict(one.cell.tuned),
                "seed": one.cell.seed,
                "run": os.path.relpath(one.cell.run.folder(root), root),
                "arguments": one.cell.run.arguments("runs/studies"),
                "accuracy": one.accuracy,
                "right": packed(np.array([one.right[name] for name in names])),
                "columns": {title: one.value(metric) for title, metric in study.columns.items()},
                "seconds": one.record.seconds,
                "peak_memory": one.record.peak_memory,
                "images": one.images,
                "views": one.views,
            }
            for one in results.finished
        ],
        "failed": dict(results.failed),
        "orders": [_verdict(one) for one in results.verdicts],
    }


def _verdict(one: verdicts.Verdict) -> dict[str, Any]:
    if one.contrast is None:
        return {"claim": one.order.claim, "verdict": one.verdict}
    return {
        "claim": one.order.claim,
        "verdict": one.verdict,
        "difference": one.contrast.difference.value,
        "difference_95": [_finite(end) for end in one.contrast.difference[1:]],
        "of_seeds": list(one.contrast.of_seeds),
        "mcnemar": list(one.contrast.mcnemar),
        "p": one.contrast.p,
        "p_adjusted": one.adjusted,
        "smallest_difference": _finite(one.smallest),
        "seeds_needed": one.seeds_needed,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def packed(right: np.ndarray) -> str:
    """Returns booleans as text, eight in a byte, in base64."""
    return base64.b64encode(np.packbits(np.asarray(right, bool))).decode()


def unpacked(text: str, count: int) -> np.ndarray:
    """Returns the booleans that `packed` wrote, (count,)."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)
