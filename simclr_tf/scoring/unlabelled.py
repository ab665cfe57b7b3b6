"""Scores that need no labels."""

from __future__ import annotations

from simclr_tf import console
from simclr_tf.evaluation import features, forward, label_free, outcome
from simclr_tf.models import simclr
from simclr_tf.runs import builders, opening

# Images and views of each that evaluations without labels draw. The paper of LiDAR: 50 views.
_LABEL_FREE_IMAGES, _LABEL_FREE_VIEWS = 1000, 10


def score(run: opening.Run, model: simclr.SimCLR) -> outcome.Outcome | None:
    """Measures what needs no labels, on random views of images of the evaluation split.

    Returns:
        What was found; None, with a warning, if there are too few images.
    """
    views = features.extract_views(
        forward.Forward(model, run.strategy, forward.Outputs(projection=True)),
        run.data.source,
        run.data.eval_split,
        builders.policy_of(run.config, run.architecture.pixels),
        images=_LABEL_FREE_IMAGES,
        num_views=_LABEL_FREE_VIEWS,
        seed=run.config.seed,
    )
    if views is None:
        console.warn(f"{run.data.eval_split} has too few images for evaluations without labels.")
        return None
    return label_free.evaluate(views)
