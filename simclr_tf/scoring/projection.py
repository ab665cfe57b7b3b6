"""The linear evaluation of the projection head's output g(h), beside that of the features h."""

from __future__ import annotations

import numpy as np

from simclr_tf import console
from simclr_tf.evaluation import comparison, features, forward, outcome
from simclr_tf.scoring import extraction, groups, label_repeats, linear_fits, network

NAME = "projection"


def evaluate(context: network.Context) -> outcome.Outcome:
    """Fits the linear classifier to g(h) as it was fitted to h, and compares the two.

    SimCLR (section 4.2) finds h more than 10 points better than g(h). Both have the same images and
    the same search of the strength, and are compared on the same evaluated images.

    Args:
        context: what evaluations read that run the network again.

    Returns:
        The accuracy of g(h), and the difference of h from it; nothing if there is no head.
    """
    run, found = context.run, outcome.Outcome()
    if run.architecture.proj_head_mode == "none":
        console.say(
            "Left out: --evaluations=projection, because the network has no projection head "
            "(--proj_head_mode=none)."
        )
        return found
    projecting = forward.Forward(context.model, run.strategy, forward.Outputs(projection=True))
    train = _extract(context, projecting, run.data.train_split)
    test = _extract(context, projecting, run.data.eval_split)
    assert train.projection is not None and test.projection is not None
    _, scores = linear_fits.evaluate(
        run,
        NAME,
        train.projection,
        test.projection,
        (train.labels, test.labels),
        found.numbers,
        groups=groups.of_both(run, train, test),
    )
    hits = np.argmax(scores, 1) == test.labels
    found.add(f"{NAME}/top_1_accuracy", "linear evaluation of g(h)", context.inputs.interval(hits))
    of_features = np.argmax(context.fit.scores(context.test.features), 1) == test.labels
    compared = comparison.compare(
        hits, of_features, seed=run.config.seed, groups=context.inputs.test_groups
    )
    found.numbers[f"{NAME}/features_minus_projection"] = compared.difference.value
    found.numbers[f"{NAME}/features_minus_projection_95"] = [
        compared.difference.low,
        compared.difference.high,
    ]
    found.numbers[f"{NAME}/p"] = compared.p
    value, low, high = (100 * number for number in compared.difference)
    found.rows.append(("h minus g(h), points", f"{value:+.1f} ({low:+.1f} to {high:+.1f})"))
    return found


def _extract(
    context: network.Context, projecting: forward.Forward, split: str
) -> features.Extracted:
    """Returns g(h) of the images whose h was evaluated."""
    extracted = extraction.extract(context.run, projecting, split, what=f"projections of {split}")
    if split == context.run.data.train_split:
        return label_repeats.of_draw(context.run, extracted, 0)
    return extracted
