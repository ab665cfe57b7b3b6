"""What evaluations that run the network again read."""

from __future__ import annotations

import dataclasses

import numpy as np

from simclr_tf.evaluation import features, linear, outcome
from simclr_tf.models import simclr
from simclr_tf.runs import opening


@dataclasses.dataclass(frozen=True)
class Context:
    """What an evaluation reads that runs the network on other images than those of the splits.

    Attributes:
        run: the run.
        model: its network.
        train: what was extracted from the training split.
        test: what was extracted from the evaluation split.
        fit: the linear classifier that was fitted to the features of the training split.
        inputs: what the other evaluations read.
    """

    run: opening.Run
    model: simclr.SimCLR
    train: features.Extracted
    test: features.Extracted
    fit: linear.Fit
    inputs: outcome.Inputs

    def class_scores(self, features: np.ndarray, logits: np.ndarray | None) -> np.ndarray:
        """Returns the scores (n, c) of the classifier that the other evaluations read.

        Args:
            features: (n, f) of the network.
            logits: (n, c) of its linear head; None without one.
        """
        if logits is not None and not self.run.config.contrastive:
            return logits
        return self.fit.scores(features)
