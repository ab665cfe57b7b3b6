"""manifest.json of a folder of embeddings: what they are of, and which shards are finished."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import os
from typing import Any

import tensorflow as tf

from simclr_tf import errors, storage, text

FILE = "manifest.json"
FORMAT = 1
# What must not differ where more shards are added, with its name in messages.
_BRIEF = 40  # The most characters of a value in a message.
_IDENTITY = {
    "weights": "the fingerprint of the weights",
    "image_size": "the image size",
    "architecture": "the network",
    "mixed_precision": "the mixed precision",
    "dataset": "the data set",
    "classes": "the classes",
    "splits": "the images of the splits",
    "excluded": "the excluded images",
    "outputs": "the outputs",
    "shard_examples": "the images per shard",
}


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a shard: its name, its size in bytes and the SHA-256 of its content."""

    name: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished shard.

    Attributes:
        split: the split, as it was requested.
        part: the images of the shard, as a split.
        examples: n, their number, without those excluded.
        files: its files; none if n is 0.
    """

    split: str
    part: str
    examples: int
    files: tuple[File, ...]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a folder of embeddings holds.

    Attributes:
        weights: fingerprint of the weights.
        checkpoint: path of the weights.
        step: the step that they were trained to.
        image_size: side of the images that the encoder saw.
        architecture: the network, see `models.simclr.Architecture`.
        mixed_precision: as in the settings.
        data: settings that name the data; where it is may change.
        dataset: name of the data set.
        classes: names of the classes; None without labels.
        splits: split, as it was requested -> a hash of the names of its images.
        excluded: split -> names of the images that are left out, because they are unreadable.
        outputs: name of an output of the network -> its width.
        shard_examples: images of a shard, with those excluded.
        shards: number of a shard -> the shard, if it is finished.
        num_shards: number of all shards.
    """

    weights: str
    checkpoint: str
    step: int
    image_size: int
    architecture: Mapping[str, Any]
    mixed_precision: str
    data: Mapping[str, str | int | None]
    dataset: str
    classes: tuple[str, ...] | None
    splits: Mapping[str, str]
    excluded: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, int]
    shard_examples: int
    num_shards: int
    shards: Mapping[int, Shard] = dataclasses.field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether all shards are finished."""
        return len(self.shards) == self.num_shards

    @property
    def examples(self) -> int:
        """Number of images in the finished shards."""
        return sum(shard.examples for shard in self.shards.values())

    def with_shard(self, number: int, shard: Shard) -> Manifest:
        """Returns the manifest with one more finished shard."""
        shards = dict(sorted({**self.shards, number: shard}.items()))
        return dataclasses.replace(self, shards=shards)

    def check_same(self, stored: Manifest, folder: str) -> None:
        """Refuses to add to embeddings of other weights or data.

        Raises:
            UserError: naming what differs.
        """
        differing = [
            what + _there_and_here(getattr(stored, name), getattr(self, name))
            for name, what in _IDENTITY.items()
            if getattr(stored, name) != getattr(self, name)
        ]
        if differing:
            raise errors.UserError(
                f"--embeddings={folder} has other embeddings: different are "
                f"{', '.join(differing)}; name another folder."
            )


def _there_and_here(stored: Any, own: Any) -> str:
    """Returns both values in parentheses if they are short; "" for what people cannot compare."""
    if isinstance(stored, dict) or max(len(str(stored)), len(str(own))) > _BRIEF:
        return ""
    return f" ({stored} there, {own} here)"


def write(folder: str, manifest: Manifest) -> None:
    """Writes manifest.json.

    Raises:
        UserError: if it cannot be written.
    """
    content = {
        "format": FORMAT,
        "complete": manifest.is_complete,
        "examples": manifest.examples,
        **dataclasses.asdict(manifest),
    }
    storage.write_json(os.path.join(folder, FILE), content)


def read(folder: str) -> Manifest | None:
    """Reads manifest.json; returns None if there is none.

    Raises:
        UserError: if it is damaged, or of a newer version of this program.
    """
    path = os.path.join(folder, FILE)
    if not tf.io.gfile.exists(path):
        return None
    stored = storage.read_json(path)
    try:
        version = stored["format"]
        if version == FORMAT:
            return _parsed(stored)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise errors.UserError(
            f"{path} does not describe embeddings ({text.reason(error)}); restore it, or use "
            "another --embeddings."
        ) from error
    raise errors.UserError(
        f"{path} has format {version!r}, and this version of the program reads {FORMAT}; use the "
        "version that wrote it, or another --embeddings."
    )


def _parsed(stored: dict[str, Any]) -> Manifest:
    names = {field.name for field in dataclasses.fields(Manifest)}
    values = {name: stored[name] for name in names}
    values["classes"] = None if stored["classes"] is None else tuple(stored["classes"])
    values["excluded"] = {split: tuple(images) for split, images in stored["excluded"].items()}
    values["shards"] = {
        int(number): Shard(**{**shard, "files": tuple(File(**file) for file in shard["files"])})
        for number, shard in stored["shards"].items()
    }
    return Manifest(**values)
