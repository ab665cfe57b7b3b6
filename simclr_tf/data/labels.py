"""The labels of a split: which images have one, and which classes have no images in it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np
import tensorflow as tf

from simclr_tf.data import folder, indicators, inspection, layout, readers, sources


def known(source: sources.Source, split: str) -> np.ndarray | None:
    """Returns the labels of the images of a split, in stored order.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.

    Returns:
        The labels (n,), -1 where there is none, or (n, c) of several, without those of excluded
        images; None if they cannot be known without reading the images.
    """
    access = source.random_access(split)
    if access is None or access.labels is None:
        return None
    return access.labels[~access.excluded]


def is_labelled(source: sources.Source, split: str) -> bool:
    """Returns whether a split has labels; one of a labelled data set may have none, as in STL-10.

    A sum of splits, such as train+unlabeled, has labels if one of them has some.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.

    Raises:
        errors.UserError: if there is no such split, or its first record cannot be read.
    """
    if source.class_names is None:
        return False
    labels = known(dataclasses.replace(source, excluded={}), split)
    if labels is not None:
        shown = labels == indicators.PRESENT if source.several_labels else labels >= 0
        return bool(np.any(shown))
    return any(_first_is_labelled(source, term) for term in _terms(split))


def _terms(split: str) -> list[str]:
    return [term.strip() for term in split.split("+")]


def _first_is_labelled(source: sources.Source, split: str) -> bool:
    """Returns whether a split has labels, by its first example if they are not known otherwise.

    Of images that may have several labels, one may have none, so all are read until one has some.
    """
    if source.several_labels:
        return _any_has_class(source, split)
    if source.labelled_splits is not None:
        name = split.split("[")[0].strip()
        return name in source.labelled_splits or (name == "all" and bool(source.labelled_splits))
    access = dataclasses.replace(source, excluded={}).random_access(split)
    try:
        if access is not None:
            return int(access.read(tf.constant(0))["label"]) >= 0
        excluded = tuple(source.excluded.get(split, ()))
        return _first_has_label(source.reader, tuple(source.slices(split)), excluded)
    except tf.errors.OpError as error:
        raise inspection.unreadable_record(source, split, 0, error) from error


@functools.lru_cache(maxsize=16)  # A stream takes a tenth of a second to open.
def _first_has_label(
    reader: readers.Reader, slices: tuple[folder.Slice, ...], excluded: tuple[str, ...]
) -> bool:
    read = tf.autograph.experimental.do_not_convert(reader.examples)
    examples = read(slices, excluded=excluded).take(1)
    return all(int(example["label"]) >= 0 for example in examples)


def _any_has_class(source: sources.Source, split: str) -> bool:
    count = 0
    try:
        for example in source.examples(split).as_numpy_iterator():
            if np.any(example["label"] != indicators.ABSENT):
                return True
            count += 1
    except tf.errors.OpError as error:
        raise inspection.unreadable_record(source, split, count, error) from error
    return False


def why_partly_unlabelled(source: sources.Source, split: str) -> str | None:
    """Returns the beginning of a sentence that says which images of a split have no label.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.

    Returns:
        The beginning; None if all images have one or none has, and if a stream does not show it in
        the first record of each term of the split.
    """
    if not is_labelled(source, split):
        return None
    labels = known(source, split)
    if labels is not None:
        unlabelled = int(np.sum(~indicators.are_known(labels)))
        if not unlabelled:
            return None
        return (
            f"{unlabelled:,} of the {len(labels):,} images of the split {split!r} of "
            f"{source.name!r} have no labels"
        )
    without = [term for term in _terms(split) if not _first_is_labelled(source, term)]
    return f"The split {without[0]!r} of {source.name!r} has no labels" if without else None


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
    if source.several_labels:
        numbers = np.flatnonzero(np.any(access.labels == indicators.PRESENT, 0))
    else:
        numbers = np.unique(access.labels[access.labels >= 0])
    present = {source.class_names[label] for label in numbers}
    if not present:
        return None
    return layout.missing_classes(split, present, source.class_names, what=what)


def have_one_image_each(source: sources.Source, split: str) -> bool:
    """Returns whether each class of a split is known to have only one image."""
    access = source.random_access(split)
    if access is None or access.labels is None or source.several_labels:
        return False
    return len(np.unique(access.labels)) == len(access.labels)


def fingerprint(source: sources.Source, split: str) -> str | None:
    """Returns a hash of the names and classes of the images of a split, wherever they are.

    Args:
        source: the opened data set.
        split: split of the data set, in tensorflow-datasets syntax.

    Returns:
        The hash; None if the labels cannot be known without reading the images.
    """
    access = source.random_access(split)
    if access is None or access.labels is None:
        return None
    names = map(access.name, range(len(access.labels)))
    classes = (*(source.class_names or ()), "")  # Label -1 is the last one, without a name.
    if source.several_labels:
        known_as = ["\0".join((*classes, *map(str, values))) for values in access.labels]
    else:
        known_as = [classes[label] for label in access.labels]
    lines = (f"{name}\0{label}\n" for name, label in zip(names, known_as, strict=True))
    return hashlib.blake2b("".join(lines).encode(), digest_size=8).hexdigest()
