"""manifest.json of an extraction: what it is of, and how much there is."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import os
from typing import Any

import tensorflow as tf

from simclr_tf import errors, storage
from simclr_tf.bulk import shards

FILE = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What the folder of an extraction holds.

    Attributes:
        format: version of the format.
        complete: whether all shards are finished.
        command: the command that ran last.
        saved_model: path of the SavedModel; where it is may change.
        model: its fingerprint.
        input: the value of --input.
        inputs: a hash of the names of all images, in their order.
        images: number of all images.
        rows: number of those in the finished shards that could be used.
        unreadable: number of those in the finished shards that could not.
        outputs: name of an output -> its width.
        shard_size: images of a shard.
        num_shards: number of all shards.
        finished_shards: number of the finished shards.
        batch_size: images of a batch.
        versions: name of a package -> its version, of the command that ran last.
    """

    format: int
    complete: bool
    command: str
    saved_model: str
    model: str
    input: str
    inputs: str
    images: int
    rows: int
    unreadable: int
    outputs: Mapping[str, int]
    shard_size: int
    num_shards: int
    finished_shards: int
    batch_size: int
    versions: Mapping[str, str]

    def check_same(self, stored: Mapping[str, Any], path: str) -> None:
        """Refuses to continue an extraction of another model or other images.

        Args:
            stored: what manifest.json holds.
            path: its path.

        Raises:
            UserError: naming what differs.
        """
        own = dataclasses.asdict(self)
        if own["images"] != stored.get("images") or own["shard_size"] != stored.get("shard_size"):
            raise errors.UserError(
                f"{path} is of {stored.get('images'):,} images in shards of "
                f"{stored.get('shard_size'):,}, and this command of {self.images:,} in shards of "
                f"{self.shard_size:,}; repeat the command that began it with the same images, name "
                "another --output, or delete that folder."
            )
        shards.check_same(own, stored, path)


def write(folder: str, manifest: Manifest) -> None:
    """Writes manifest.json.

    Raises:
        UserError: if it cannot be written.
    """
    storage.write_json(os.path.join(folder, FILE), dataclasses.asdict(manifest))


def check(folder: str, manifest: Manifest) -> None:
    """Refuses a folder that has another extraction.

    Raises:
        UserError: if it has one, or its manifest.json is damaged.
    """
    path = os.path.join(folder, FILE)
    if not tf.io.gfile.exists(path):
        return
    stored = storage.read_json(path)
    if not isinstance(stored, dict) or "inputs" not in stored or "shard_size" not in stored:
        raise errors.UserError(
            f"{path} does not describe such an extraction; name another --output."
        )
    manifest.check_same(stored, path)
