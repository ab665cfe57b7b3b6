"""The groups of the images that are evaluated and of those that the classifier learns from."""

from __future__ import annotations

import dataclasses

import numpy as np

from simclr_tf.evaluation import features, grouped_holdout, held_out
from simclr_tf.runs import opening


@dataclasses.dataclass(frozen=True)
class OfSplits:
    """The groups of the images of two splits, as numbers; None if images are independent.

    Attributes:
        trained: (n,) of the images that the linear classifier learns from.
        evaluated: (m,) of the evaluated images.
    """

    trained: np.ndarray | None = None
    evaluated: np.ndarray | None = None

    def splits(self, labels: np.ndarray, *, seed: int, few: bool) -> list[held_out.Split] | None:
        """Returns splits to choose the strength on, see `linear.fit`; None without groups.

        Args:
            labels: (n,) classes of the images to learn from.
            seed: seed of the draw.
            few: whether the data has few labels.
        """
        if self.trained is None:
            return None
        return grouped_holdout.splits(labels, self.trained, seed=seed, few=few)


NONE = OfSplits()


def of_both(run: opening.Run, train: features.Extracted, test: features.Extracted) -> OfSplits:
    """Returns the groups of images of the training and of the evaluation split."""
    return OfSplits(of(run, run.data.train_split, train), of(run, run.data.eval_split, test))


def of(run: opening.Run, split: str, extracted: features.Extracted) -> np.ndarray | None:
    """Returns the groups (n,) of extracted images as numbers; None if images are independent."""
    names = names_of(run, split, extracted)
    return None if names is None else np.unique(names.astype(str), return_inverse=True)[1]


def names_of(run: opening.Run, split: str, extracted: features.Extracted) -> np.ndarray | None:
    """Returns the names (n,) of the groups of extracted images; None if they are independent."""
    names = run.data.source.example_groups(split)
    return None if names is None else np.array(names, object)[extracted.positions]
