"""Excludes unreadable images from a run: found once, reported, and stored with the run."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, storage, text
from simclr_tf.data import inspection, labels, sources
from simclr_tf.runs import few_labels

LIST = "bad_images.json"


def exclude(
    config: config_lib.Config,
    source: sources.Source,
    splits: Sequence[str],
    *,
    with_pillow: bool = True,
) -> sources.Source:
    """Excludes the unreadable images of some splits, after reading every image, and reports them.

    The list is stored in the run directory, so that a resumed run excludes the same images without
    reading all of them again. It is replaced when the data or the splits differ.

    Args:
        config: the settings, with the data and the run directory, which exists.
        source: the data set.
        splits: the splits that the run uses.
        with_pillow: as for `decode.decode_image`.

    Returns:
        The data set without those images.

    Raises:
        UserError: if there are more than allowed.
    """
    counts = {split: source.num_examples(split) for split in splits}
    data = {"dataset": config.dataset, "data_dir": config.data_dir}
    if config.labels != config_lib.Config.labels:  # Older lists do not have it.
        data["labels"] = config.labels
    if not with_pillow:
        data["decoded_by"] = "TensorFlow alone"
    # Images whose labels are not drawn may not be read.
    data |= few_labels.described(config)
    path = os.path.join(config.model_dir or "", LIST)
    stored = _read(path) if tf.io.gfile.exists(path) else {}
    known = stored["splits"] if stored.get("data") == data else {}
    for split, count in counts.items():
        if known.get(split, {}).get("images") != count:
            known[split] = {"images": count, "left_out": _find(source, split, count, with_pillow)}
    found = {split: known[split]["left_out"] for split in counts}
    bad = [f"{name} {why}" for images in found.values() for name, why in images.items()]
    some = text.shortened(bad, separator="; ")
    if len(bad) > config.max_bad_images:
        raise errors.UserError(
            f"{len(bad)} images are unreadable, more than --max_bad_images="
            f"{config.max_bad_images} ({some}); repair them, or allow more."
        )
    storage.write_json(path, {"data": data, "splits": known})
    if not bad:
        return source
    console.warn(f"Excluded {len(bad)} unreadable images: {some}.")
    already = source.excluded
    excluded = {split: (*already.get(split, ()), *images) for split, images in found.items()}
    rest = dataclasses.replace(source, excluded=excluded)
    _warn_of_lost_classes(source, rest)
    return rest


def _warn_of_lost_classes(source: sources.Source, rest: sources.Source) -> None:
    """Warns of classes of which every image of a split is excluded."""
    for split in rest.excluded:
        if labels.missing_classes(source, split) != labels.missing_classes(rest, split):
            console.warn(str(labels.missing_classes(rest, split, what="readable images")))


def _read(path: str) -> dict[str, Any]:
    """Reads the stored list.

    Raises:
        UserError: if it is not such a list.
    """
    stored = storage.read_json(path)
    try:
        names_and_reasons = [
            entry
            for split in stored["splits"].values()
            for entry in (*split["left_out"], *split["left_out"].values())
        ]
        valid = all(isinstance(entry, str) for entry in (*stored["data"], *names_and_reasons))
    except (AttributeError, KeyError, TypeError):
        valid = False
    if not valid:
        raise errors.UserError(
            f"{path} is damaged (it does not list unreadable images); restore it, or remove it so "
            "that all images are checked again."
        )
    return stored


def _find(source: sources.Source, split: str, count: int, with_pillow: bool) -> dict[str, str]:
    """Returns the name of each unreadable image of a split, and the reason."""
    found: dict[str, str] = {}
    with console.Progress(f"Checking images of {split}", count) as progress:
        for number, finding in enumerate(
            inspection.inspect(source, split, with_pillow=with_pillow), 1
        ):
            if finding.unreadable:
                found[finding.name] = finding.unreadable
            progress.update(number, f"{len(found)} unreadable")
    return found
