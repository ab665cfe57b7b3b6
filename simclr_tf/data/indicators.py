"""Labels of images that may have several: a number for each class.

It is `PRESENT` if the image shows the class, `ABSENT` if not, and `NEITHER` if the image counts
neither as an example of the class nor as a counterexample. So (n,) labels of one class per image
become (n, c) ones, and -1 means in both that there is no label.

PASCAL VOC marks objects that are hard to recognise as difficult. Its development kit labels an
image 1 for a class that it shows, -1 for one that it does not, and 0 for one of which it has
difficult objects only. Its scores, and its example of a classifier, ignore images with 0, and so
does this.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

PRESENT, ABSENT, NEITHER = 1, 0, -1


class Keys(NamedTuple):
    """The keys of labels in an example of tensorflow-datasets.

    Attributes:
        labels: key of the list of classes, or of the list of objects.
        clear: key of the list without classes of which all objects are difficult; None if the data
            set does not mark difficult objects.
        of_object: key of the class of each object; None if the list is of classes.
    """

    labels: str
    clear: str | None = None
    of_object: str | None = None


def of_lists(labels: tf.Tensor, clear: tf.Tensor | None, num_classes: int) -> tf.Tensor:
    """Returns the labels (c,) int64 of an image.

    Args:
        labels: (k,) the classes that it shows, each once or more.
        clear: (j,) those of them that are not difficult; None if all are clear.
        num_classes: c.
    """
    present = _mask(labels, num_classes)
    shown = present if clear is None else _mask(clear, num_classes)
    absent = tf.cast(tf.where(present, NEITHER, ABSENT), tf.int64)
    return tf.where(shown, tf.constant(PRESENT, tf.int64), absent)


def rarest(labels: np.ndarray) -> np.ndarray:
    """Returns the rarest class (n,) of each image, to stratify by; -1 of one that shows none.

    Args:
        labels: (n, c).
    """
    counts = np.sum(labels == PRESENT, 0)
    rarest_of = np.argmin(np.where(labels == PRESENT, counts, len(labels) + 1), 1)
    return np.where(np.any(labels == PRESENT, 1), rarest_of, -1)


def are_known(labels: np.ndarray) -> np.ndarray:
    """Returns (n,) bool, which images have labels.

    Args:
        labels: (n,) classes, -1 where there is none; or (n, c) of several.
    """
    return labels >= 0 if labels.ndim == 1 else np.any(labels >= 0, 1)


def _mask(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Returns (c,) bool, which classes are among the labels (k,)."""
    each = tf.one_hot(labels, num_classes, on_value=True, off_value=False, dtype=tf.bool)
    return tf.reduce_any(each, 0)
