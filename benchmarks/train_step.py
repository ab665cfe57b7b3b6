"""Measures the images per second of a training step, and compares them with the machine's limit.

    python benchmarks/train_step.py              prints a table
    python benchmarks/train_step.py --json       also prints one JSON object as the last line
    python benchmarks/train_step.py --smallest   takes seconds

An image counts once, although the step processes two views of it. The limit is the time that the
step's convolutions alone would take at the rate of a large matrix product, which is measured in the
same run. Settings are measured in turns, so that other load on the machine affects all of them
alike. The results are medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import dataclasses
import json
import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

import tensorflow as tf  # isort: skip

from simclr_tf import config as config_lib
from simclr_tf.models import layers, resnet, simclr
from simclr_tf.runs import builders
from simclr_tf.training import objectives, optimizers, schedules, steps, tasks

_SIDE = 32


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is measured: an encoder, a batch size in images, and a precision."""

    depth: int
    batch: int
    precision: str
    width: int = 1
    sk_ratio: float = 0.0

    @property
    def key(self) -> str:
        """Name in the JSON object, such as resnet18_float32 or resnet50_2x_sk_float32."""
        width = f"_{self.width}x" if self.width > 1 else ""
        sk = "_sk" if self.sk_ratio else ""
        precision = "float32" if self.precision == "none" else self.precision
        return f"resnet{self.depth}{width}{sk}_{precision}"


SETTINGS = [
    *(
        Setting(depth, batch, precision)
        for depth, batch in ((18, 64), (50, 32))
        for precision in ("none", "bfloat16")
    ),
    Setting(18, 32, "none", width=2),
    Setting(50, 32, "none", sk_ratio=0.0625),
]
_SMALLEST = Setting(8, 4, "none")
_MATRIX_SIDE, _SMALLEST_MATRIX_SIDE = 2048, 256


def make_step(setting: Setting, *, jit_compile: bool) -> Callable[[], float]:
    """Returns a function that trains one step and returns its duration in seconds."""
    config = config_lib.Config(
        image_size=_SIDE,
        resnet_depth=setting.depth,
        width_multiplier=setting.width,
        sk_ratio=setting.sk_ratio,
        mixed_precision=setting.precision,
    )
    architecture = builders.architecture_of(config, tuple("abcdefghij"))
    model = simclr.SimCLR(architecture, seed=0, mixed_precision=setting.precision)
    schedule = schedules.WarmupCosine(0.1, 0, 10**6)
    optimizer = optimizers.make_optimizer(config, model, model.trainable_variables, schedule)
    learner = steps.Learner(
        model,
        optimizer,
        model.trainable_variables,
        optimizers.decay_in_loss(config, model),
        config.weight_decay,
    )
    task = tasks.contrastive_task(
        model,
        objectives.make_objective(config),
        temperature=config.temperature,
        hidden_norm=True,
        labelled=True,
    )
    step = steps.whole_step(learner, task, tf.distribute.get_strategy(), jit_compile=jit_compile)
    compiled = tf.function(step.train, autograph=step.autograph)
    batch = {
        "views": tf.random.stateless_uniform([setting.batch, 2, _SIDE, _SIDE, 3], [0, 1]),
        "label": tf.zeros([setting.batch], tf.int32),
    }

    def timed() -> float:
        start = time.perf_counter()
        float(compiled(batch)["train/total_loss"])
        return time.perf_counter() - start

    return timed


def convolution_flops(setting: Setting) -> float:
    """Returns the floating-point operations of a step's convolutions per image.

    They include both views, and the forward and backward passes. A multiply-add counts as two
    operations. The gradients with respect to input and kernel cost as much as the forward pass
    each. The first convolution needs no gradient with respect to its input.
    """
    layer_maker = layers.LayerMaker(simclr.dtype_policy("none"), seed=0)
    encoder = resnet.ResNet(
        layer_maker,
        depth=setting.depth,
        width_multiplier=setting.width,
        stem="small",
        sk_ratio=setting.sk_ratio,
    )
    counted: list[float] = []
    original = tf.keras.layers.Conv2D.call

    def counting(layer: tf.keras.layers.Conv2D, x: tf.Tensor) -> tf.Tensor:
        y = original(layer, x)
        counted.append(2.0 * y.shape[1] * y.shape[2] * float(tf.size(layer.kernel)))
        return y

    tf.keras.layers.Conv2D.call = counting
    try:
        encoder(tf.zeros([1, _SIDE, _SIDE, 3]))
    finally:
        tf.keras.layers.Conv2D.call = original
    return 2 * (3 * sum(counted) - counted[0])


@tf.function
def _sum_of_square(a: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.matmul(a, a), tf.float32))


def matrix_product_rate(precision: str, side: int) -> float:
    """Returns the floating-point operations per second of a product of side x side matrices."""
    dtype = tf.float32 if precision == "none" else tf.bfloat16
    a = tf.cast(tf.random.stateless_uniform([side, side], [0, 1]), dtype)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        float(_sum_of_square(a))
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds[1:])


def main() -> None:
    """Measures the settings and prints the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--rounds", type=int, default=5, help="measurements per setting")
    parser.add_argument("--jit_compile", action="store_true", help="compile the step with XLA")
    parser.add_argument("--only", default="", help="measure settings whose name contains this text")
    parser.add_argument(
        "--smallest",
        action="store_true",
        help="measure only a tiny network, in seconds, to check that this program works",
    )
    arguments = parser.parse_args()
    settings, matrix_side = SETTINGS, _MATRIX_SIDE
    if arguments.smallest:
        settings, matrix_side = [_SMALLEST], _SMALLEST_MATRIX_SIDE
    chosen = [setting for setting in settings if arguments.only in setting.key]
    steps_of = {s: make_step(s, jit_compile=arguments.jit_compile) for s in chosen}
    for setting, step in steps_of.items():
        print(f"compiled {setting.key} in {step():.1f} s", flush=True)
    seconds: dict[Setting, list[float]] = {setting: [] for setting in chosen}
    rates: dict[str, list[float]] = {setting.precision: [] for setting in chosen}
    for _ in range(arguments.rounds):
        for precision, measured in rates.items():
            measured.append(matrix_product_rate(precision, matrix_side))
        for setting, step in steps_of.items():
            seconds[setting].append(step())
    print(f"{'step':24} {'batch':>5} {'images/s':>9} {'conv. arithmetic':>17} {'matmul':>14}")
    results = {}
    for setting in chosen:
        median = statistics.median(seconds[setting])
        rate = statistics.median(rates[setting.precision])
        fraction = convolution_flops(setting) * setting.batch / rate / median
        results[setting.key] = round(setting.batch / median, 2)
        print(
            f"{setting.key:24} {setting.batch:5} {results[setting.key]:9.2f} {fraction:17.0%} "
            f"{rate / 1e9:8.0f} GFLOP/s"
        )
    print("conv. arithmetic: the fraction of the step that the convolutions alone would take at")
    print("the rate of the matrix product")
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
