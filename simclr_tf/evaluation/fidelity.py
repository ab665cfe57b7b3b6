"""How much of a network a converted form of it keeps: both are run on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from simclr_tf.evaluation import comparison, intervals

_SEED = 0
# Outputs whose directions are compared, the first that there is.
_VECTORS = ("features", "embedding", "projection", "logits", "probabilities")


def compare(
    network: Mapping[str, np.ndarray],
    converted: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    *,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """Compares the outputs of a network and of a converted form of it.

    Args:
        network: its outputs by name, (n, ...).
        converted: those of the converted form.
        labels: (n,) classes, -1 where there is none; None if there are none.
        groups: (n,) the group of each image; None if images are independent.

    Returns:
        "cosine" and "cosine_least", mean and smallest cosine between the two forms of an output of
        an image, named in "cosine_of"; with scores of classes "changed_predictions", the fraction
        of images whose likeliest class is another one; and with labels "accuracy", that of the
        network "accuracy_float32", and the difference "accuracy_difference", each with its 95%
        interval NAME_95.
    """
    found: dict[str, Any] = {}
    name = next((one for one in _VECTORS if one in network), None)
    if name is not None:
        cosines = _cosines(network[name], converted[name])
        found |= {"cosine_of": name, "cosine": float(np.mean(cosines))}
        found["cosine_least"] = float(np.min(cosines))
    before, after = predictions(network), predictions(converted)
    if before is None or after is None:
        return found
    found["changed_predictions"] = float(np.mean(before != after))
    if labels is None or not np.any(labels >= 0):
        return found
    known = labels >= 0
    groups = None if groups is None else groups[known]
    hits = [(one == labels)[known] for one in (before, after)]
    difference = comparison.compare(*hits, seed=_SEED, groups=groups).difference
    measured = {
        "accuracy_float32": intervals.accuracy(hits[0], groups, seed=_SEED),
        "accuracy": intervals.accuracy(hits[1], groups, seed=_SEED),
        "accuracy_difference": difference,
    }
    for name, interval in measured.items():
        found |= {name: interval.value, f"{name}_95": [interval.low, interval.high]}
    return found


def predictions(outputs: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Returns the likeliest class (n,) of each image; None if no output says."""
    for name in ("logits", "probabilities"):
        if name in outputs:
            return np.argmax(outputs[name], axis=1)
    return outputs["top_classes"][:, 0] if "top_classes" in outputs else None


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the cosines (n,) between the rows of (n, f); that of two zero rows is 1."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    same = np.all(one == other, axis=1)
    cosines = np.sum(one * other, axis=1) / np.where(lengths > 0, lengths, 1)
    return np.where(same, 1.0, np.clip(cosines, -1, 1))
