"""The evaluations of a run whose images may have several labels."""

from __future__ import annotations

from simclr_tf import console
from simclr_tf.evaluation import class_ranking, geometry, outcome
from simclr_tf.evaluation import several_labels as measuring
from simclr_tf.runs import opening
from simclr_tf.scoring import scores as scores_lib

LEFT_OUT = "eval/left_out"  # Entry of a result: what was not measured -> why.


def say_left_out(run: opening.Run, scores: scores_lib.Scores) -> None:
    """Says what is not measured and why, and adds it to `scores`.

    Args:
        run: the run.
        scores: what was measured so far; changed.
    """
    left_out = measuring.left_out(run.config.evaluation_names)
    scores.numbers[LEFT_OUT] = left_out
    console.table(
        "Not measured, because images may have several labels",
        ["what", "why"],
        [[name, reason] for name, reason in left_out.items()],
    )


def add(run: opening.Run, scores: scores_lib.Scores, inputs: outcome.Inputs) -> None:
    """Adds the numbers of each class and the chosen evaluations.

    Args:
        run: the run.
        scores: what was measured so far; changed.
        inputs: what evaluations read, with labels (n, c) and (m, c).
    """
    names = run.config.evaluation_names
    with console.working("Ranking the images of each class"):
        found = class_ranking.rank(
            inputs.test_scores, inputs.test_labels, seed=inputs.seed, groups=inputs.test_groups
        )
        scores.outcomes["classes"] = measuring.of_classes(found, inputs)
    if "knn" in names:
        with console.working("Evaluating knn"):
            scores.outcomes["knn"] = measuring.nearest(inputs)
    if "geometry" in names:
        with console.working("Evaluating geometry"):
            scores.outcomes["geometry"] = geometry.evaluate(inputs)
