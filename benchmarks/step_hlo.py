"""Exports the training step of given flags as HLO, for XLA compilers of any hardware.

    python benchmarks/step_hlo.py --output=FOLDER --mode=train --image_size=224 ...
    python benchmarks/step_hlo.py --output=FOLDER --replicas=4 --text ...

All other flags are those of run.py. The step is that of run.py, for one replica of a TPU. With
--accum_chunks it consists of several functions, each of which becomes a file. No data is read, so
--num_classes gives the number of classes, and with --augment_on=device --stored_size gives the side
of the images in the data set.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

import tensorflow as tf  # isort: skip

from benchmarks import tpu_strategy
from flags import command_line
from simclr_tf import config as config_lib
from simclr_tf.evaluation import forward
from simclr_tf.models import simclr
from simclr_tf.runs import builders
from simclr_tf.training import schedules, setup

_STEPS = 1000  # The schedule of the learning rate does not change what is compiled.


def training_step(
    config: config_lib.Config, *, replicas: int = 1, num_classes: int = 10, stored_size: int = 0
) -> list[tpu_strategy.Lowered]:
    """Returns the functions of a training step, lowered for one of several replicas.

    Args:
        config: the settings; its batch is that of all replicas.
        replicas: R.
        num_classes: c, the number of classes of the linear head; 0 for none.
        stored_size: side of the images in the data set, if the device makes the views; 0 for
            images of different sizes, whose crops the host makes.
    """
    strategy = tpu_strategy.TPUStrategyWithoutTPU(replicas)
    model = _new_model(config, strategy, num_classes)
    plan = schedules.make_plan(config, _STEPS * config.train_batch_size)
    with strategy.scope():
        learner = setup.make_learner(config, model, schedules.make_schedule(config, plan))
    task = setup.make_task(config, strategy, learner, None)
    step = setup.make_step(config, strategy, learner, task)
    batch = _batch(config, config.train_batch_size // replicas, stored_size)
    tf.function(step.train, autograph=step.autograph).get_concrete_function(batch)
    return strategy.lowered


def evaluation_step(
    config: config_lib.Config, batch_size: int, *, replicas: int = 1, num_classes: int = 10
) -> list[tpu_strategy.Lowered]:
    """Returns the function that extracts features, lowered for one of several replicas.

    Args:
        config: the settings.
        batch_size: images of all replicas.
        replicas: R.
        num_classes: c, the number of classes of the linear head; 0 for none.
    """
    strategy = tpu_strategy.TPUStrategyWithoutTPU(replicas)
    model = _new_model(config, strategy, num_classes)
    images, side = batch_size // replicas, config.image_size
    # As `pipeline.evaluation_batches` makes them.
    batch = {
        "image": tf.TensorSpec([images, side, side, 3], tf.float32),
        "label": tf.TensorSpec([images], tf.int32),
        "position": tf.TensorSpec([images], tf.int32),
        "mask": tf.TensorSpec([images], tf.bool),
        "content": tf.TensorSpec([images], tf.int64),
    }
    outputs = forward.Outputs(pixels=True, projection=True, thumbnail_seed=0)
    forward.Forward(model, strategy, outputs).compiled.get_concrete_function(batch)
    return strategy.lowered


def _new_model(
    config: config_lib.Config, strategy: tf.distribute.Strategy, num_classes: int
) -> simclr.SimCLR:
    names = tuple(f"class {index}" for index in range(num_classes)) or None
    with strategy.scope():
        return simclr.SimCLR(
            builders.architecture_of(config, names),
            seed=config.seed,
            mixed_precision=config.mixed_precision,
            global_bn=config.global_bn,
            recompute=config.recompute,
        )


def _batch(config: config_lib.Config, images: int, stored_size: int) -> dict[str, tf.TensorSpec]:
    """Returns the specification of a replica's batch, see `pipeline.train_batches`."""
    side, views = config.image_size, config.resolved_num_views
    batch: dict[str, Any] = {"label": tf.TensorSpec([images], tf.int32)}
    made = tf.TensorSpec([images, views, side, side, 3], tf.float32)
    if config.resolved_augment_on == "host":
        return {**batch, "views": made}
    batch["seed"] = tf.TensorSpec([images, 2], tf.int32)
    batch["index"] = tf.TensorSpec([images], tf.int32)
    if stored_size:
        image = tf.TensorSpec([images, stored_size, stored_size, 3], tf.uint8)
        return {**batch, "image": image}
    return {**batch, "crops": made}


def main() -> None:
    """Writes the functions of a step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--replicas", type=int, default=1, help="above 1 needs TensorFlow 2.16")
    parser.add_argument("--num_classes", type=int, default=10, help="0 for no linear head")
    parser.add_argument("--stored_size", type=int, default=0, help="side of the stored images")
    parser.add_argument("--text", action="store_true", help="write text instead of protos")
    arguments, flags = parser.parse_known_args()
    config = command_line.parse([sys.argv[0], *flags]).config
    config_lib.validate(config)
    functions = training_step(
        config,
        replicas=arguments.replicas,
        num_classes=arguments.num_classes,
        stored_size=arguments.stored_size,
    )
    os.makedirs(arguments.output, exist_ok=True)
    for number, function in enumerate(functions):
        path = os.path.join(arguments.output, f"{number}_{function.name}")
        if arguments.text:
            with open(f"{path}.txt", "w", encoding="utf-8") as file:
                file.write(function.hlo("hlo"))
        else:
            with open(f"{path}.pb", "wb") as file:
                file.write(function.hlo())
        print(f"wrote {path}{'.txt' if arguments.text else '.pb'}")


if __name__ == "__main__":
    main()
