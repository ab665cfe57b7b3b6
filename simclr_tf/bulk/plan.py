"""Divides the inputs into shards, and keeps the list of them in a file that workers read.

A shard is a line of inputs.jsonl, so that what is sent to a worker is short, however many images
there are.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import hashlib
import json
import os

import tensorflow as tf

from simclr_tf import storage

FILE = "inputs.jsonl"


@dataclasses.dataclass(frozen=True)
class Content:
    """The images of a shard.

    Attributes:
        ids: their names, as the columns of the output have them.
        dataset: the data set that they are of; None if `ids` are paths of files.
        part: which part of the data set they are, as a split; None for files.
    """

    ids: tuple[str, ...]
    dataset: str | None = None
    part: str | None = None


@dataclasses.dataclass(frozen=True)
class Shard:
    """Where a shard is in inputs.jsonl.

    Attributes:
        number: its number.
        offset: its first byte.
        length: its bytes.
        images: number of its images.
        inputs: a hash of its images.
    """

    number: int
    offset: int
    length: int
    images: int
    inputs: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """All shards.

    Attributes:
        shards: the shards, in their order.
        content: what inputs.jsonl holds.
    """

    shards: tuple[Shard, ...]
    content: bytes

    @property
    def images(self) -> int:
        """Number of all images."""
        return sum(shard.images for shard in self.shards)

    @property
    def inputs(self) -> str:
        """A hash of the images of all shards."""
        return hashlib.sha256(self.content).hexdigest()

    def write(self, folder: str) -> None:
        """Writes inputs.jsonl.

        Raises:
            UserError: if it cannot be written.
        """
        storage.replace(os.path.join(folder, FILE), self.content)


def of_contents(contents: Iterable[Content]) -> Plan:
    """Returns the plan of some shards."""
    shards, lines, offset = [], [], 0
    for number, content in enumerate(contents):
        # ASCII, also for names that are not UTF-8.
        line = (json.dumps(dataclasses.asdict(content)) + "\n").encode("ascii")
        digest = hashlib.sha256(line).hexdigest()
        shards.append(Shard(number, offset, len(line), len(content.ids), digest))
        lines.append(line)
        offset += len(line)
    return Plan(tuple(shards), b"".join(lines))


def read(folder: str, shard: Shard) -> Content:
    """Reads the images of a shard from inputs.jsonl.

    Raises:
        RuntimeError: if the file was changed since the plan was made.
    """
    path = os.path.join(folder, FILE)
    with tf.io.gfile.GFile(path, "rb") as file:
        file.seek(shard.offset)
        line = file.read(shard.length)
    if hashlib.sha256(line).hexdigest() != shard.inputs:
        raise RuntimeError(f"{path} was changed while it was used; run the same command again.")
    values = json.loads(line)
    return Content(**{**values, "ids": tuple(values["ids"])})
