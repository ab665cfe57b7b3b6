"""The audit command: near-duplicates, outliers and doubtful labels of an embedded data set."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from simclr_tf import config as config_lib
from simclr_tf import console, errors, storage, text
from simclr_tf.commands import audit_files, duplicate_threshold, embedded
from simclr_tf.data import split_names
from simclr_tf.embeddings import reading
from simclr_tf.evaluation import (
    doubtful_labels,
    duplicates,
    intervals,
    knn,
    neighbours,
    outliers,
)
from simclr_tf.runs import weights as weights_lib

RESULT = "audit.json"
# How many of the nearest images of each image are searched for near-duplicates.
_NEAREST = 32
_VOTERS = 20
# If more images than this have near-duplicates, the threshold is probably too low.
_MANY = 0.2
# If fewer labels than this are as predicted, most doubtful ones are errors of the classifier.
_GOOD_AGREEMENT = 0.8


@dataclasses.dataclass
class Audit:
    """What an audit has found.

    Attributes:
        numbers: for audit.json, by name.
        rows: (what, value) of each line for people.
        groups: the duplicates.
        cosine: (n,) cosine of each image with its nearest image.
        distances: (n,) mean cosine distance to the nearest images.
        scores: (n,) how unusual these distances are in the class.
        doubtful: doubtful labels, whose rows count all images; None if there are no labels.
        classes: names of the classes, sorted.
    """

    groups: duplicates.Duplicates
    cosine: np.ndarray
    distances: np.ndarray
    scores: np.ndarray
    classes: list[str]
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    rows: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    doubtful: doubtful_labels.Doubtful | None = None

    def add(self, name: str, what: str, value: Any, shown: str | None = None) -> None:
        """Adds a number; `shown` is how the table writes it."""
        self.numbers[name] = value
        self.rows.append((what, f"{value:,}" if shown is None else shown))


def audit(config: config_lib.Config, weights: weights_lib.Weights | None) -> None:
    """Audits the data set of --embeddings, and writes lists, pictures and audit.json.

    They are written to --model_dir, or to EMBEDDINGS/audit.

    Args:
        config: the settings.
        weights: the weights of --checkpoint; None opens those that the embeddings were made with,
            if the threshold of near-duplicates is to be measured.

    Raises:
        UserError: if there are no embeddings, or no weights where they are needed.
    """
    assert config.embeddings is not None
    found = reading.open_folder(config.embeddings)
    if len(found.names) < 2:
        raise errors.UserError(
            f"--embeddings={found.folder} has only one image, and an audit compares images; embed "
            "more."
        )
    output = embedded.output_folder(config, "audit")
    threshold = config.duplicate_cosine or duplicate_threshold.measure(config, found, weights)
    result = examine(found, threshold, config)
    storage.write_json(os.path.join(output, RESULT), result.numbers)
    audit_files.write(output, config, found, result)
    title = f"{found.manifest.dataset}, {text.count(len(found.names), 'image')}"
    console.table(title, ["audit", "value"], [list(row) for row in result.rows])
    for name, reason in result.numbers.items():
        if name.endswith("/skipped"):
            console.say(f"Not measured: {name.removesuffix('/skipped')}. {reason}.")
    if np.mean(result.groups.group >= 0) > _MANY:
        console.warn(
            f"{np.mean(result.groups.group >= 0):.0%} of the images have near-duplicates; look at "
            f"{audit_files.DUPLICATES}.png, and if they are different images, set "
            f"--duplicate_cosine above {threshold:.4f}."
        )
    agreement = result.numbers.get("labels/agreement", 1.0)
    if agreement < _GOOD_AGREEMENT:
        console.warn(
            f"The classifier predicts only {agreement:.0%} of the labels, so most labels that it "
            f"doubts are its own errors; the first ones in {audit_files.LABELS}.csv are the most "
            "likely to be wrong."
        )
    console.say(f"Files in {output}: {', '.join((RESULT, *audit_files.names(output)))}.")


def examine(found: reading.Embeddings, threshold: float, config: config_lib.Config) -> Audit:
    """Returns what an audit finds.

    Args:
        found: the embeddings.
        threshold: the smallest cosine of near-duplicates.
        config: the settings.
    """
    indices, cosines = _nearest(found, max(config.neighbours, _NEAREST))
    classes = sorted({label for label in found.labels if label is not None})
    number_of = {name: number for number, name in enumerate(classes)}
    labels = np.array([number_of.get(label, -1) for label in found.labels])
    distances = 1 - cosines[:, : config.neighbours].mean(1)
    result = Audit(
        groups=duplicates.find(found.content, indices, cosines, threshold),
        cosine=cosines[:, 0],
        distances=distances,
        scores=outliers.scores(distances, labels),
        classes=classes,
    )
    result.add("images", "images", len(labels))
    _count_duplicates(result, found, labels, threshold, measured=not config.duplicate_cosine)
    _score_without_duplicates(result, found, labels, threshold, config)
    count = int(np.sum(result.scores >= outliers.CUTOFF))
    result.add("outliers/images", f"outliers (score of {outliers.CUTOFF:g} or more)", count)
    _judge_labels(result, found, labels, config)
    return result


def _nearest(found: reading.Embeddings, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k nearest images of each image, itself excluded, and their cosines."""
    total = len(found.names)
    k, start, pieces = min(k, total - 1), 0, []
    with console.Progress("images compared", total) as progress:
        for part in found.parts:
            own = np.arange(start, start + len(part))
            pieces.append(neighbours.nearest_in_parts(part, found.parts, k, own=own))
            start += len(part)
            progress.update(start)
    indices, cosines = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    return indices, cosines


