"""Checks that all workers have the settings, arithmetic, images and weights of the chief.

TensorFlow compares none of them. With other images or weights on one worker, the result would be
wrong without an error, or workers would wait for each other forever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import tensorflow as tf

from simclr_tf import cluster as cluster_lib
from simclr_tf import config as config_lib
from simclr_tf import errors, text
from simclr_tf import workers as workers_lib
from simclr_tf.data import labels, split_names
from simclr_tf.evaluation import features
from simclr_tf.models import simclr
from simclr_tf.runs import arithmetic, opening, teachers

# Of a value in a message, such as a list of classes.
_MOST_CHARACTERS = 60


def check(
    workers: workers_lib.Workers,
    facts: Mapping[str, Any],
    remedy: str,
    *,
    name: Callable[[int], str] = "worker {}".format,
) -> None:
    """Refuses workers whose facts differ from those of the chief. Call it on all workers.

    Args:
        workers: the connection to the other workers.
        facts: what must be the same, by its name in the message; values that JSON can hold.
        remedy: the end of the message.
        name: returns the name of a worker.

    Raises:
        UserError: naming the first worker that differs, and what differs with both values.
    """
    everyone = workers.exchange(dict(facts))
    chief = everyone[0]
    for index, other in enumerate(everyone):
        names = [key for key in {**chief, **other} if chief.get(key) != other.get(key)]
        if names:
            shown = [(key, _shown(other, key), _shown(chief, key)) for key in names]
            listed = text.shortened([f"{key}: {a} there, {b} on the chief" for key, a, b in shown])
            raise errors.UserError(f"{name(index)} differs from the chief ({listed}); {remedy}.")


def _shown(facts: Mapping[str, Any], key: str) -> str:
    value = str(facts.get(key, "nothing"))
    return value if len(value) <= _MOST_CHARACTERS else f"{value[:_MOST_CHARACTERS]} ..."


def check_settings(
    workers: workers_lib.Workers, cluster: cluster_lib.Cluster, config: config_lib.Config
) -> None:
    """Refuses workers with other settings, addresses or TensorFlow than those of the chief.

    Args:
        workers: the connection to the other workers.
        cluster: the workers, as this one knows them.
        config: the settings.

    Raises:
        UserError: naming what differs.
    """
    facts = {
        f"--{field.name}": repr(getattr(config, field.name)) for field in dataclasses.fields(config)
    }
    facts[cluster_lib.VARIABLE] = ",".join(cluster.addresses)
    facts["TensorFlow"] = tf.__version__
    remedy = "start all workers with the same flags, addresses and version of TensorFlow"
    check(workers, facts, remedy, name=cluster.name)


def check_arithmetic(workers: workers_lib.Workers, run: opening.Run) -> None:
    """Refuses workers on which --mixed_precision=auto is another arithmetic than on the chief.

    Args:
        workers: the connection to the other workers.
        run: the run.

    Raises:
        UserError: naming the worker, and what it is on both.
    """
    if workers.count == 1 or run.config.mixed_precision != arithmetic.AUTO:
        return
    facts = {f"--mixed_precision={arithmetic.AUTO}": run.arithmetic.name}
    check(workers, facts, f"give all workers --mixed_precision={arithmetic.FLOAT32}")


def check_images(workers: workers_lib.Workers, run: opening.Run) -> None:
    """Refuses workers with other images than the chief.

    Args:
        workers: the connection to the other workers.
        run: the run, without unreadable images.

    Raises:
        UserError: naming what differs.
    """
    if workers.count == 1:  # Listing millions of images takes seconds.
        return
    data, source = run.data, run.data.source
    splits = [data.train_split]
    if run.config.mode != "train" and not split_names.unknown(data.eval_split, source.splits):
        splits.append(data.eval_split)
    facts: dict[str, Any] = {"classes": list(source.class_names or ())}
    for split in splits:
        facts[f"images of {split!r}"] = source.num_examples(split)
        facts[f"hash of the names and classes of {split!r}"] = labels.fingerprint(source, split)
    # Chosen for the number of images if it was not given.
    facts["--train_batch_size"] = run.config.train_batch_size
    check(workers, facts, "give all workers the same files in --data_dir")


def check_weights(
    workers: workers_lib.Workers,
    model: simclr.SimCLR,
    step: int,
    teacher: teachers.Teacher | None = None,
) -> None:
    """Refuses workers that have read other weights than the chief.

    Args:
        workers: the connection to the other workers.
        model: the network.
        step: the step of its weights.
        teacher: the network that the run learns from; None without one.

    Raises:
        UserError: naming what differs.
    """
    if workers.count == 1:
        return
    facts: dict[str, Any] = {"step": step, "hash of the weights": _hash(model)}
    if teacher is not None:
        facts["hash of the weights of the teacher"] = _hash(teacher)
    check(workers, facts, "give all workers the same files in --model_dir, --checkpoint, --teacher")


def _hash(network: Any) -> str:
    return features.fingerprint(network)[:16]
