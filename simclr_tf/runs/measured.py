"""What was measured of a run: the accuracy in result.json, and the best step in best.json."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

# The numbers that stand for a run, the first that was measured: an accuracy or, of images that may
# have several labels, the mean average precision.
_ENCODER, _CLASSIFIER = "linear_eval/", "eval/label_"
MEASURES = ("top_1_accuracy", "mean_average_precision")
# What is shown beside each of them.
BESIDE = {MEASURES[0]: "top_5_accuracy", MEASURES[1]: "mean_roc_auc"}
# What they are called.
TITLES = {
    MEASURES[0]: ("top-1", "top-5"),
    MEASURES[1]: ("mean average precision", "mean ROC AUC"),
}


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The accuracy that stands for a run.

    Attributes:
        value: the fraction of right predictions.
        low: lower end of its 95% interval; None in results of earlier versions.
        high: upper end.
        name: its name in result.json.
        step: the step that was evaluated.
        labels: identifies the evaluated images and their labels; None in results of earlier
            versions.
    """

    value: float
    low: float | None
    high: float | None
    name: str
    step: int
    labels: str | None


@dataclasses.dataclass(frozen=True)
class Best:
    """The best step of the evaluations during training.

    Attributes:
        step: the step.
        metric: name of the number by which it is the best.
        value: that number.
    """

    step: int
    metric: str
    value: float


def accuracy(result: dict[str, Any], *, classifies: bool) -> Accuracy | None:
    """Returns the accuracy that stands for a run; None if no accuracy was measured.

    Args:
        result: the content of result.json.
        classifies: whether the network was trained to classify, so that its own predictions come
            first; otherwise, those of the linear evaluation.

    Raises:
        LookupError, TypeError, ValueError: if it is not such a content.
    """
    prefixes = (_CLASSIFIER, _ENCODER) if classifies else (_ENCODER, _CLASSIFIER)
    names = (f"{prefix}{measure}" for measure in MEASURES for prefix in prefixes)
    name = next((name for name in names if name in result), None)
    if name is None:
        return None
    low, high = result.get(f"{name}_95") or (None, None)
    return Accuracy(
        value=float(result[name]),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        name=name,
        step=int(result["global_step"]),
        labels=(result.get("eval/measured_on") or {}).get("eval_labels"),
    )


def measure_of(result: Mapping[str, Any]) -> str:
    """Returns which of `MEASURES` the numbers of a result are."""
    several = any(name.endswith(MEASURES[1]) for name in result)
    return MEASURES[1] if several else MEASURES[0]


def accuracy_names(result: Mapping[str, Any], *, contrastive: bool) -> dict[str, str]:
    """Returns what the accuracies in result.json are called in tables, by their prefix.

    Args:
        result: the content of result.json.
        contrastive: whether the network was pretrained, so that its classifier was trained beside
            it.
    """
    # Older results and encoders with a single initialisation do not name it.
    initialization = str(result.get("baseline/random_encoder/initialization", ""))
    how = f" ({initialization.replace('_', ' ')})" if initialization else ""
    return {
        "linear_eval/": "linear evaluation of the encoder",
        "eval/label_": "online linear head" if contrastive else "trained classifier",
        "baseline/random_encoder/": f"linear evaluation, untrained encoder{how}",
        "baseline/raw_pixels/": "linear evaluation, raw pixels",
    }


def best(content: dict[str, Any]) -> Best:
    """Returns the best step that best.json names.

    Raises:
        LookupError, TypeError, ValueError: if it is not such a content.
    """
    return Best(int(content["step"]), str(content["metric"]), float(content["value"]))
