"""Data sets other than that of the run: opened by name, with the split of them to evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import os
import re

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import errors, paths, storage, text
from simclr_tf.data import (
    decode,
    evaluation_images,
    folder,
    label_origin,
    record_files,
    sources,
    split_names,
)
from simclr_tf.data import labels as labels_lib
from simclr_tf.evaluation import features, forward
from simclr_tf.runs import dataset
from simclr_tf.scoring import network

_TEST = "test"
_IMAGES_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class OtherSet:
    """A data set to evaluate on.

    Attributes:
        name: as the user wrote it.
        short: a short name for tables, which no other data set has.
        source: the opened data set.
        split: its split of that name, or all of its splits if it has none.
    """

    name: str
    short: str
    source: sources.Source
    split: str


def open_sets(
    config: config_lib.Config, flag: str, names: Sequence[str], *, labels: str
) -> list[OtherSet]:
    """Opens data sets.

    Args:
        config: the settings.
        flag: name of the setting that names them, for messages.
        names: names of tensorflow-datasets, or paths of folders.
        labels: where the labels of folders are from, see `sources.open_source`.

    Raises:
        UserError: if one cannot be opened.
    """
    shorts = _short_names(names)
    found = []
    for name, short in zip(names, shorts, strict=True):
        source = open_set(config, flag, name, labels=labels)
        found.append(OtherSet(name, short, source, _split_of(source)))
    return found


def open_set(
    config: config_lib.Config, flag: str, name: str, *, labels: str = label_origin.FOLDERS
) -> sources.Source:
    """Opens one data set, see `open_sets`."""
    try:
        if storage.is_folder_name(name):
            return sources.open_source(
                sources.IMAGE_FOLDER,
                data_dir=paths.absolute(name),
                seed=config.seed,
                labels=labels,
                **dataset.channel_settings(config),
            )
        return sources.open_source(name, data_dir=_data_dir(config), seed=config.seed)
    except errors.ArgumentError as error:  # In the words of the flag that names it here.
        raise errors.UserError(f"--{flag} names {name}, which {error.problem}") from error


def extract(
    context: network.Context, other: OtherSet, *, labelled_only: bool
) -> features.Extracted:
    """Runs the network over a data set.

    Raises:
        UserError: if an image cannot be read.
    """
    run = context.run
    with explained(other.name):
        return features.extract(
            forward.Forward(context.model, run.strategy),
            other.source,
            other.split,
            batch_size=run.config.eval_batch_size,
            labelled_only=labelled_only,
            progress=f"{other.short}: images",
        )


def class_numbers(flag: str, other: OtherSet, names: tuple[str, ...]) -> np.ndarray:
    """Returns the class of the run for each class of a data set, (k,), by their names.

    Args:
        flag: name of the setting that names the data set, for messages.
        other: the data set.
        names: names of the classes of the run.

    Raises:
        UserError: if it has no labels, or classes that are not among the names.
    """
    found = other.source.class_names
    if found is None or not labels_lib.is_labelled(other.source, other.split):
        raise errors.UserError(
            f"--{flag} names {other.name}, which has no labels; name data sets with labels, such "
            "as folders with one folder of images per class."
        )
    unknown = [name for name in found if name not in names]
    if unknown:
        raise errors.UserError(
            f"--{flag} names {other.name}, and {len(unknown):,} of its {len(found):,} classes "
            f"({text.shortened(unknown)}) are not among the {len(names):,} of the training images "
            f"({text.shortened(names)}); rename them, or leave it out."
        )
    return np.array([names.index(name) for name in found])


def read(
    source: sources.Source, split: str, image_size: int, *, wanted: np.ndarray | None, limit: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads labelled images as the network sees them, rounded to 8 bits.

    Args:
        source: the data set.
        split: its split.
        image_size: side of the images, s.
        wanted: positions of the images in the split; None reads the first ones.
        limit: the most images to read.

    Yields:
        (b, s, s, 3) uint8, and their labels (b,), in stored order.
    """
    batches = evaluation_images.batches(
        source,
        split,
        batch_size=min(limit, _IMAGES_AT_ONCE),
        image_size=image_size,
        labelled_only=True,
    )
    left = limit
    for batch in batches:
        chosen = batch["mask"].numpy()
        if wanted is not None:
            chosen &= np.isin(batch["position"].numpy(), wanted)
        rows = np.flatnonzero(chosen)[:left]
        left -= len(rows)
        if len(rows):
            images = np.round(255 * batch["image"].numpy()[rows]).astype(np.uint8)
            yield images, batch["label"].numpy()[rows]
        if not left:
            return


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Names the data set whose images cannot be read.

    Raises:
        UserError: in place of an error of TensorFlow that comes from an image.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if folder.is_read_error(error) or decode.is_decode_error(error):
            raise errors.UserError(
                f"An image of {name} cannot be read ({text.reason(error)}); repair or remove it."
            ) from error
        raise


def _data_dir(config: config_lib.Config) -> str | None:
    """Returns the directory of prepared data sets: that of the run, if its own is one of them."""
    own = config.dataset
    if label_origin.is_folder(own) or own.startswith(record_files.PREFIX):
        return None
    return config.data_dir


def _split_of(source: sources.Source) -> str:
    """Returns the test split of a data set; all of its splits if it has none."""
    for split in split_names.for_evaluation(source.splits):
        if split_names.usual(split) == _TEST:
            return split
    return "+".join(source.splits)


def _short_names(names: Sequence[str]) -> list[str]:
    """Returns a short name for each name: the last part of a path, or all if it is not unique."""
    short = [
        _word(os.path.basename(name.rstrip("/")) if storage.is_folder_name(name) else name)
        for name in names
    ]
    return [
        _word(name) if short.count(brief) > 1 else brief
        for name, brief in zip(names, short, strict=True)
    ]


def _word(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("_.") or "_"
