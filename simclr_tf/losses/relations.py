"""Who is whose positive: views of a global batch, by the classes of their images.

The positives of a view have an order, so that "at most k of them" means something: the other views
of its own image first, then those of the next image of its class, the one after that, and so on in
a circle through the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from simclr_tf import distribute


class Relations(NamedTuple):
    """Where views stand within their classes; all (n,) int32, one entry a view.

    Attributes:
        classes: equal for images of one class; an unlabelled image is a class of its own.
        places: of the image among the images of its class in the global batch, from 0.
        sizes: images in its class.
        sides: which view of its image this is, from 0.
    """

    classes: tf.Tensor
    places: tf.Tensor
    sizes: tf.Tensor
    sides: tf.Tensor

    def marks(self) -> tf.Tensor:
        """Returns (n, 4), the same in one tensor."""
        return tf.stack(self, 1)


def from_marks(marks: tf.Tensor) -> Relations:
    """Returns the relations that `marks` (n, 4) holds."""
    return Relations(*tf.unstack(marks, axis=1))


def of_labels(labels: tf.Tensor, num_views: int) -> Relations:
    """Finds the relations of this replica's views within the global batch.

    Args:
        labels: (b,) int, this replica's; negative where unlabelled.
        num_views: v, views per image.

    Returns:
        Of (v * b,) views: all first views, then all second ones, and so on.
    """
    labels = tf.cast(labels, tf.int32)
    everyone = distribute.gather(labels)  # (B,)
    images = tf.range(everyone.shape[0])
    everyone = tf.where(everyone < 0, -1 - images, everyone)
    order = tf.argsort(everyone, stable=True)  # (B,)
    of_class = tf.gather(everyone, order)
    start = tf.searchsorted(of_class, everyone)  # of the class, in that order
    end = tf.searchsorted(of_class, everyone, side="right")
    places = tf.argsort(order) - start
    mine = distribute.replica_index() * labels.shape[0] + tf.range(labels.shape[0])  # (b,)

    def of_views(x: tf.Tensor) -> tf.Tensor:
        return tf.tile(tf.gather(x, mine), [num_views])  # (v * b,)

    sides = tf.repeat(tf.range(num_views), labels.shape[0])
    return Relations(of_views(everyone), of_views(places), of_views(end - start), sides)


class Selection(NamedTuple):
    """Which of the views of its class are positives of a view.

    Attributes:
        num_views: v, views per image.
        most: at most so many, the first in their order; 0 for all of them.
        own: whether other views of the same image are among them.
    """

    num_views: int
    most: int = 0
    own: bool = True

    def counts(self, relations: Relations) -> tf.Tensor:
        """Returns (n,) int32, the number of positives of each view."""
        others = self.num_views * relations.sizes - (1 if self.own else self.num_views)
        return tf.minimum(others, self.most) if self.most else others

    def positives(self, rows: Relations, columns: Relations) -> tf.Tensor:
        """Returns (n, m) bool: whether a column is a positive of a row."""
        if self.own and not self.most:
            return _same_class(rows, columns) & ~_same_view(rows, columns)
        ahead = (columns.places - rows.places[:, tf.newaxis]) % rows.sizes[:, tf.newaxis]
        around = (columns.sides - rows.sides[:, tf.newaxis]) % self.num_views
        turn = (ahead - 1) * self.num_views + around  # Below 0 for views of the same image.
        if self.own:
            turn = tf.where(ahead == 0, around - 1, turn + self.num_views - 1)
        chosen = turn >= 0
        if self.most:
            chosen &= turn < self.most
        return chosen & _same_class(rows, columns)

    def candidates(self, rows: Relations, columns: Relations) -> tf.Tensor:
        """Returns (n, m) bool: whether a row is compared with a column at all.

        That is with its positives and with other classes; views of its class that are not among
        its positives are left out of the denominator too (Khosla et al. 2020, sec. 11).
        """
        return self.positives(rows, columns) | ~_same_class(rows, columns)


def _same_view(rows: Relations, columns: Relations) -> tf.Tensor:
    """Returns (n, m) bool: whether row and column, of one class, are one view."""
    same_place = rows.places[:, tf.newaxis] == columns.places
    return same_place & (rows.sides[:, tf.newaxis] == columns.sides)


def _same_class(rows: Relations, columns: Relations) -> tf.Tensor:
    return rows.classes[:, tf.newaxis] == columns.classes
