"""Selects the positives of each view of a global batch, by the classes of their images.

The positives of a view are ordered, so that "at most k of them" is well defined: first the other
views of its own image, then those of the next image of its class in the batch, and so on, wrapping
around at the end of the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from simclr_tf import distribute


class Relations(NamedTuple):
    """Position of views within their classes; all (n,) int32, one entry per view.

    Attributes:
        classes: numbers that are equal for images of one class; an unlabelled image is a
            class of its own.
        ranks: index of the image among the images of its class in the global batch, from 0.
        sizes: number of images in its class.
        view_indices: index of the view among the views of its image, from 0.
    """

    classes: tf.Tensor
    ranks: tf.Tensor
    sizes: tf.Tensor
    view_indices: tf.Tensor

    def row_attributes(self) -> tf.Tensor:
        """Returns (n, 4), all fields in one tensor."""
        return tf.stack(self, 1)


def from_row_attributes(row_attributes: tf.Tensor) -> Relations:
    """Returns the relations whose `row_attributes` (n, 4) these are."""
    return Relations(*tf.unstack(row_attributes, axis=1))


def from_labels(labels: tf.Tensor, num_views: int) -> Relations:
    """Computes the relations of this replica's views within the global batch.

    Args:
        labels: (b,) int, this replica's; negative where unlabelled.
        num_views: v, views per image.

    Returns:
        The relations of (v * b,) views: all first views, then all second ones, and so on.
    """
    labels = tf.cast(labels, tf.int32)
    classes = distribute.gather(labels)  # (B,)
    images = tf.range(classes.shape[0])
    classes = tf.where(classes < 0, -1 - images, classes)
    order = tf.argsort(classes, stable=True)  # (B,)
    sorted_classes = tf.gather(classes, order)
    start = tf.searchsorted(sorted_classes, classes)  # Where the class begins in that order.
    end = tf.searchsorted(sorted_classes, classes, side="right")
    ranks = tf.argsort(order) - start
    local_rows = distribute.replica_index() * labels.shape[0] + tf.range(labels.shape[0])  # (b,)

    def per_view(x: tf.Tensor) -> tf.Tensor:
        return tf.tile(tf.gather(x, local_rows), [num_views])  # (v * b,)

    view_indices = tf.repeat(tf.range(num_views), labels.shape[0])
    return Relations(per_view(classes), per_view(ranks), per_view(end - start), view_indices)


class Selection(NamedTuple):
    """Selects the positives of a view among the views of its class.

    Attributes:
        num_views: v, views per image.
        max_positives: largest number of positives to keep, the first in their order; 0 keeps all.
        own_image: whether other views of the same image are positives.
    """

    num_views: int
    max_positives: int = 0
    own_image: bool = True

    def counts(self, relations: Relations) -> tf.Tensor:
        """Returns (n,) int32, the number of positives of each view."""
        others = self.num_views * relations.sizes - (1 if self.own_image else self.num_views)
        return tf.minimum(others, self.max_positives) if self.max_positives else others

    def positives(self, rows: Relations, columns: Relations) -> tf.Tensor:
        """Returns (n, m) bool: whether a column is a positive of a row."""
        if self.own_image and not self.max_positives:
            return same_class(rows, columns) & ~_same_view(rows, columns)
        image = (columns.ranks - rows.ranks[:, tf.newaxis]) % rows.sizes[:, tf.newaxis]
        view = (columns.view_indices - rows.view_indices[:, tf.newaxis]) % self.num_views
        # Index of the column in the order of the row's positives, below 0 if it is not one.
        order = (image - 1) * self.num_views + view
        if self.own_image:
            order = tf.where(image == 0, view - 1, order + self.num_views - 1)
        positive = order >= 0
        if self.max_positives:
            positive &= order < self.max_positives
        return positive & same_class(rows, columns)

    def candidates(self, rows: Relations, columns: Relations) -> tf.Tensor:
        """Returns (n, m) bool: whether the denominator of a row includes a column.

        It includes the row's positives and all views of other classes. It excludes the views of
        the row's class that are not among its positives (Khosla et al. 2020, sec. 11).
        """
        return self.positives(rows, columns) | negatives(rows, columns)


def negatives(rows: Relations, columns: Relations) -> tf.Tensor:
    """Returns (n, m) bool: whether a column is of another class than a row."""
    return ~same_class(rows, columns)


def _same_view(rows: Relations, columns: Relations) -> tf.Tensor:
    """Returns (n, m) bool: whether row and column, of one class, are the same view."""
    same_image = rows.ranks[:, tf.newaxis] == columns.ranks
    return same_image & (rows.view_indices[:, tf.newaxis] == columns.view_indices)


def same_class(rows: Relations, columns: Relations) -> tf.Tensor:
    """Returns (n, m) bool: whether a column is of the same class as a row."""
    return rows.classes[:, tf.newaxis] == columns.classes
