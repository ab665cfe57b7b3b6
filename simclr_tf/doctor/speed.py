"""Measures how many images a training step processes per second, on random images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import statistics
import time

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf.models import simclr
from simclr_tf.runs import builders
from simclr_tf.training import schedules, setup
from simclr_tf.training import steps as steps_lib

_CLASSES = tuple("0123456789")


@dataclasses.dataclass(frozen=True)
class Network:
    """What is trained.

    Attributes:
        depth: of the ResNet.
        side: of the images, in pixels.
        batch: images per replica.
    """

    depth: int
    side: int
    batch: int

    def __str__(self) -> str:
        """Describes it for the user."""
        return f"ResNet-{self.depth}, {self.side} px, batch {self.batch}"


# That of the demo, and for GPUs one that takes long enough to show what they can do.
ON_CPU, ON_GPU = Network(14, 28, 128), Network(18, 128, 64)


def images_per_second(
    network: Network, strategy: tf.distribute.Strategy, precisions: Sequence[str], seconds: float
) -> list[float]:
    """Trains for some seconds and returns the images per second of all replicas together.

    It is the step of pretraining with its default objective, without reading images and making
    views. An image counts once, although the step processes several views of it. Precisions are
    measured in turns, so that other load on the machine affects all of them alike.

    Args:
        network: what is trained.
        strategy: the strategy that trains on the replicas.
        precisions: values of --mixed_precision.
        seconds: how long to train, after the first steps, which include building the graphs.
    """
    steps = [make_step(network, strategy, precision) for precision in precisions]
    for step in steps:
        step()
    durations: list[list[float]] = [[] for _ in steps]
    end = time.perf_counter() + seconds
    while not durations[0] or time.perf_counter() < end:
        for step, measured in zip(steps, durations, strict=True):
            start = time.perf_counter()
            step()
            measured.append(time.perf_counter() - start)
    images = network.batch * strategy.num_replicas_in_sync
    return [images / statistics.median(measured) for measured in durations]


def make_step(
    network: Network, strategy: tf.distribute.Strategy, precision: str
) -> Callable[[], float]:
    """Returns a function that trains one step, waits for its end, and returns its loss."""
    config = config_lib.Config(
        image_size=network.side,
        resnet_depth=network.depth,
        train_batch_size=network.batch * strategy.num_replicas_in_sync,
        mixed_precision=precision,
    )
    with strategy.scope():
        architecture = builders.architecture_of(config, _CLASSES)
        model = simclr.SimCLR(architecture, seed=0, mixed_precision=precision)
        learner = setup.make_learner(config, model, schedules.WarmupCosine(0.1, 0, 10**6))
    task = setup.make_task(config, strategy, learner, None)
    step = setup.make_step(config, strategy, learner, task)
    train = tf.function(step.train, autograph=step.autograph)
    shape = [network.batch, config.num_views, network.side, network.side, 3]
    batch = {
        "views": tf.random.stateless_uniform(shape, [0, 1]),
        "label": tf.zeros([network.batch], tf.int32),
    }
    return lambda: float(train(batch)[steps_lib.TOTAL_LOSS])
