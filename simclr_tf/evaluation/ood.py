"""Out-of-distribution detection: how well scores separate the evaluation split from other data."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import statistics
from typing import TYPE_CHECKING

import numpy as np
import scipy

from simclr_tf.evaluation import intervals, ood_scores, outcome

if TYPE_CHECKING:
    from matplotlib import figure

# The scores, and what they are called in tables.
SCORES = {
    "knn": "neighbour",
    "mahalanobis": "Mahalanobis",
    "max_probability": "log probability",
    "energy": "energy",
}
_TRUE_POSITIVES = 0.95
_NORMAL = statistics.NormalDist().inv_cdf(0.975)
_BINS = 30


@dataclasses.dataclass(frozen=True)
class Images:
    """What a network returns for the images of a data set.

    Attributes:
        features: (n, f).
        class_scores: (n, c) unnormalised log probabilities.
    """

    features: np.ndarray
    class_scores: np.ndarray


def evaluate(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test: Images,
    others: Mapping[str, Images],
) -> outcome.Outcome:
    """Measures how well each score separates the evaluation split from other data sets.

    Args:
        train_features: (n, f), of the training split; the scores are fitted to it alone.
        train_labels: (n,) their classes.
        test: the images of the evaluation split, which are those in the distribution.
        others: name of a data set -> its images, none of which is in the distribution.

    Returns:
        For each data set and score the AUROC and the fraction of its images that are accepted at a
        threshold that accepts 95% of the evaluation split; and their means over data sets.
    """
    gaussians = ood_scores.Gaussians.fit(train_features, train_labels)

    def score(images: Images) -> dict[str, np.ndarray]:
        return {
            "knn": ood_scores.by_neighbour(train_features, images.features),
            "mahalanobis": gaussians.score(images.features),
            "max_probability": ood_scores.by_probability(images.class_scores),
            "energy": ood_scores.by_energy(images.class_scores),
        }

    inside = score(test)
    outside = {name: score(images) for name, images in others.items()}
    result = outcome.Outcome()
    table = [["dataset", "images", "score", "auroc", "low", "high", "fpr_at_95_tpr"]]
    for name, scores in outside.items():
        for kind, what in SCORES.items():
            area = auroc(inside[kind], scores[kind])
            accepted = false_positives(inside[kind], scores[kind])
            result.add(f"ood/{name}/{kind}/auroc", f"AUROC against {name}, {what}", area)
            result.numbers[f"ood/{name}/{kind}/fpr_at_95_tpr"] = accepted
            numbers = [repr(float(value)) for value in (*area, accepted)]
            table.append([name, str(len(scores[kind])), kind, *numbers])
    for kind, what in SCORES.items():
        for number in ("auroc", "fpr_at_95_tpr"):
            values = [result.numbers[f"ood/{name}/{kind}/{number}"] for name in outside]
            mean = float(np.mean(values))
            result.numbers[f"ood/mean/{kind}/{number}"] = mean
            if number == "auroc" and len(outside) > 1:
                result.rows.append((f"mean AUROC, {what}", f"{mean:.1%}"))
    result.tables["ood.csv"] = table
    result.figures["ood.svg"] = lambda target: _draw(target, inside, outside)
    return result


def auroc(inside: np.ndarray, outside: np.ndarray) -> intervals.Interval:
    """Returns the area under the ROC curve with its interval (DeLong et al. 1988).

    It is the probability that an image in the distribution has the higher score, where equal
    scores count half.

    Args:
        inside: (m,) scores of images in the distribution.
        outside: (n,) scores of other images.
    """
    m, n = len(inside), len(outside)
    ranks = scipy.stats.rankdata(np.concatenate([inside, outside]))
    # Fraction of the other images below each image in the distribution, and the reverse.
    below = (ranks[:m] - scipy.stats.rankdata(inside)) / n
    above = 1 - (ranks[m:] - scipy.stats.rankdata(outside)) / m
    area = float(np.mean(below))
    half = _NORMAL * float(np.sqrt(np.var(below) / m + np.var(above) / n))
    return intervals.Interval(area, max(0.0, area - half), min(1.0, area + half))


def false_positives(inside: np.ndarray, outside: np.ndarray) -> float:
    """Returns the fraction of other images that are accepted with 95% of those inside.

    Accepted are scores of at least the largest threshold by which at least 95% of the images in
    the distribution are accepted. Arguments are those of `auroc`.
    """
    accepted = int(np.ceil(_TRUE_POSITIVES * len(inside) - 1e-9))
    threshold = np.sort(inside)[len(inside) - accepted]
    return float(np.mean(outside >= threshold))


def _draw(
    target: figure.Figure,
    inside: Mapping[str, np.ndarray],
    outside: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """Draws histograms of each score, for the evaluation split and each other data set."""
    panels = target.subplots(2, 2).ravel()
    for axes, (kind, what) in zip(panels, SCORES.items()):
        shown = {"evaluation split": inside[kind]}
        shown |= {name: scores[kind] for name, scores in outside.items()}
        # A few extreme scores would leave the rest in one bar.
        edges = np.percentile(np.concatenate(list(shown.values())), [0.5, 99.5])
        if edges[0] == edges[1]:
            edges = edges + np.array([-0.5, 0.5])
        bins = np.linspace(*edges, _BINS + 1)
        for name, values in shown.items():
            clipped = np.clip(values, *edges)
            axes.hist(clipped, bins, density=True, histtype="step", label=name)
        axes.set(title=what, yticks=[])
    panels[0].legend(loc="upper left", fontsize="small")
    target.supxlabel("score; higher: more like the training images")
