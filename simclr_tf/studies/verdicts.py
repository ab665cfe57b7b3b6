"""Whether the expected orders of a study show in its results."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from simclr_tf import errors
from simclr_tf.evaluation import comparison, contrasts, intervals, power
from simclr_tf.studies import definition, outcomes

SHOWN, NOT_SHOWN, CONTRARY, MISSING = "shown", "not shown", "contrary", "not run"
_SIGNIFICANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the results say of an expected order.

    Attributes:
        order: the order.
        verdict: SHOWN, NOT_SHOWN, CONTRARY, or MISSING if its cells are not done.
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
    orders: Sequence[definition.Order], found: Sequence[outcomes.Outcome], *, seed: int = 0
) -> list[Verdict]:
    """Returns a verdict for each expected order.

    An order is shown if the difference is at least its margin, has the same sign with every seed,
    and its p-value after Holm's correction over all orders is below 5%. It is contrary if the
    opposite is significant.

    Args:
        orders: the orders.
        found: the results of the cells that are done.
        seed: seed of the resampling.

    Raises:
        UserError: if cells cannot be compared.
    """
    tested = [test(order, found, seed=seed) for order in orders]
    return decide(orders, tested)


def decide(
    orders: Sequence[definition.Order], tested: Sequence[contrasts.Contrast | None]
) -> list[Verdict]:
    """Returns the verdicts of tests, with Holm's correction over all of them."""
    p_values = [one.p for one in tested if one is not None]
    corrected = iter(comparison.holm(p_values))
    return [
        _verdict(order, one, next(corrected) if one is not None else math.nan)
        for order, one in zip(orders, tested, strict=True)
    ]


def test(
    order: definition.Order, found: Sequence[outcomes.Outcome], *, seed: int = 0
) -> contrasts.Contrast | None:
    """Returns the difference that an order is about; None if its cells are not done."""
    if order.metric != definition.ACCURACY or order.lower.metric != definition.ACCURACY:
        return _test_numbers(order, found)
    sides = [
        _select(found, wanted)
        for side in (order.higher, order.lower)
        for wanted in (side.cells, side.minus)
        if wanted is not None
    ]
    seeds = _common_seeds(sides)
    if not seeds:
        return None
    stacked = iter(_stack(sides, seeds))
    higher = next(stacked)
    higher_minus = next(stacked) if order.higher.minus is not None else None
    lower = next(stacked)
    lower_minus = next(stacked) if order.lower.minus is not None else None
    if order.spread:
        if min(len(higher), len(lower)) < 2:
            raise errors.UserError(
                f"The order {order.claim!r} compares spreads, which needs two cells on each side."
            )
        return contrasts.of_spreads(higher, lower, seed=seed)
    return contrasts.of_means(
        higher, lower, higher_minus=higher_minus, lower_minus=lower_minus, seed=seed
    )


def _select(found: Sequence[outcomes.Outcome], wanted: definition.Labels) -> list[outcomes.Outcome]:
    return [one for one in found if definition.matches(one.cell.labels, wanted)]


def _common_seeds(sides: Sequence[Sequence[outcomes.Outcome]]) -> list[int]:
    """Returns the seeds that every cell of every side is done with."""
    seeds_of: dict[tuple, set[int]] = {}
    for side in sides:
        if not side:
            return []
        for one in side:
            seeds_of.setdefault(tuple(one.cell.labels.items()), set()).add(one.cell.seed)
    return sorted(set.intersection(*seeds_of.values()))


def _stack(sides: Sequence[Sequence[outcomes.Outcome]], seeds: Sequence[int]) -> list[np.ndarray]:
    """Returns which images the cells of each side predict right, (cells, seeds, images)."""
    flat = [one for side in sides for one in side if one.cell.seed in seeds]
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
    order: definition.Order, found: Sequence[outcomes.Outcome]
) -> contrasts.Contrast | None:
    """Compares numbers of result.json, over seeds."""
    sides = [_select(found, side.cells) for side in (order.higher, order.lower)]
    seeds = _common_seeds(sides)
    if not seeds:
        return None
    means = [
        np.array(
            [np.mean([one.value(of.metric) for one in side if one.cell.seed == s]) for s in seeds]
        )
        for side, of in zip(sides, (order.higher, order.lower), strict=True)
    ]
    return contrasts.of_numbers(*means)


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
    if significant and value >= order.margin and value > 0:
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
