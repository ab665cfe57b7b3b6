"""The expected orders on the page of a study: their verdicts, tests and power."""

from __future__ import annotations

import math

import numpy as np

from simclr_tf.report import markdown
from simclr_tf.studies import definition, results, verdicts

SHOWN = f"**{verdicts.SHOWN}**"
HEADER = (
    "expected order",
    "difference (95%)",
    "each seed",
    "p",
    "p (Holm)",
    "here",
)
ALIGNMENTS = ("---", "--:", "--:", "--:", "--:", "---")


def section(found: results.Results) -> str:
    """Returns the table of the expected orders and what its numbers mean."""
    if not found.verdicts:
        return ""
    rows = [order_row(one) for one in found.verdicts]
    lines = ["## Expected orders\n", markdown.table(HEADER, ALIGNMENTS, rows), _tests(found)]
    mcnemar = [
        f"{one.order.claim}: {', '.join(f'{p:.1g}' for p in one.contrast.mcnemar)}"
        for one in found.verdicts
        if one.contrast is not None and len(one.contrast.mcnemar) > 1
    ]
    if mcnemar:
        lines.append(f"McNemar's exact test of each seed: {'; '.join(mcnemar)}.\n")
    lines.append(_power(found))
    lines.append(_versions(found))
    return "\n".join(line for line in lines if line)


def order_row(one: verdicts.Verdict) -> list[str]:
    """Returns a row: claim, difference, each seed, p, p after Holm's correction, verdict."""
    if one.contrast is None:
        return [one.order.claim, "", "", "", "", one.verdict]
    factor, digits = unit(one.order.metric)
    value, low, high = (factor * number for number in one.contrast.difference)
    points = " points" if one.order.metric == definition.ACCURACY else ""
    margin = f" (by at least {one.order.margin:g}{points})" if one.order.margin else ""
    interval = f" ({low:+.{digits}f} to {high:+.{digits}f})" if math.isfinite(low) else ""
    return [
        one.order.claim + margin,
        f"{value:+.{digits}f}{interval}",
        ", ".join(f"{factor * number:+.{digits}f}" for number in one.contrast.of_seeds),
        f"{one.contrast.p:.2g}",
        f"{one.adjusted:.2g}",
        SHOWN if one.verdict == verdicts.SHOWN else one.verdict,
    ]


def unit(metric: str) -> tuple[float, int]:
    """Returns the factor and the number of digits that a metric is printed with."""
    return (100.0, 1) if metric == definition.ACCURACY else (1.0, 3)


def _tests(found: results.Results) -> str:
    """Returns how the orders were tested."""
    orders = found.study.orders
    metrics = {one.metric for one in orders}
    numbers = ", ".join(f"`{name}`" for name in sorted(metrics - {definition.ACCURACY}))
    sentences = [
        "Differences of accuracies are in percentage points. Their p is a sign-flip test on the "
        "evaluation images over the sums of all seeds, which is McNemar's test for a single seed; "
        "their interval covers the choice of the images, not that of the seeds."
        if definition.ACCURACY in metrics
        else "",
        "Of spreads, which are standard deviations over cells, p is a bootstrap over images."
        if any(one.spread for one in orders)
        else "",
        f"Of {numbers}, p and the interval are those of a t-test over seeds." if numbers else "",
        "p (Holm) is corrected for the number of orders of this study. An order counts as shown if "
        "p (Holm) is below 5%, the difference is at least the expected one, and every seed has the "
        "same order; as contrary if the opposite is significant.",
    ]
    return " ".join(filter(None, sentences)) + "\n"


def _power(found: results.Results) -> str:
    """Returns a table of the differences that these seeds could have shown."""
    rows = [_power_row(one) for one in found.verdicts if math.isfinite(one.smallest)]
    if not rows:
        return ""
    header = (
        "expected order",
        "standard deviation over seeds",
        "smallest difference found with 80%",
        "seeds needed",
    )
    return (
        "Differences that a t-test over these seeds finds with a probability of 80%, in points or "
        "in the unit of the number, and how many seeds would find the expected difference or, if "
        "none is expected, the observed one:\n\n"
        + markdown.table(header, ("---", "--:", "--:", "--:"), rows)
    )


def _power_row(one: verdicts.Verdict) -> list[str]:
    assert one.contrast is not None
    factor, digits = unit(one.order.metric)
    deviation = factor * float(np.std(one.contrast.of_seeds, ddof=1))
    return [
        one.order.claim,
        f"{deviation:.{digits}f}",
        f"{one.smallest:.{digits}f}",
        "" if one.seeds_needed is None else f"{one.seeds_needed:,}",
    ]


def _versions(found: results.Results) -> str:
    """Returns when the expected orders were written down."""
    first = found.versions[0]
    sentence = (
        f"The orders were written down on {first['date']}, before this study was run (SHA-256 "
        f"`{first['sha256'][:16]}`)"
    )
    if len(found.versions) == 1:
        return f"{sentence}.\n"
    later = ", ".join(f"{one['date']} (`{one['sha256'][:16]}`)" for one in found.versions[1:])
    return f"{sentence}. **They were changed afterwards**: {later}.\n"
