"""The numbers of result.json for people: in groups, with names, and with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from simclr_tf import config as config_lib
from simclr_tf.evaluation import intervals
from simclr_tf.report import metric_columns
from simclr_tf.runs import measured

_INTERVAL = "_95"  # Ends the name of the interval of a number.
# Beginning of the names in result.json -> title and what the numbers are.
GROUPS = {
    "knn": ("Nearest neighbours", "The k nearest training images vote for their class."),
    "per_class": ("Classes", "Counts a rare class as much as a frequent one."),
    "classes": ("Classes", "The ranking of the images of each class is in class_ranking.csv."),
    "retrieval": ("Retrieval", "Other evaluated images, ranked by the cosine of their features."),
    "calibration": ("Calibration", "Whether a probability is the frequency of being right."),
    "selective": ("Most certain predictions", "Accuracy of those that the network is sure of."),
    "clusters": ("Clusters", "Agreement of k-means clusters with the classes; 0 is chance."),
    "geometry": ("Geometry of the features", "How the features are spread."),
    "map": ("Map", "1 if neighbours in the map are neighbours in the features."),
    "probes": ("What the features know", "Accuracy of classifiers of what was done to an image."),
    "projection": ("After the projection head", "The linear evaluation of its output g(h)."),
    "label_free": ("Without labels", "From random views of the evaluated images."),
    "robustness": ("Corrupted images", "Accuracy under the corruptions of ImageNet-C."),
    "shifts": ("Other data sets of the same classes", ""),
    "ood": ("Images of other classes", "How well a score separates them; 50% is chance."),
    "few_labels": ("Draws of few labels", "Mean and standard deviation over the draws."),
    "baseline": ("Baselines", "The linear evaluation, without training."),
    "linear_eval": ("Linear evaluation", "A logistic regression on the frozen features."),
    "eval": ("Evaluated images", ""),
    "train": ("Training", ""),
}
_NAMES = {
    "ece": "expected calibration error",
    "adaptive_ece": "the same, bins of equal size",
    "scaled_ece": "calibration error at the fitted temperature",
    "nll": "negative log likelihood",
    "scaled_nll": "negative log likelihood at the fitted temperature",
    "brier": "Brier score",
    "temperature": "fitted temperature",
    "map_at_r": "mAP@R",
    "mean_average_precision": "mean average precision",
    "mean_roc_auc": "mean ROC AUC",
    "label_mean_roc_auc": "label mean ROC AUC",
    "scored": "classes with an image to find",
    "nmi": "normalised mutual information",
    "ari": "adjusted Rand index",
    "rankme": "RankMe of the features",
    "rankme_projection": "RankMe of the projection",
    "lidar": "LiDAR of the features",
    "lidar_projection": "LiDAR of the projection",
    "mean_ece": "mean calibration error",
    "area": "area under risk and coverage",
}
_FRACTION = re.compile(r"accuracy|recall|auroc|fpr|ece$|mce$|chance|view_retrieval")
_WHOLE = re.compile(r"images$|views$|queries$|examples$|groups$|_step$")


@dataclasses.dataclass(frozen=True)
class Number:
    """A number of an evaluation.

    Attributes:
        key: its name in result.json.
        name: its name for people.
        value: the number.
        low: lower end of its 95% interval; None if it has none.
        high: upper end.
    """

    key: str
    name: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def is_fraction(self) -> bool:
        """Whether it is shown in percent."""
        return self.low is not None or bool(_FRACTION.search(self.key))

    @property
    def shown(self) -> str:
        """The number as text."""
        if self.is_fraction:
            return f"{self.value:.1%}"
        return f"{self.value:,.0f}" if _WHOLE.search(self.key) else f"{self.value:.4g}"

    @property
    def limits(self) -> str:
        """Its interval as text; empty if it has none."""
        if self.low is None or self.high is None:
            return ""
        return f"{100 * self.low:.1f}–{100 * self.high:.1f}"

    @property
    def interval(self) -> intervals.Interval | None:
        """The number with its interval; None if it has none."""
        if self.low is None or self.high is None:
            return None
        return intervals.Interval(self.value, self.low, self.high)


@dataclasses.dataclass(frozen=True)
class Group:
    """Numbers of one evaluation.

    Attributes:
        title: above them.
        note: what they are.
        numbers: at least one.
    """

    title: str
    note: str
    numbers: tuple[Number, ...]


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A row of the table of accuracies, or of mean average precisions.

    Attributes:
        what: what was evaluated.
        top_1: its accuracy; the mean average precision where images may have several labels.
        top_5: the same among the five most probable classes, or the mean ROC AUC; None if it was
            not measured.
    """

    what: str
    top_1: Number
    top_5: Number | None


def find(result: Mapping[str, Any], key: str) -> Number | None:
    """Returns a number of a result; None if it is not there, or is not a number."""
    value = metric_columns.to_number(result.get(key))
    if value is None:
        return None
    low, high = _limits(result.get(f"{key}{_INTERVAL}"))
    return Number(key, _name(key), value, low, high)


def _limits(stored: Any) -> tuple[float | None, float | None]:
    ends = [metric_columns.to_number(end) for end in stored] if isinstance(stored, list) else []
    if len(ends) != 2 or None in ends:
        return None, None
    return ends[0], ends[1]


def _name(key: str) -> str:
    """Returns what a number is called: the end of its name in result.json, in words."""
    group, _, rest = key.partition("/")
    base, slash, last = (rest or key).rpartition("/")
    if group == "knn":
        base = f"k = {base}"
    last = _NAMES.get(last, re.sub(r"top_(\d)_", r"top-\1 ", last))
    return f"{base}{slash and ', '}{last}".replace("_", " ").replace("/", ", ")


def accuracies(config: config_lib.Config | None, result: Mapping[str, Any]) -> list[Accuracy]:
    """Returns the accuracies of the network and of the baselines."""
    rows = []
    contrastive = (config or config_lib.Config()).contrastive
    measure = measured.measure_of(result)
    for prefix, what in measured.accuracy_names(result, contrastive=contrastive).items():
        top_1 = find(result, f"{prefix}{measure}")
        if top_1 is not None:
            beside = find(result, f"{prefix}{measured.BESIDE[measure]}")
            rows.append(Accuracy(what, top_1, beside))
    return rows


def headline(config: config_lib.Config | None, result: Mapping[str, Any]) -> Accuracy | None:
    """Returns the number that says how good a run is; None if it was not evaluated.

    It is the linear evaluation of a representation, the accuracy of a trained classifier, and
    without labels how often views of an image are recognised.
    """
    found = {row.top_1.key: row for row in accuracies(config, result)}
    measure = measured.measure_of(result)
    order = [f"linear_eval/{measure}", f"eval/label_{measure}"]
    if config is not None and not config.contrastive:
        order.reverse()
    for key in order:
        if key in found:
            return found[key]
    number = find(result, "label_free/view_retrieval")
    what = "the other view of an image is the nearest one (no labels)"
    return None if number is None else Accuracy(what, number, None)


def groups(result: Mapping[str, Any]) -> list[Group]:
    """Returns all numbers of a result, grouped by evaluation."""
    found: dict[str, list[Number]] = {}
    for key in result:
        number = None if key.endswith(_INTERVAL) else find(result, key)
        if number is not None and key != "global_step":
            found.setdefault(key.partition("/")[0], []).append(number)
    order = list(GROUPS)
    names = sorted(found, key=lambda name: order.index(name) if name in order else len(order))
    return [
        Group(*GROUPS.get(name, (name.replace("_", " "), "")), tuple(found[name])) for name in names
    ]
