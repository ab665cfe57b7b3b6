"""Joins the workers of a cluster, of which the chief alone writes files and prints.

All workers run the same program on the same settings. Those other than the chief print nothing, and
work in a temporary folder that begins as a copy of the run directory. So whatever writes a file
does so everywhere, TensorFlow's checkpoints included, in whose writing all workers must take part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import os
import re
import tempfile
import time
import uuid

import tensorflow as tf
from tensorflow.python.eager import context as tf_context

from simclr_tf import cluster as cluster_lib
from simclr_tf import config as config_lib
from simclr_tf import console, errors, paths, storage
from simclr_tf import workers as workers_lib
from simclr_tf.commands import agreement
from simclr_tf.runs import directory

_MODES = ("train", "train_then_eval", "eval")
# The file by which workers check that they see the same run directory; network file systems may
# show a new file late.
_PROBE = ".seen-by-workers-"
_PROBE_SECONDS = 60.0
# What a command reads of a run directory, beside its checkpoints.
_SMALL_FILES = re.compile(r".*\.(json|jsonl|txt|csv)")
_NOT_READ = ("metrics.jsonl",)
_CHECKPOINT = re.compile(r"ckpt-[0-9]+\.(index|data-[0-9]+-of-[0-9]+)")
_DRAW = re.compile(r"draw-[0-9]+")


@dataclasses.dataclass(frozen=True)
class Joined:
    """What a command needs to know of the workers.

    Attributes:
        config: the settings for this worker.
        cluster: the workers; None for a single one.
        connection: the connection to the others.
    """

    config: config_lib.Config
    cluster: cluster_lib.Cluster | None
    connection: workers_lib.Workers


@contextlib.contextmanager
def joined(config: config_lib.Config, environment: Mapping[str, str]) -> Iterator[Joined]:
    """Joins the workers that TF_CONFIG describes, and waits for all of them at the end.

    Call it before TensorFlow uses a device.

    Args:
        config: the settings.
        environment: the variables of the process.

    Yields:
        This worker. Without several workers, the settings as they are.

    Raises:
        UserError: if the workers cannot work together.
        Preempted: if another worker has ended.
    """
    cluster = cluster_lib.from_environment(environment)
    if cluster is None:
        yield Joined(config, None, workers_lib.Alone())
        return
    _check_possible(config, cluster)
    with (
        _named(cluster),
        workers_lib.Connected(cluster, console.say, _abort_collectives) as connection,
    ):
        agreement.check_settings(connection, cluster, config)
        if config.model_dir is None:  # It is reported where it is needed.
            yield Joined(config, cluster, connection)
            return
        with _run_directory(config.model_dir, cluster, connection) as model_dir:
            own = dataclasses.replace(config, model_dir=model_dir)
            yield Joined(own, cluster, connection)


def _check_possible(config: config_lib.Config, cluster: cluster_lib.Cluster) -> None:
    """Refuses what several workers cannot do."""
    count = len(cluster.addresses)
    if config.use_tpu:
        raise errors.UserError(
            f"--use_tpu does not work with the {count} workers of {cluster_lib.VARIABLE}; unset "
            "it, because --tpu_name reaches all hosts of a TPU from one process."
        )
    _check_mode(config.mode, count)


def silence_others(environment: Mapping[str, str]) -> None:
    """Lets this process print nothing if it is a worker other than the chief.

    Args:
        environment: the variables of the process.

    Raises:
        UserError: if TF_CONFIG cannot be used.
    """
    cluster = cluster_lib.from_environment(environment)
    if cluster is not None and not cluster.is_chief:
        console.silence()


def check_alone(mode: str, environment: Mapping[str, str]) -> None:
    """Refuses several workers in a mode that runs in one process.

    Args:
        mode: the value of --mode.
        environment: the variables of the process.

    Raises:
        UserError: if TF_CONFIG describes several workers.
    """
    cluster = cluster_lib.from_environment(environment)
    if cluster is not None:
        _check_mode(mode, len(cluster.addresses))


def _check_mode(mode: str, workers: int) -> None:
    if mode not in _MODES:
        raise errors.UserError(
            f"--mode={mode} runs in one process, and {cluster_lib.VARIABLE} names {workers} "
            f"workers; unset it for this mode ({', '.join(_MODES)} run on several)."
        )


@contextlib.contextmanager
def _named(cluster: cluster_lib.Cluster) -> Iterator[None]:
    """Begins the message of an error with the worker, unless that is the chief."""
    try:
        yield
    except errors.UserError as error:
        if cluster.is_chief:
            raise
        raise errors.UserError(f"On {cluster.name(cluster.index)}: {error}") from error


@contextlib.contextmanager
def _run_directory(
    model_dir: str, cluster: cluster_lib.Cluster, connection: workers_lib.Workers
) -> Iterator[str]:
    """Yields the run directory to the chief, and to the others a folder that begins as a copy.

    Raises:
        UserError: if a worker does not see the chief's directory.
    """
    model_dir = paths.absolute(model_dir)
    probe = os.path.join(model_dir, connection.exchange(_PROBE + uuid.uuid4().hex)[0])
    if cluster.is_chief:
        with _removed_if_empty(model_dir):
            directory.ensure_writable(model_dir)
            storage.replace(probe, "")
            try:
                connection.exchange("written")
                seen = connection.exchange(True)
            finally:
                tf.io.gfile.remove(probe)
            _check_seen(seen, model_dir, cluster)
            yield model_dir
        return
    connection.exchange("written")
    with tempfile.TemporaryDirectory(prefix=f"simclr-worker-{cluster.index}-") as folder:
        found = _appears(probe)
        if found:
            _copy(model_dir, folder)
        _check_seen(connection.exchange(found), model_dir, cluster)
        try:
            yield folder
        except errors.UserError as error:
            raise errors.UserError(str(error).replace(folder, model_dir)) from error


@contextlib.contextmanager
def _removed_if_empty(folder: str) -> Iterator[None]:
    """Removes a folder that was made, and those around it, if they are empty after an error."""
    new = []
    while folder and not tf.io.gfile.exists(folder):
        new.append(folder)
        folder = os.path.dirname(folder)
    try:
        yield
    except BaseException:
        for made in new:  # The innermost is first.
            if not tf.io.gfile.exists(made) or storage.names_in(made):
                break
            tf.io.gfile.rmtree(made)
        raise


def _appears(path: str) -> bool:
    """Returns whether a file is there, or appears within some time."""
    deadline = time.monotonic() + _PROBE_SECONDS
    while not tf.io.gfile.exists(path):
        if time.monotonic() > deadline:
            return False
        time.sleep(1.0)
        storage.names_in(os.path.dirname(path))  # Makes a network file system look again.
    return True


def _check_seen(seen: list[bool], model_dir: str, cluster: cluster_lib.Cluster) -> None:
    if not all(seen):
        raise errors.UserError(
            f"{cluster.name(seen.index(False))} does not see what the chief writes to "
            f"--model_dir={model_dir}; name a folder that all workers share, on a network file "
            "system or an object store."
        )


def _copy(model_dir: str, folder: str) -> None:
    """Copies what a command reads of a run directory; checkpoints are linked where possible."""
    os.makedirs(folder, exist_ok=True)
    is_local = paths.scheme(model_dir) is None
    for name in storage.names_in(model_dir):
        path, copy = os.path.join(model_dir, name), os.path.join(folder, name)
        if _DRAW.fullmatch(name):
            _copy(path, copy)
        elif _CHECKPOINT.fullmatch(name) and is_local:
            os.symlink(path, copy)
        elif _CHECKPOINT.fullmatch(name) or (
            _SMALL_FILES.fullmatch(name) and name not in _NOT_READ
        ):
            # The lock refuses a directory in which another training removes files.
            with contextlib.suppress(tf.errors.NotFoundError):
                tf.io.gfile.copy(path, copy)


def _abort_collectives() -> None:
    """Makes operations that wait for other workers fail."""
    tf_context.context().abort_collective_ops(tf.errors.UNAVAILABLE, "another worker has ended")
