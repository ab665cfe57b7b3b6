"""Warns if a representation collapses."""

from __future__ import annotations

from collections.abc import Mapping

from simclr_tf import console

# Names of the metrics that show it.
POSITIVE_COSINE, NEGATIVE_COSINE = "train/positive_cosine", "train/negative_cosine"
SPREAD, RANK = "train/feature_spread", "train/feature_rank"

# Collapse is judged by the geometry and not by the loss, which at a low temperature is above chance
# in healthy runs, too. The square of the spread is at most 1 minus the mean cosine of two images'
# features: constant features have 0, and 0.02 is a cosine of 0.9996. Healthy runs have 0.1 to 1.
# Some untrained Keras networks begin at 0.01 and leave it within a few steps, hence several records
# in a row.
_LEAST_SPREAD = 0.02
_MOST_COSINE = 1 - _LEAST_SPREAD**2
# Features on a line have rank 1. With 2.5% of the variance beside the line it is 1.05.
_LEAST_RANK = 1.05
_RECORDS = 5
# Fewer images at a time may well lie on a line.
_LEAST_IMAGES = 8


class Watch:
    """Judges every record, and warns once."""

    def __init__(self, *, warmup_steps: int, judges_rank: bool) -> None:
        """Starts to watch.

        Args:
            warmup_steps: steps in which no record is judged, at most 200.
            judges_rank: whether features on a line are a collapse, see `judges_rank`.
        """
        self._ignored_steps = min(warmup_steps, 200)
        self._judges_rank = judges_rank
        self._records, self._warned = 0, False

    def record(self, steps: int, means: Mapping[str, float]) -> None:
        """Judges a record, and prints the warning if there is one; see `judge`."""
        warning = self.judge(steps, means)
        if warning is not None:
            console.warn(warning)

    def judge(self, steps: int, means: Mapping[str, float]) -> str | None:
        """Judges a record.

        Args:
            steps: number of steps seen so far.
            means: means of the metrics over the steps of the record.

        Returns:
            The warning, once; None otherwise.
        """
        if self._warned or steps <= self._ignored_steps:
            return None
        found = self._find(means)
        self._records = self._records + 1 if found else 0
        if self._records < _RECORDS:
            return None
        self._warned = True
        return (
            f"The representation may have collapsed: {found} in {_RECORDS} records in a row. A "
            "lower --learning_rate, a longer --warmup_epochs or weaker augmentation often helps."
        )

    def _find(self, means: Mapping[str, float]) -> str | None:
        """Returns what shows a collapse, as the beginning of a sentence."""
        spread, cosine, rank = (means[name] for name in (SPREAD, NEGATIVE_COSINE, RANK))
        if spread < _LEAST_SPREAD:
            return (
                "the features of different images were nearly equal "
                f"(train/feature_spread {spread:.3g} of 1)"
            )
        if cosine > _MOST_COSINE:
            return (
                "the projections of different images were nearly equal "
                f"(train/negative_cosine {cosine:.5f})"
            )
        if self._judges_rank and rank < _LEAST_RANK:
            return (
                "the features of different images differed in one direction only "
                f"(train/feature_rank {rank:.3g})"
            )
        return None


def judges_rank(*, reads_labels: bool, images: int) -> bool:
    """Returns whether features on a line are a collapse.

    They are not if labels are learned: the features of two classes then end on a line.

    Args:
        reads_labels: whether the encoder learns from labels.
        images: images in a forward pass of a replica.
    """
    return not reads_labels and images >= _LEAST_IMAGES
