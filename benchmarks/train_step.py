"""Images per second of one SimCLR training step, and how far that is from the machine's limit.

    python benchmarks/train_step.py            a table
    python benchmarks/train_step.py --json     the same, and one JSON object as the last line

An image counts once, though the step makes two views of it. The limit is the time that the
step's convolutions alone would take at the rate of a large matrix product on this machine,
measured in the same run. Settings take turns, so that a busy machine slows all alike; medians.
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

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf.models import layers, resnet, simclr
from simclr_tf.runs import builders
from simclr_tf.training import objectives, optimizers, schedules, steps, tasks

_SIDE = 32


@dataclasses.dataclass(frozen=True)
class Setting:
    """One thing to measure: an encoder, a batch in images, and a precision."""

    depth: int
    batch: int
    precision: str
    width: int = 1
    sk_ratio: float = 0.0

    @property
    def key(self) -> str:
        """The name in the JSON object, such as resnet18_float32 or resnet50_2x_sk_float32."""
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


def make_step(setting: Setting, *, jit_compile: bool) -> Callable[[], float]:
    """Returns a function that trains one step and returns the seconds that it took."""
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
    """Returns the arithmetic of a step's convolutions per image: two views, forward and back.

    A multiply and an add count as two; the gradients by input and by kernel cost as much as the
    forward pass each, and the first convolution needs none by its input.
    """
    make = layers.LayerMaker(simclr.dtype_policy("none"), seed=0)
    encoder = resnet.ResNet(
        make,
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


def matrix_product_rate(precision: str, side: int = 2048) -> float:
    """Returns the floating-point operations per second of a square matrix product."""
    dtype = tf.float32 if precision == "none" else tf.bfloat16
    a = tf.cast(tf.random.stateless_uniform([side, side], [0, 1]), dtype)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        float(_sum_of_square(a))
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds[1:])


def main() -> None:
    """Measures, prints a table, and with --json the object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each setting")
    parser.add_argument("--jit_compile", action="store_true", help="compile the step by XLA")
    parser.add_argument("--only", default="", help="only settings whose name holds this")
    arguments = parser.parse_args()
    chosen = [setting for setting in SETTINGS if arguments.only in setting.key]
    steps_of = {s: make_step(s, jit_compile=arguments.jit_compile) for s in chosen}
    for setting, step in steps_of.items():
        print(f"compiled {setting.key} in {step():.1f} s", flush=True)
    seconds: dict[Setting, list[float]] = {setting: [] for setting in chosen}
    rates: dict[str, list[float]] = {setting.precision: [] for setting in chosen}
    for _ in range(arguments.rounds):
        for precision, found in rates.items():
            found.append(matrix_product_rate(precision))
        for setting, step in steps_of.items():
            seconds[setting].append(step())
    print(f"{'step':24} {'batch':>5} {'images/s':>9} {'conv. arithmetic':>17} {'matmul':>14}")
    results = {}
    for setting in chosen:
        median = statistics.median(seconds[setting])
        rate = statistics.median(rates[setting.precision])
        share = convolution_flops(setting) * setting.batch / rate / median
        results[setting.key] = round(setting.batch / median, 2)
        print(
            f"{setting.key:24} {setting.batch:5} {results[setting.key]:9.2f} {share:17.0%} "
            f"{rate / 1e9:8.0f} GFLOP/s"
        )
    print("conv. arithmetic: its share of the step, at the rate of the matrix product")
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
