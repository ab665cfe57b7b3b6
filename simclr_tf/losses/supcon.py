"""Supervised contrastive losses (Khosla et al. 2020, sec. 3.2) over the global batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.losses import blocked, projections, relations, tiles


class SupCon(NamedTuple):
    """A supervised contrastive loss and how many views it leaves out.

    Attributes:
        loss: () this replica's loss; its mean over replicas is the mean over all views that have
            a positive, 0 if none has.
        without_positive: () float32 fraction of the views of the global batch that have none.
    """

    loss: tf.Tensor
    without_positive: tf.Tensor


def supcon(
    views: Sequence[tf.Tensor],
    labels: tf.Tensor,
    *,
    temperature: float,
    l2_normalize: bool = True,
    max_positives: int = 0,
    own_image: bool = True,
    decoupled: bool = False,
    scale_by_temperature: bool = False,
    average_classes: bool = False,
    tile: int | None = None,
) -> SupCon:
    """Computes L_out, the loss that the paper calls SupCon (eq. 2).

    For a view i, with the other views of its class as positives P(i), and all other views A(i):

        -1/|P(i)| sum_{p in P(i)} log( exp(z_i.z_p / tau) / sum_{a in A(i)} exp(z_i.z_a / tau) )

    If every image is a class of its own, it is NT-Xent. The only positives of an unlabelled image
    (label -1) are the other views of the same image.

    Args:
        views: v of (b, d), this replica's projections of the first views, the second, ...
        labels: (b,) int, the classes of the images.
        temperature: tau, the divisor of the similarities; greater than 0.
        l2_normalize: whether to take cosine similarities.
        max_positives: largest number of positives of each view to keep, the first in the order of
            `relations`; the denominator excludes the rest too (sec. 11). 0 keeps all.
        own_image: whether other views of the same image are positives. If not, and with
            `max_positives=1`, this is the N-pairs loss (sec. 9; there tau is 1).
        decoupled: whether the denominator is of the views of other classes only, as Yeh et al.
            (2022) do for NT-Xent. It is left out where there are none.
        scale_by_temperature: whether to multiply the loss by tau, as the paper does (sec. 4.5), so
            that the size of its gradient does not depend on tau.
        average_classes: whether the denominator has the mean over the views of each class in place
            of their sum, so that a frequent class does not dominate it: the class averaging of
            Zhu et al. (CVPR 2022, "Balanced Contrastive Learning"), without its class complements.
            The view itself is not counted in its class, as in their code. All positives must be
            kept, and all similarities computed at once.
        tile: largest number of views in a tile, to compute the similarities tile by tile; None
            computes and keeps all of them.

    Returns:
        The loss and the fraction of views without a positive, which it leaves out.

    Raises:
        ValueError: if `temperature` is not positive or the shapes do not fit.
    """
    batch = _Batch.from_views(
        views, labels, temperature, l2_normalize, max_positives, own_image, decoupled, tile
    )._replace(average_classes=average_classes)
    return batch.mean(batch.log_denominators() - batch.mean_of_positives(), scale_by_temperature)


def supcon_in(
    views: Sequence[tf.Tensor],
    labels: tf.Tensor,
    *,
    temperature: float,
    l2_normalize: bool = True,
    max_positives: int = 0,
    own_image: bool = True,
    decoupled: bool = False,
    scale_by_temperature: bool = False,
    average_classes: bool = False,
    tile: int | None = None,
) -> SupCon:
    """Computes L_in (eq. 3), which averages the positives inside the logarithm.

        -log( 1/|P(i)| sum_{p in P(i)} exp(z_i.z_p / tau) / sum_{a in A(i)} exp(z_i.z_a / tau) )

    It is never above `supcon`, and networks trained by it are less accurate (table 1: 67.4%
    against 78.7%). Arguments, results and errors are those of `supcon`.
    """
    batch = _Batch.from_views(
        views, labels, temperature, l2_normalize, max_positives, own_image, decoupled, tile
    )._replace(average_classes=average_classes)
    counts = tf.cast(tf.maximum(batch.counts, 1), batch.z.dtype)
    inside = batch.log_positives() - tf.math.log(counts)
    return batch.mean(batch.log_denominators() - inside, scale_by_temperature)


# Relations of rows (n,) and of columns (m,) -> (n, m) bool, such as `relations.negatives`.
_RelationFn = Callable[[relations.Relations, relations.Relations], tf.Tensor]


def _mask_fn(relation_fn: _RelationFn) -> tiles.MaskFn:
    """Returns the same function of row attributes."""

    def mask_fn(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
        return relation_fn(
            relations.from_row_attributes(rows), relations.from_row_attributes(columns)
        )

    return mask_fn


class _Batch(NamedTuple):
    """The views of this replica, their relations to all views, and the sums over these.

    Attributes:
        z: (v * b, d) this replica's views.
        unit: whether they have length 1.
        local_relations: relations of this replica's (v * b,) views.
        global_relations: relations of the (v * B,) views of the global batch.
        selection: which views are positives.
        counts: (v * b,) int32, the number of positives of each of this replica's views.
        temperature: tau.
        decoupled: whether positives are left out of the denominators.
        tile: largest number of views in a tile; None computes all similarities at once.
        average_classes: whether the denominators have the mean over the views of each class.
    """

    z: tf.Tensor
    unit: bool
    local_relations: relations.Relations
    global_relations: relations.Relations
    selection: relations.Selection
    counts: tf.Tensor
    temperature: float
    decoupled: bool
    tile: int | None
    average_classes: bool = False

    @classmethod
    def from_views(
        cls,
        views: Sequence[tf.Tensor],
        labels: tf.Tensor,
        temperature: float,
        l2_normalize: bool,
        max_positives: int,
        own_image: bool,
        decoupled: bool,
        tile: int | None,
    ) -> _Batch:
        projections.check_temperature(temperature)
        z = projections.stacked(views, l2_normalize=l2_normalize)
        if len(labels.shape) != 1 or labels.shape[0] != views[0].shape[0]:
            raise ValueError(
                f"labels must be ({views[0].shape[0]},), one for each image, got {labels.shape}."
            )
        local_relations = relations.from_labels(labels, len(views))
        row_attributes = distribute.gather(local_relations.row_attributes())
        global_relations = relations.from_row_attributes(row_attributes)
        selection = relations.Selection(len(views), max_positives, own_image)
        counts = selection.counts(local_relations)
        return cls(
            z,
            l2_normalize,
            local_relations,
            global_relations,
            selection,
            counts,
            temperature,
            decoupled,
            tile,
        )

    def log_denominators(self) -> tf.Tensor:
        """Returns (v * b,) log of the sum of exp(similarity / tau) to the candidates."""
        relation_fn = relations.negatives if self.decoupled else self.selection.candidates
        if self.average_classes and (self.tile is not None or self.selection.max_positives):
            raise ValueError("average_classes needs all positives, and no tiles.")
        if self.tile is None:
            candidates = relation_fn(self.local_relations, self.global_relations)
            similarities = self._similarities()
            if self.average_classes:
                similarities -= tf.math.log(self._class_counts())
            return projections.log_sum_exp(similarities, candidates)
        includes_all = self.selection.own_image and not self.selection.max_positives
        return self._blocked(None if includes_all and not self.decoupled else relation_fn)

    def _class_counts(self) -> tf.Tensor:
        """Returns (v * b, v * B), with how many views of a column's class a row is compared."""
        views = self.selection.num_views * self.global_relations.sizes  # (v * B,)
        same = relations.same_class(self.local_relations, self.global_relations)
        left_out = 1 if self.selection.own_image else self.selection.num_views
        counts = views - tf.where(same, left_out, 0)
        return tf.cast(tf.maximum(counts, 1), self.z.dtype)

    def log_positives(self) -> tf.Tensor:
        """Returns (v * b,) log of the sum of exp(similarity / tau) to the positives, or 0."""
        if self.tile is None:
            return projections.log_sum_exp(self._similarities(), self._positives())
        return self._blocked(self.selection.positives)

    def mean_of_positives(self) -> tf.Tensor:
        """Returns (v * b,) mean similarity / tau to the positives; 0 where there are none."""
        counts = tf.cast(tf.maximum(self.counts, 1), self.z.dtype)
        if self.tile is None:
            positives = tf.where(self._positives(), self._similarities(), 0)
            return tf.reduce_sum(positives, 1) / counts
        sums = blocked.masked_sums(
            self.z,
            row_attributes=self.local_relations.row_attributes(),
            mask_fn=_mask_fn(self.selection.positives),
            tile=self.tile,
        )
        return tf.reduce_sum(self.z * sums, 1) / (counts * self.temperature)

    def mean(self, losses: tf.Tensor, scale_by_temperature: bool) -> SupCon:
        """Averages (v * b,) losses over the views of the global batch that have a positive."""
        usable = tf.cast(self.counts > 0, losses.dtype)
        globally_usable = tf.cast(self.selection.counts(self.global_relations) > 0, losses.dtype)
        total = tf.maximum(tf.reduce_sum(globally_usable), 1)
        loss = tf.reduce_sum(losses * usable) * distribute.num_replicas() / total
        if scale_by_temperature:
            loss *= self.temperature
        return SupCon(loss, tf.cast(1 - tf.reduce_mean(globally_usable), tf.float32))

    def _similarities(self) -> tf.Tensor:
        global_z = distribute.gather(self.z)
        return tf.matmul(self.z / self.temperature, global_z, transpose_b=True)  # (v * b, v * B)

    def _positives(self) -> tf.Tensor:
        return self.selection.positives(self.local_relations, self.global_relations)

    def _blocked(self, relation_fn: _RelationFn | None) -> tf.Tensor:
        return blocked.log_sum_exp(
            self.z,
            temperature=self.temperature,
            unit=self.unit,
            row_attributes=None if relation_fn is None else self.local_relations.row_attributes(),
            mask_fn=None if relation_fn is None else _mask_fn(relation_fn),
            tile=self.tile or blocked.TILE,
        )
