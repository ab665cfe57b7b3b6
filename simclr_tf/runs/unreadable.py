"""Training without the images that cannot be used: found once, told, and remembered."""

from __future__ import annotations

import dataclasses
import os

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, storage, text
from simclr_tf.data import inspection, sources

LIST = "bad_images.json"


def without_damaged(
    config: config_lib.Config, source: sources.Source, model_dir: str
) -> sources.Source:
    """Leaves out the images that cannot be used, after reading all of them, and says which.

    The list lies in the run directory, so that a resumed run leaves out the same images and need
    not look again. It is made anew when data or splits differ.

    Args:
        config: allows `max_bad_images` of them in the splits that it uses.
        source: the data set.
        model_dir: the run directory, which exists.

    Returns:
        The data set less those images.

    Raises:
        UserError: if there are more than allowed.
    """
    splits = [config.train_split]
    if config.mode != "train" and source.class_names is not None:
        splits.append(config.eval_split)
    counts = {split: source.num_examples(split) for split in splits}
    data = {"dataset": config.dataset, "data_dir": config.data_dir}
    path = os.path.join(model_dir, LIST)
    stored = storage.read_json(path) if tf.io.gfile.exists(path) else {}
    known = stored["splits"] if stored.get("data") == data else {}
    for split, count in counts.items():
        if known.get(split, {}).get("images") != count:
            known[split] = {"images": count, "left_out": _look(source, split, count)}
    found = {split: known[split]["left_out"] for split in counts}
    bad = [f"{name} {why}" for images in found.values() for name, why in images.items()]
    some = text.shortened(bad, separator="; ")
    if len(bad) > config.max_bad_images:
        raise errors.UserError(
            f"{len(bad)} images cannot be used, more than --max_bad_images="
            f"{config.max_bad_images} ({some}); repair them, or allow more."
        )
    storage.write_json(path, {"data": data, "splits": known})
    if bad:
        console.warn(f"Left out {len(bad)} images that cannot be used: {some}.")
    excluded = {split: tuple(images) for split, images in found.items()}
    return dataclasses.replace(source, excluded=excluded)


def _look(source: sources.Source, split: str, count: int) -> dict[str, str]:
    """Returns the name of each image that cannot be used, and why."""
    found: dict[str, str] = {}
    with console.Progress(f"checked images of {split}", count) as progress:
        for number, finding in enumerate(inspection.inspect(source, split), 1):
            if finding.unreadable:
                found[finding.name] = finding.unreadable
            progress.update(number, f"{len(found)} cannot be used")
    return found
