"""The labels of a split: whether it has any, and which classes have no images in it."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from simclr_tf.data import inspection, layout, sources


def is_labelled(source: sources.Source, split: str) -> bool:
    """Returns whether a split has labels; one of a labelled data set may have none, as in STL-10.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.

    Raises:
        errors.UserError: if there is no such split, or its first record cannot be read.
    """
    if source.class_names is None:
        return False
    access = dataclasses.replace(source, excluded={}).random_access(split)
    if access is not None and access.labels is not None:
        return bool(access.labels[0] >= 0)
    try:
        if access is not None:
            return int(access.read(tf.constant(0))["label"]) >= 0
        return all(int(example["label"]) >= 0 for example in source.examples(split).take(1))
    except tf.errors.OpError as error:
        raise inspection.unreadable_record(source, split, 0, error) from error


def missing_classes(source: sources.Source, split: str, *, what: str = "images") -> str | None:
    """Returns a sentence that names the classes of which a split has no images.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.
        what: see `layout.missing_classes`.

    Returns:
        The sentence; None if there is no such class, if the split is unlabelled, or if its labels
        cannot be known without reading its images.
    """
    access = source.random_access(split)
    if access is None or access.labels is None or source.class_names is None:
        return None
    present = {source.class_names[label] for label in np.unique(access.labels) if label >= 0}
    if not present:
        return None
    return layout.missing_classes(split, present, source.class_names, what=what)
