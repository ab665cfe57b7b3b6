"""Which shards of an extraction are finished, and the sentences on them."""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import csv
import dataclasses
import io
import os

import tensorflow as tf

from simclr_tf import console, errors, storage, text
from simclr_tf.bulk import manifest as manifest_lib
from simclr_tf.bulk import plan, shards, work

Finished = Mapping[int, shards.Finished]


def finished(job: work.Job, planned: plan.Plan) -> dict[int, shards.Finished]:
    """Returns the shards that are finished, by number. Damaged ones are not.

    Raises:
        UserError: if one is of another SavedModel or of other images.
    """
    names = set(storage.names_in(job.folder))
    found = {}
    for shard in planned.shards:
        name = shards.table_name(shard.number, job.num_shards)
        if name not in names:
            continue
        stored = shards.read(job.folder, shard.number, job.num_shards)
        path = os.path.join(job.folder, name)
        if stored is None:
            console.warn(f"{path} is damaged, so it is computed again.")
            continue
        shards.check_same(job.identity(shard), stored.identity, path)
        listed = shards.unreadable_name(shard.number, job.num_shards)
        if stored.unreadable and listed not in names:
            console.warn(f"{job.folder}/{listed} is missing, so {name} is computed again.")
            continue
        found[shard.number] = stored
    return found


def counted(manifest: manifest_lib.Manifest, done: Finished) -> manifest_lib.Manifest:
    """Returns a manifest with the numbers of the finished shards."""
    return dataclasses.replace(
        manifest,
        complete=len(done) == manifest.num_shards,
        rows=sum(shard.rows for shard in done.values()),
        unreadable=sum(shard.unreadable for shard in done.values()),
        finished_shards=len(done),
    )


def summarize(folder: str, manifest: manifest_lib.Manifest, computed: int, seconds: float) -> None:
    """Prints what there is, and removes what interrupted attempts have left.

    Args:
        folder: the folder of the output.
        manifest: what it holds.
        computed: number of the images that this command has computed.
        seconds: how long that took.

    Raises:
        UserError: if shards are missing, or no image could be used.
    """
    if not manifest.complete:
        raise errors.UserError(
            f"The pipeline has ended, but only {manifest.finished_shards:,} of "
            f"{text.count(manifest.num_shards, 'shard')} are in {folder}; make sure that every "
            "worker can write there, and run the same command again."
        )
    for name in storage.names_in(folder):
        if name.endswith(shards.PARTIAL):
            with contextlib.suppress(tf.errors.OpError):
                tf.io.gfile.remove(os.path.join(folder, name))
    if manifest.unreadable:
        name, reason = _first_unreadable(folder)
        console.warn(
            f"{text.count(manifest.unreadable, 'image')} could not be used, and "
            f"unreadable-*.csv lists why; the first is {name}: {reason}."
        )
    if not manifest.rows:
        raise errors.UserError(
            f"None of the {text.count(manifest.images, 'image')} could be used; see the reasons in "
            f"{folder}/unreadable-*.csv, and name images in --input."
        )
    widths = ", ".join(f"{name} ({width})" for name, width in manifest.outputs.items())
    speed = f"; {computed / max(seconds, 1e-9):,.1f} images per second" if computed else ""
    console.say(
        f"{folder}: {widths} of {text.count(manifest.rows, 'image')} in "
        f"{text.count(manifest.num_shards, 'shard')}, {manifest.unreadable:,} unreadable; "
        f"{console.duration(seconds)}{speed}."
    )


def _first_unreadable(folder: str) -> tuple[str, str]:
    names = sorted(name for name in storage.names_in(folder) if name.startswith("unreadable-"))
    rows = csv.DictReader(io.StringIO(storage.read_text(os.path.join(folder, names[0]))))
    first = next(rows)
    return first["id"], first["reason"].rstrip(".")
