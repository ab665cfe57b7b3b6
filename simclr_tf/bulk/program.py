r"""Extracts features of any number of images with Apache Beam, by a SavedModel of this project.

    python -m simclr_tf.bulk --saved_model=RUN/saved_model/STEP --output=FOLDER \
        --input='photos/**/*.jpg'

The same command, run again after an interruption, computes only the shards that are missing. Other
flags, and those after --, are flags of Beam, such as --direct_num_workers=4
--direct_running_mode=multi_processing. docs/bulk.md has more.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import difflib
import logging
import os
import platform
import shlex
import sys
import time
from types import ModuleType

import numpy as np
import pyarrow as pa
import tensorflow as tf

import simclr_tf
from simclr_tf import console, errors, paths, text
from simclr_tf.bulk import inputs, network, plan, progress, results, shards, signature, work
from simclr_tf.bulk import manifest as manifest_lib
from simclr_tf.runs import directory

# How much a flag of Beam may resemble one of this program, from 0 to 1.
_SIMILAR = 0.8


def main(argv: Sequence[str]) -> int:
    """Runs the program and returns its exit code: 2 for what the user can correct."""
    try:
        given, beam_flags = _parsed(argv[1:])
        _extract(given, beam_flags, shlex.join(["python", "-m", "simclr_tf.bulk", *argv[1:]]))
    except errors.UserError as error:
        print(f"error: {text.limited(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command computes what is missing.", file=sys.stderr)
        return 130
    return 0


def _parsed(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns the flags of this program, and those of Beam.

    Raises:
        UserError: if a flag seems to be misspelt, or a value is not allowed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m simclr_tf.bulk",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--saved_model", required=True, help="a SavedModel that --mode=export has written")
    add(
        "--input",
        required=True,
        help="pattern of image files, with ** for folders at any depth, or tfds:NAME/SPLIT for a "
        "prepared data set of tensorflow-datasets; quote it",
    )
    add("--output", required=True, help="folder for the shards, which workers must reach")
    add("--outputs", default="features", help="outputs to write, separated by commas")
    add("--shard_size", type=int, default=1000, help="images in a shard (%(default)s)")
    add("--batch_size", type=int, default=32, help="images at a time (%(default)s)")
    add("--threads", type=int, default=1, help="threads in each process (%(default)s)")
    add("--data_dir", help="where tensorflow-datasets has its data, for tfds:")
    own, beam_flags = list(arguments), []
    if "--" in own:
        at = own.index("--")
        own, beam_flags = own[:at], own[at + 1 :]
    given, unknown = parser.parse_known_args(own)
    names = list(vars(given))
    for flag in unknown:
        name = flag.removeprefix("--").partition("=")[0]
        if flag.startswith("--") and (near := difflib.get_close_matches(name, names, 1, _SIMILAR)):
            raise errors.UserError(
                f"--{name} is not a flag of this program (did you mean --{near[0]}?); if it is one "
                "of Beam, put it after --."
            )
    for name in ("shard_size", "batch_size", "threads"):
        if getattr(given, name) < 1:
            raise errors.UserError(f"--{name}={getattr(given, name)} must be at least 1.")
    return given, [*unknown, *beam_flags]


def _extract(given: argparse.Namespace, beam_flags: Sequence[str], command: str) -> None:
    """Computes the shards that are missing.

    Raises:
        UserError: if the flags do not fit each other or what there is, or the pipeline fails.
    """
    network.limit_threads(given.threads)
    found = signature.read(given.saved_model)
    outputs = found.chosen(list(dict.fromkeys(text.listed(given.outputs))) or ["features"])
    pipeline = _pipeline()
    folder = paths.absolute(os.path.expanduser(given.output))
    contents = inputs.find(
        given.input, shard_size=given.shard_size, data_dir=given.data_dir, output=folder
    )
    with console.working(f"Listing {given.input}"):
        planned = plan.of_contents(contents)
    job = work.Job(
        saved_model=paths.absolute(given.saved_model),
        fingerprint=found.fingerprint,
        argument=found.argument,
        outputs=outputs,
        batch_size=given.batch_size,
        threads=given.threads,
        folder=folder,
        num_shards=len(planned.shards),
        base=os.getcwd(),
        data_dir=given.data_dir and paths.absolute(given.data_dir),
    )
    manifest = _manifest(given, job, planned, command, pipeline.VERSION)
    manifest_lib.check(folder, manifest)
    finished = results.finished(job, planned)
    directory.ensure_writable(folder, flag="output")
    planned.write(folder)
    manifest_lib.write(folder, results.counted(manifest, finished))
    start = time.monotonic()
    missing = [shard for shard in planned.shards if shard.number not in finished]
    if finished:
        console.say(
            f"{given.output} has {len(finished):,} of {text.count(job.num_shards, 'shard')}, which "
            "are kept."
        )
    if missing:
        with progress.shown(job, planned, finished):
            pipeline.run(job, missing, beam_flags)
    manifest = results.counted(manifest, results.finished(job, planned))
    manifest_lib.write(folder, manifest)
    computed = sum(shard.images for shard in missing)
    results.summarize(given.output, manifest, computed, time.monotonic() - start)


def _pipeline() -> ModuleType:
    """Returns the module that uses Apache Beam.

    Raises:
        UserError: if Beam cannot be imported.
    """
    logging.disable(logging.WARNING)  # On optional packages that it does not find.
    try:
        from simclr_tf.bulk import pipeline
    except ImportError as error:
        raise errors.UserError(
            f"Apache Beam cannot be imported ({text.reason(error)}); install it with pip install "
            "'apache-beam>=2.77'."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    return pipeline


def _manifest(
    given: argparse.Namespace, job: work.Job, planned: plan.Plan, command: str, beam: str
) -> manifest_lib.Manifest:
    """Returns the manifest of an extraction of which no shard is finished."""
    return manifest_lib.Manifest(
        format=shards.FORMAT,
        complete=False,
        command=command,
        saved_model=job.saved_model,
        model=job.fingerprint,
        input=given.input,
        inputs=planned.inputs,
        images=planned.images,
        rows=0,
        unreadable=0,
        outputs=job.outputs,
        shard_size=given.shard_size,
        num_shards=job.num_shards,
        finished_shards=0,
        batch_size=job.batch_size,
        versions={
            "simclr-tf": simclr_tf.__version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
            "apache-beam": beam,
        },
    )
