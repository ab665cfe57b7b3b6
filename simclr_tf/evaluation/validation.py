"""What is measured during training, on training images that are left out of training."""

from __future__ import annotations

import dataclasses

import numpy as np

from simclr_tf.evaluation import (
    average_precision,
    geometry,
    knn,
    label_free,
    linear,
    neighbours,
    several_labels,
)

PREFIX = "validation/"
RETRIEVAL, HEAD = f"{PREFIX}label_free/view_retrieval", f"{PREFIX}label_top_1_accuracy"
HEAD_OF_SEVERAL = f"{PREFIX}label_{several_labels.MEAN_PRECISION}"
# Of `label_free`. Its alignment and uniformity are among those of the geometry.
_LABEL_FREE = ("view_retrieval", "rankme", "lidar", "rankme_projection", "lidar_projection")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What the network computes of the validation images, and of those to search for neighbours.

    Attributes:
        features: (n, f) of the validation images.
        labels: (n,) their classes, -1 where there is none; (n, c) of several, see
            `data.indicators`.
        logits: (n, c) of the classifier or the online linear head; None without one.
        views: of random views of the validation images.
        bank: (m, f) features of training images to search for neighbours.
        bank_labels: (m,) their classes, -1 where there is none; (m, c) of several.
        num_classes: c; 0 without labels.
    """

    features: np.ndarray
    labels: np.ndarray
    logits: np.ndarray | None
    views: label_free.Views
    bank: np.ndarray
    bank_labels: np.ndarray
    num_classes: int

    def are_finite(self) -> bool:
        """Returns whether all features are finite numbers."""
        arrays = (self.features, self.bank, self.views.features, self.views.projection)
        return all(np.all(np.isfinite(array)) for array in arrays)


def measure(inputs: Inputs) -> dict[str, float]:
    """Returns the numbers under their names, which begin with `PREFIX`."""
    numbers = {**_with_labels(inputs), **_geometry(inputs)}
    found = label_free.evaluate(inputs.views).numbers
    numbers |= {f"label_free/{name}": found[f"label_free/{name}"] for name in _LABEL_FREE}
    return {f"{PREFIX}{name}": float(value) for name, value in numbers.items()}


def _with_labels(inputs: Inputs) -> dict[str, float]:
    """Returns the accuracies of nearest neighbours and of the head, if there are labels."""
    if inputs.labels.ndim > 1:
        return _with_several_labels(inputs)
    known, neighbour = inputs.labels >= 0, inputs.bank_labels >= 0
    if not known.any():
        return {}
    numbers = {}
    labels = inputs.labels[known]
    if inputs.logits is not None:
        hits = linear.top_k_hits(inputs.logits[known], labels, 1)
        numbers["label_top_1_accuracy"] = float(np.mean(hits))
    counts = [k for k in knn.NEIGHBOURS if k <= np.sum(neighbour)]
    if counts:
        predicted = knn.predictions(
            inputs.bank[neighbour],
            inputs.bank_labels[neighbour],
            inputs.features[known],
            counts,
            num_classes=inputs.num_classes,
        )
        for k, classes in predicted.items():
            numbers[f"knn/{k}/top_1_accuracy"] = float(np.mean(classes == labels))
    return numbers


def _with_several_labels(inputs: Inputs) -> dict[str, float]:
    """Returns the mean average precisions of nearest neighbours and of the head."""
    scored = {}
    if inputs.logits is not None:
        scored[f"label_{several_labels.MEAN_PRECISION}"] = inputs.logits
    counts = [k for k in knn.NEIGHBOURS if k <= len(inputs.bank)]
    if counts:
        votes = knn.label_votes(inputs.bank, inputs.bank_labels, inputs.features, counts)
        scored |= {f"knn/{k}/{several_labels.MEAN_PRECISION}": votes[k] for k in counts}
    precisions = {
        name: average_precision.all_points(scores, inputs.labels) for name, scores in scored.items()
    }
    return {
        name: float(np.nanmean(found))
        for name, found in precisions.items()
        if not np.all(np.isnan(found))
    }


def _geometry(inputs: Inputs) -> dict[str, float]:
    """Returns how the features are spread, and how similar views are."""
    first, second = (neighbours.unit_rows(inputs.views.features[:, view]) for view in (0, 1))
    cosines = first.astype(np.float64) @ second.astype(np.float64).T  # (n, n)
    positive = np.mean(np.diag(cosines))
    others = ~np.eye(len(cosines), dtype=bool)
    uniformity = geometry.uniformity(first)
    assert uniformity is not None, "there are two images at least"
    return {
        "geometry/effective_rank": geometry.effective_rank(inputs.features),
        "geometry/alignment": 2 - 2 * positive,
        "geometry/uniformity": uniformity,
        "geometry/positive_cosine": positive,
        "geometry/negative_cosine": np.mean(cosines[others]),
    }


def metric_of(numbers: dict[str, float], *, classifies: bool) -> str:
    """Returns the name of the number by which checkpoints are compared; higher is better.

    Args:
        numbers: the result of `measure`.
        classifies: whether training is of a classifier, and not of a representation.
    """
    for head in (HEAD, HEAD_OF_SEVERAL):
        if classifies and head in numbers:
            return head
    for k in reversed(knn.NEIGHBOURS):
        for measure in ("top_1_accuracy", several_labels.MEAN_PRECISION):
            name = f"{PREFIX}knn/{k}/{measure}"
            if name in numbers:
                return name
    # Of the numbers without labels, this one ranked checkpoints of one augmentation best
    # (docs/evaluation.md).
    return RETRIEVAL


def in_words(numbers: dict[str, float]) -> str:
    """Returns the most important numbers, for people."""
    parts = [
        f"{k}-NN {what}{numbers[name]:.1%}"
        for k in reversed(knn.NEIGHBOURS)
        for measure, what in (
            ("top_1_accuracy", ""),
            (several_labels.MEAN_PRECISION, "mean average precision "),
        )
        if (name := f"{PREFIX}knn/{k}/{measure}") in numbers
    ][:1]
    if HEAD in numbers:
        parts.append(f"label acc. {numbers[HEAD]:.1%}")
    if HEAD_OF_SEVERAL in numbers:
        parts.append(f"of the head {numbers[HEAD_OF_SEVERAL]:.1%}")
    parts.append(f"view retrieval {numbers[RETRIEVAL]:.1%}")
    parts.append(f"LiDAR {numbers[f'{PREFIX}label_free/lidar']:.3g}")
    return ", ".join(parts)
