"""Computes a shard: reads its images, runs the network, and writes what comes out."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import itertools

import numpy as np

from simclr_tf.bulk import inputs, network, plan, shards


@dataclasses.dataclass(frozen=True)
class Job:
    """What all shards have in common; it is sent to every worker.

    Attributes:
        saved_model: path of the SavedModel.
        fingerprint: its fingerprint.
        argument: name of the input of its signature.
        outputs: name of an output -> its width.
        batch_size: images of a batch.
        threads: threads of an operation of TensorFlow.
        folder: the folder of the output.
        num_shards: number of all shards.
        base: the folder that relative paths of images start from.
        data_dir: where tensorflow-datasets has its data; None for its default.
    """

    saved_model: str
    fingerprint: str
    argument: str
    outputs: Mapping[str, int]
    batch_size: int
    threads: int
    folder: str
    num_shards: int
    base: str
    data_dir: str | None

    def identity(self, shard: plan.Shard) -> dict:
        """Returns what the result of a shard depends on."""
        return shards.identity(self.fingerprint, shard.inputs, self.outputs, self.batch_size)


def load(job: Job) -> network.Network:
    """Loads the network, once in each process."""
    network.limit_threads(job.threads)
    return network.Network(job.saved_model, job.argument, list(job.outputs), job.batch_size)


def compute(job: Job, model: network.Network, shard: plan.Shard) -> shards.Result:
    """Computes a shard. Memory holds the images of one batch and the outputs of the shard.

    Raises:
        UserError: if a batch does not fit in the memory, or the data set has changed.
    """
    content = plan.read(job.folder, shard)
    ids: list[str] = []
    unreadable: list[tuple[str, str]] = []
    outputs = {name: [np.zeros((0, width), np.float32)] for name, width in job.outputs.items()}
    images = inputs.read(content, base=job.base, data_dir=job.data_dir)
    while batch := list(itertools.islice(images, model.batch_size)):
        found, reasons = model.apply([image for _, image, _ in batch])
        used = []
        for position, (name, _, reason) in enumerate(batch):
            reason = reason or reasons.get(position)
            if reason is None:
                ids.append(name)
                used.append(position)
            else:
                unreadable.append((inputs.printable(name), reason))
        for name, values in found.items():
            outputs[name].append(values[used])
    rows = {name: np.concatenate(values) for name, values in outputs.items()}
    return shards.Result(shard.number, ids, rows, unreadable, job.identity(shard))


def write(job: Job, result: shards.Result) -> None:
    """Writes a shard; see `shards.write`."""
    shards.write(job.folder, job.num_shards, result)