def _count_duplicates(
    result: Audit,
    found: reading.Embeddings,
    labels: np.ndarray,
    threshold: float,
    *,
    measured: bool,
) -> None:
    group = result.groups.group
    members = np.flatnonzero(group >= 0)
    result.add("duplicates/cosine", "cosine of near-duplicates", threshold, f"{threshold:.4f}")
    result.numbers["duplicates/cosine_measured"] = measured
    result.add("duplicates/groups", "groups of duplicates", result.groups.num_groups)
    result.add("duplicates/images", "images in them", len(members))
    result.add(
        "duplicates/exact_images", "of these, exact duplicates", int(result.groups.exact.sum())
    )
    for name, what, values in (
        ("split", "groups in several splits", found.splits),
        ("label", "groups with several labels", labels),
    ):
        pairs = {(group[row], values[row]) for row in members if values[row] != -1}
        counts = np.bincount([number for number, _ in pairs], minlength=1)
        result.add(f"duplicates/groups_with_several_{name}s", what, int(np.sum(counts > 1)))


def _score_without_duplicates(
    result: Audit,
    found: reading.Embeddings,
    labels: np.ndarray,
    threshold: float,
    config: config_lib.Config,
) -> None:
    """Adds the accuracy with and without evaluation images that have duplicates in training."""
    names = list(dict.fromkeys(found.splits))
    train = split_names.find(config.train_split, names)
    evaluated = split_names.find(config.eval_split, names)
    evaluated = evaluated or next(iter(split_names.for_evaluation(names)), None)
    if train is None or evaluated is None or train == evaluated:
        result.numbers["score/skipped"] = "There are no embeddings of a training and a test split"
        return
    of_train, of_test = (np.flatnonzero(found.splits == split) for split in (train, evaluated))
    train_features, test_features = found.features(of_train), found.features(of_test)
    _, cosines = neighbours.nearest_in_parts(test_features, [train_features], 1)
    leaked = (cosines[:, 0] >= threshold) | np.isin(found.content[of_test], found.content[of_train])
    result.add(
        "duplicates/evaluated_in_training",
        f"images of {evaluated} with duplicates in {train}",
        int(leaked.sum()),
    )
    learned, tested = of_train[labels[of_train] >= 0], labels[of_test] >= 0
    if not len(learned) or not tested.any():
        result.numbers["score/skipped"] = f"The images of {train} or {evaluated} have no labels"
        return
    k = min(_VOTERS, len(learned))
    predicted = knn.predictions(
        train_features[labels[of_train] >= 0],
        labels[learned],
        test_features[tested],
        [k],
        num_classes=len(result.classes),
    )[k]
    hits, kept = predicted == labels[of_test][tested], ~leaked[tested]
    what = f"accuracy on {evaluated}, {k} nearest neighbours"
    for name, title, chosen in (
        ("", what, hits),
        ("_without_duplicates", "the same without these images", hits[kept]),
    ):
        if len(chosen):
            interval = intervals.accuracy(chosen)
            key = f"knn/{k}/top_1_accuracy{name}"
            result.add(key, title, interval.value, interval.percent())
            result.numbers[f"{key}_95"] = [interval.low, interval.high]


def _judge_labels(
    result: Audit, found: reading.Embeddings, labels: np.ndarray, config: config_lib.Config
) -> None:
    """Adds the labels that are probably wrong."""
    rows = np.flatnonzero(labels >= 0)
    groups = result.groups.representatives()[rows]
    first = np.unique(groups, return_index=True)[1]
    counts = np.bincount(labels[rows][first]) if len(rows) else np.zeros(1)
    if not len(rows):
        result.numbers["labels/skipped"] = "The images have no labels"
        return
    if np.sum(counts > 0) < 2 or counts.max() < 2:
        result.numbers["labels/skipped"] = "There are no two classes of several images"
        return
    if len(rows) > config.linear_eval_examples:
        chosen = np.random.default_rng(config.seed).choice(
            len(rows), config.linear_eval_examples, replace=False
        )
        chosen.sort()
        rows, groups = rows[chosen], groups[chosen]
    what = "fits of classifiers that judge the labels"
    with console.Progress(what, doubtful_labels.MOST_FITS) as progress:
        probabilities = doubtful_labels.out_of_fold(
            found.features(rows),
            labels[rows],
            groups,
            num_classes=len(result.classes),
            seed=config.seed,
            progress=progress.update,
        )
    doubtful = doubtful_labels.find(probabilities, labels[rows])
    result.doubtful = dataclasses.replace(doubtful, rows=rows[doubtful.rows])
    agreement = float(np.mean(np.argmax(probabilities, 1) == labels[rows]))
    result.add("labels/judged", "labels judged", len(rows))
    result.add(
        "labels/agreement", "of these, as the classifier predicts", agreement, f"{agreement:.1%}"
    )
    result.add("labels/doubtful", "doubtful labels", len(doubtful.rows))
