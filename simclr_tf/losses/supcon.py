"""Supervised contrastive losses (Khosla et al. 2020, sec. 3.2) over the global batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.losses import blocked, projections, relations, tiles


class SupCon(NamedTuple):
    """A supervised contrastive loss and how many views it could not use.

    Attributes:
        loss: () this replica's share; its mean over replicas is the mean over all views that have
            a positive, 0 if none has.
        without_positive: () float32 share of the views of the global batch that have none.
    """

    loss: tf.Tensor
    without_positive: tf.Tensor


def supcon(
    views: Sequence[tf.Tensor],
    labels: tf.Tensor,
    *,
    temperature: float,
    l2_normalize: bool = True,
    most_positives: int = 0,
    own_image: bool = True,
    scale_by_temperature: bool = False,
    tile: int | None = None,
) -> SupCon:
    """L_out, the loss that the paper calls SupCon (eq. 2).

    For a view i with the positives P(i), the other views of its class, among all others A(i):

        -1/|P(i)| sum_{p in P(i)} log( exp(z_i.z_p / tau) / sum_{a in A(i)} exp(z_i.z_a / tau) )

    With a class for each image it is NT-Xent. An unlabelled image (label -1) has the other views
    of itself as its only positives.

    Args:
        views: v of (b, d), this replica's projections of the first views, the second, ...
        labels: (b,) int, the classes of the images.
        temperature: tau; divides the similarities, greater than 0.
        l2_normalize: takes cosine similarities.
        most_positives: keeps at most so many positives of each view, the nearest in the order of
            `relations`; the surplus leaves the denominator, too (sec. 11). 0 keeps all.
        own_image: whether other views of the same image are positives. Without, and with one
            positive at most, this is the N-pairs loss (sec. 9; there tau is 1).
        scale_by_temperature: multiplies the loss by tau, as the paper does (sec. 4.5), so that
            the size of its gradient does not depend on tau.
        tile: makes the similarities in tiles of this side, never all at once; None keeps them.

    Returns:
        The loss and the share of views without a positive, which it leaves out.

    Raises:
        ValueError: if `temperature` is not positive or the shapes do not fit.
    """
    batch = _Batch.of(views, labels, temperature, l2_normalize, most_positives, own_image, tile)
    return batch.mean(batch.log_denominators() - batch.mean_of_positives(), scale_by_temperature)


def supcon_in(
    views: Sequence[tf.Tensor],
    labels: tf.Tensor,
    *,
    temperature: float,
    l2_normalize: bool = True,
    most_positives: int = 0,
    own_image: bool = True,
    scale_by_temperature: bool = False,
    tile: int | None = None,
) -> SupCon:
    """L_in (eq. 3), which averages the positives inside the logarithm.

        -log( 1/|P(i)| sum_{p in P(i)} exp(z_i.z_p / tau) / sum_{a in A(i)} exp(z_i.z_a / tau) )

    It is never above `supcon`, and much the worse loss to train by (table 1: 67.4 to 78.7%).
    Arguments and results are those of `supcon`.
    """
    batch = _Batch.of(views, labels, temperature, l2_normalize, most_positives, own_image, tile)
    counts = tf.cast(tf.maximum(batch.counts, 1), batch.z.dtype)
    inside = batch.log_positives() - tf.math.log(counts)
    return batch.mean(batch.log_denominators() - inside, scale_by_temperature)


# Whether a column is something of a row: a method of `relations.Selection`.
_Related = Callable[[relations.Relations, relations.Relations], tf.Tensor]


def _by_marks(related: _Related) -> tiles.Member:
    """Returns the same question, asked of marks."""
    return lambda rows, columns: related(relations.from_marks(rows), relations.from_marks(columns))


class _Batch(NamedTuple):
    """The views of this replica, how they are related, and how to sum over the others.

    Attributes:
        z: (v * b, d) this replica's views.
        unit: whether they have length 1.
        mine: relations of this replica's views.
        everyone: relations of all (v * B,).
        selection: which views are positives.
        counts: (v * b,) int32, positives of each of this replica's views.
        temperature: tau.
        tile: side of the tiles, or None.
    """

    z: tf.Tensor
    unit: bool
    mine: relations.Relations
    everyone: relations.Relations
    selection: relations.Selection
    counts: tf.Tensor
    temperature: float
    tile: int | None

    @classmethod
    def of(
        cls,
        views: Sequence[tf.Tensor],
        labels: tf.Tensor,
        temperature: float,
        l2_normalize: bool,
        most_positives: int,
        own_image: bool,
        tile: int | None,
    ) -> _Batch:
        z = projections.stacked(views, temperature=temperature, l2_normalize=l2_normalize)
        if len(labels.shape) != 1 or labels.shape[0] != views[0].shape[0]:
            raise ValueError(
                f"labels must be ({views[0].shape[0]},), one for each image, got {labels.shape}."
            )
        mine = relations.of_labels(labels, len(views))
        everyone = relations.from_marks(distribute.gather(mine.marks()))
        selection = relations.Selection(len(views), most_positives, own_image)
        counts = selection.counts(mine)
        return cls(z, l2_normalize, mine, everyone, selection, counts, temperature, tile)

    def log_denominators(self) -> tf.Tensor:
        """Returns (v * b,) log of the sum of exp(similarity / tau) to the candidates."""
        if self.tile is None:
            chosen = self.selection.candidates(self.mine, self.everyone)
            return projections.log_sum_exp(self._similarities(), chosen)
        if self.selection.own and not self.selection.most:  # All others are candidates.
            return self._blocked(None)
        return self._blocked(self.selection.candidates)

    def log_positives(self) -> tf.Tensor:
        """Returns (v * b,) log of the sum of exp(similarity / tau) to the positives; 0 of none."""
        if self.tile is None:
            return projections.log_sum_exp(self._similarities(), self._positives())
        return self._blocked(self.selection.positives)

    def mean_of_positives(self) -> tf.Tensor:
        """Returns (v * b,) mean similarity / tau to the positives; 0 where there are none."""
        counts = tf.cast(tf.maximum(self.counts, 1), self.z.dtype)
        if self.tile is None:
            chosen = tf.where(self._positives(), self._similarities(), 0)
            return tf.reduce_sum(chosen, 1) / counts
        sums = blocked.member_sums(
            self.z,
            marks=self.mine.marks(),
            member=_by_marks(self.selection.positives),
            tile=self.tile,
        )
        return tf.reduce_sum(self.z * sums, 1) / (counts * self.temperature)

    def mean(self, losses: tf.Tensor, scale_by_temperature: bool) -> SupCon:
        """Averages (v * b,) losses over the views of the global batch that have a positive."""
        usable = tf.cast(self.counts > 0, losses.dtype)
        everywhere = tf.cast(self.selection.counts(self.everyone) > 0, losses.dtype)
        total = tf.maximum(tf.reduce_sum(everywhere), 1)
        loss = tf.reduce_sum(losses * usable) * distribute.num_replicas() / total
        if scale_by_temperature:
            loss *= self.temperature
        return SupCon(loss, tf.cast(1 - tf.reduce_mean(everywhere), tf.float32))

    def _similarities(self) -> tf.Tensor:
        everyone = distribute.gather(self.z)
        return tf.matmul(self.z / self.temperature, everyone, transpose_b=True)  # (v * b, v * B)

    def _positives(self) -> tf.Tensor:
        return self.selection.positives(self.mine, self.everyone)

    def _blocked(self, member: _Related | None) -> tf.Tensor:
        return blocked.log_sum_exp(
            self.z,
            temperature=self.temperature,
            unit=self.unit,
            marks=None if member is None else self.mine.marks(),
            member=None if member is None else _by_marks(member),
            tile=self.tile or blocked.TILE,
        )
