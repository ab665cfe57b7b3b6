"""Means of the metrics of training between two log entries."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from simclr_tf.training import collapse, input_wait, schedules


@dataclasses.dataclass(frozen=True)
class Sums:
    """The result of one call of the compiled loop.

    Attributes:
        steps: number of steps run; fewer than requested if the last one was not finite.
        waited: seconds spent waiting for input.
        finite: whether the loss and the gradient of every step were finite. Those of the last step
            were not otherwise, and its update was left out.
        totals: sum of each metric over the steps in which it was finite.
        missing: number of steps in which a metric was not finite, if there are any: the gradient
            overflowed float16, or the metric is undefined for the images of the step.
        last: metrics of the last step.
    """

    steps: int
    waited: float
    finite: bool
    totals: dict[str, float]
    missing: dict[str, int] = dataclasses.field(default_factory=dict)
    last: dict[str, float] = dataclasses.field(default_factory=dict)


class Averages:
    """Averages metrics between two log entries.

    It warns once if the representation collapses, and once if the input is too slow.
    """

    def __init__(
        self,
        plan: schedules.Plan,
        chance: float | None,
        *,
        judges_rank: bool = False,
        input_remedies: Sequence[str] = (),
    ) -> None:
        self._plan = plan
        self._chance = chance
        self._collapse = collapse.Watch(warmup_steps=plan.warmup_steps, judges_rank=judges_rank)
        self._input = input_wait.Watch(input_remedies)
        self._steps_seen = 0
        self._last: dict[str, float] = {}
        self._clear()

    def _clear(self) -> None:
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self._totals: dict[str, float] = {}
        self._missing: dict[str, int] = {}

    def add(self, sums: Sums, seconds: float) -> None:
        """Adds the result of one call that took `seconds`."""
        self._steps += sums.steps
        self._steps_seen += sums.steps
        self._seconds += seconds
        self._waited += sums.waited
        for name, value in sums.totals.items():
            self._totals[name] = self._totals.get(name, 0.0) + value
            self._missing[name] = self._missing.get(name, 0) + sums.missing.get(name, 0)
        self._last = self._means()

    def _means(self) -> dict[str, float]:
        counts = {name: self._steps - missing for name, missing in self._missing.items()}
        means = {name: self._totals[name] / count for name, count in counts.items() if count}
        means["train/images_per_second"] = self._steps * self._plan.batch_size / self._seconds
        means["train/input_wait"] = self._waited / self._seconds
        return means

    def summary(self) -> str:
        """Returns the latest metrics in one line."""
        m, parts = self._last, []
        if "train/contrast_loss" in m:
            chance = f" (chance {self._chance:.3f})" if self._chance is not None else ""
            parts.append(f"loss {m['train/contrast_loss']:.3f}{chance}")
            parts.append(f"contrastive acc. {m['train/contrast_acc']:.1%}")
        else:
            parts.append(f"loss {m['train/total_loss']:.3f}")
        if "train/supervised_acc" in m:
            parts.append(f"label acc. {m['train/supervised_acc']:.1%}")
        if "train/supervised_jaccard" in m:
            parts.append(f"overlap of labels {m['train/supervised_jaccard']:.1%}")
        parts.append(f"{m['train/images_per_second']:,.0f} images/s")
        parts.append(f"input wait {m['train/input_wait']:.0%}")
        return "  ".join(parts)

    def flush(self) -> dict[str, float]:
        """Returns the means since the last flush and starts again."""
        means = self._means()
        if "train/contrast_loss" in means:
            if self._chance is not None:
                means["train/chance_loss"] = self._chance
            self._collapse.record(self._steps_seen, means)
        self._input.record(self._waited, self._seconds)
        self._clear()
        return means
