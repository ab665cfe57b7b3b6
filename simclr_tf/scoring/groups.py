"""The groups of the images that are evaluated and of those that the classifier learns from."""

from __future__ import annotations

import dataclasses

import numpy as np

from simclr_tf import errors
from simclr_tf.evaluation import features, grouped_holdout
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

    def hold_out(self, labels: np.ndarray, *, seed: int) -> np.ndarray | None:
        """Returns the positions of the images to choose the strength on; None without groups.

        Args:
            labels: (n,) classes of the images to learn from.
            seed: seed of the draw.

        Raises:
            UserError: if they are one group.
        """
        if self.trained is None:
            return None
        if len(np.unique(self.trained)) < 2:
            raise errors.UserError(
                f"The {len(labels):,} images that the linear classifier learns from are all of one "
                "group, so none can be held out; give another --group, or leave it out."
            )
        return grouped_holdout.hold_out(labels, self.trained, seed=seed)


NONE = OfSplits()


def of(run: opening.Run, split: str, extracted: features.Extracted) -> np.ndarray | None:
    """Returns the groups (n,) of extracted images as numbers; None if images are independent."""
    names = names_of(run, split, extracted)
    return None if names is None else np.unique(names.astype(str), return_inverse=True)[1]


def names_of(run: opening.Run, split: str, extracted: features.Extracted) -> np.ndarray | None:
    """Returns the names (n,) of the groups of extracted images; None if they are independent."""
    names = run.data.source.example_groups(split)
    return None if names is None else np.array(names, object)[extracted.positions]
