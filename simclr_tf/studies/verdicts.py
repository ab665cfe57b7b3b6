"""Whether the expected orders of a study show in its results."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from simclr_tf.evaluation import comparison, contrasts, intervals, power
from simclr_tf.studies import definition, outcomes

SHOWN, NOT_SHOWN, CONTRARY, MISSING = "shown", "not shown", "contrary", "not run"
_SIGNIFICANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the results say of an expected order.

    Attributes:
        order: the order.
        verdict: SHOWN, NOT_SHOWN, CONTRARY, or MISSING if one of its cells is not done.
        contrast: the difference and its tests; None if its cells are not done.
        adjusted: the p-value after Holm's correction over all orders.
        smallest: the smallest difference that these seeds would find with a probability of 80%; NaN
            with one seed.
        seeds_needed: how many seeds would find the margin, or the observed difference if there is
            no margin; None if that is not known or more than 1,000.
    """

    order: definition.Order
    verdict: str
    contrast: contrasts.Contrast | None
    adjusted: float
    smallest: float
    seeds_needed: int | None


def judge(
    study: definition.Study, found: Sequence[outcomes.Outcome], *, seed: int = 0
) -> list[Verdict]:
    """Returns a verdict for each expected order.

    An order is shown if the difference is at least its margin, has the same sign with every seed,
    and its p-value after Holm's correction over all orders is below 5%. It is contrary if the
    opposite is significant.

    Args:
        study: the study, whose orders are tested when all of their cells are done with every seed.
        found: the results of the cells that are done.
        seed: seed of the resampling.

    Raises:
        UserError: if cells cannot be compared.
    """
    tested = [
        test(order, found, study.seeds, seed=seed) if _is_complete(order, study, found) else None
        for order in study.orders
    ]
    return decide(study.orders, tested)


def _is_complete(
    order: definition.Order, study: definition.Study, found: Sequence[outcomes.Outcome]
) -> bool:
    """Returns whether all cells of an order are done with every seed."""
    done = {(tuple(one.cell.labels.items()), one.cell.seed) for one in found}
    return all(
        (tuple(labels.items()), seed) in done
        for labels in study.all_labels()
        for seed in study.seeds
        if any(definition.matches(labels, wanted) for wanted in _wanted(order))
    )


def _wanted(order: definition.Order) -> list[definition.Labels]:
    """Returns what the cells of an order are, in the order of the arguments of a contrast."""
    return [one for side in order.sides for one in (side.cells, side.minus) if one is not None]


def decide(
    orders: Sequence[definition.Order], tested: Sequence[contrasts.Contrast | None]
) -> list[Verdict]:
    """Returns the verdicts of tests, with Holm's correction over all orders.

    Orders that are not tested yet count, too: no p-value becomes larger when they are.
    """
    corrected = comparison.holm([1.0 if one is None else one.p for one in tested])
    return [
        _verdict(order, one, adjusted)
        for order, one, adjusted in zip(orders, tested, corrected, strict=True)
    ]


def test(
    order: definition.Order,
    found: Sequence[outcomes.Outcome],
    seeds: Sequence[int],
    *,
    seed: int = 0,
) -> contrasts.Contrast:
    """Returns the difference that an order is about.

    Args:
        order: the order.
        found: the results, those of its cells with every seed among them.
        seeds: the seeds of the cells.
        seed: seed of the resampling.

    Raises:
        UserError: if its cells were evaluated on different images.
    """
    sides = [_select(found, wanted) for wanted in _wanted(order)]
    if order.metric != definition.ACCURACY or order.lower.metric != definition.ACCURACY:
        return _test_numbers(order, sides, seeds)
    stacked = iter(_stack(sides, seeds))
    higher = next(stacked)
    higher_minus = next(stacked) if order.higher.minus is not None else None
    lower = next(stacked)
    lower_minus = next(stacked) if order.lower.minus is not None else None
    if order.spread:
        return contrasts.of_spreads(higher, lower, seed=seed)
    return contrasts.of_means(
        higher, lower, higher_minus=higher_minus, lower_minus=lower_minus, seed=seed
    )


def _select(found: Sequence[outcomes.Outcome], wanted: definition.Labels) -> list[outcomes.Outcome]:
    return [one for one in found if definition.matches(one.cell.labels, wanted)]


def _stack(sides: Sequence[Sequence[outcomes.Outcome]], seeds: Sequence[int]) -> list[np.ndarray]:
    """Returns which images the cells of each side predict right, (cells, seeds, images)."""
    flat = [one for side in sides for one in side]
    rows = {id(one): row for one, row in zip(flat, outcomes.aligned(flat), strict=True)}
    stacked = []
    for side in sides:
        labels = list(dict.fromkeys(tuple(one.cell.labels.items()) for one in side))
        of = {(tuple(one.cell.labels.items()), one.cell.seed): one for one in side}
        stacked.append(
            np.stack([np.stack([rows[id(of[one, seed])] for seed in seeds]) for one in labels])
        )
    return stacked


def _test_numbers(
    order: definition.Order,
    sides: Sequence[Sequence[outcomes.Outcome]],
    seeds: Sequence[int],
) -> contrasts.Contrast:
    """Compares numbers of result.json or of the metrics, over seeds."""
    remaining = iter(sides)
    totals = []
    for side in order.sides:
        total = _means(next(remaining), side.metric, seeds)
        if side.minus is not None:
            total = total - _means(next(remaining), side.metric, seeds)
        totals.append(total)
    return contrasts.of_numbers(*totals)


def _means(side: Sequence[outcomes.Outcome], metric: str, seeds: Sequence[int]) -> np.ndarray:
    """Returns the mean of a number over cells, for each seed."""
    return np.array(
        [np.mean([one.value(metric) for one in side if one.cell.seed == seed]) for seed in seeds]
    )


def _verdict(
    order: definition.Order, contrast: contrasts.Contrast | None, adjusted: float
) -> Verdict:
    if contrast is None:
        return Verdict(order, MISSING, None, math.nan, math.nan, None)
    unit = 100.0 if order.metric == definition.ACCURACY else 1.0
    value = unit * contrast.difference.value
    same_sign = all(one * value > 0 for one in contrast.of_seeds)
    significant = adjusted < _SIGNIFICANCE and same_sign
    verdict = NOT_SHOWN
    # Differences of fractions of images are not exact.
    if significant and value > 0 and value >= order.margin - 1e-9:
        verdict = SHOWN
    elif significant and value < 0:
        verdict = CONTRARY
    count = len(contrast.of_seeds)
    deviation = unit * float(np.std(contrast.of_seeds, ddof=1)) if count > 1 else math.nan
    smallest, needed = math.nan, None
    if count > 1:
        smallest = power.smallest_difference(deviation, count)
        effect = order.margin or abs(value)
        needed = power.needed_seeds(effect, deviation) if effect > 0 else None
    return Verdict(order, verdict, contrast, adjusted, smallest, needed)


def mean_accuracy(found: Sequence[outcomes.Outcome]) -> intervals.Interval:
    """Returns the accuracy of a cell, the mean over its seeds, with its interval over images."""
    rows = np.stack(outcomes.aligned(found))
    value = float(rows.mean())
    if len(rows) == 1:
        return intervals.accuracy(rows[0])
    # The seeds are right about much the same images: an interval of the mean over images.
    half = 1.96 * float(np.std(rows.mean(0), ddof=1)) / math.sqrt(rows.shape[1])
    return intervals.Interval(value, max(0.0, value - half), min(1.0, value + half))
