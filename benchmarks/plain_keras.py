"""Compares the training step with one of plain Keras: its seconds and its memory.

    python benchmarks/plain_keras.py              prints a table
    python benchmarks/plain_keras.py --write      also updates docs/performance.md
    python benchmarks/plain_keras.py --json       also prints one JSON object as the last line
    python benchmarks/plain_keras.py --smallest   takes seconds

Both train the same ResNet with a projection head of three layers by NT-Xent, in float32, on random
views. The step of this program also has LARS, the linear head with its loss, and all metrics. That
of plain Keras is a model of Keras's own layers, its SGD with momentum, and nothing else. Each has a
process of its own. They take turns, a step at a time, so that other load on the machine affects
both alike. Times are medians. Memory is what the network, its optimizer and the first two steps add
to the peak of the process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from benchmarks import children, pages

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PAGE = _ROOT / "docs" / "performance.md"
_SIDES = ("ours", "plain")
_BLOCKS = {8: (1, 1, 1), 14: (2, 2, 2), 18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


@dataclasses.dataclass(frozen=True)
class Setting:
    """Layers of the ResNet, side of the images in pixels, and images of a step."""

    depth: int
    side: int
    batch: int

    def __str__(self) -> str:
        """Describes it for the table."""
        return f"ResNet-{self.depth}, {self.side} px, batch {self.batch}"


SETTINGS = (Setting(14, 16, 256), Setting(18, 32, 64), Setting(50, 32, 32), Setting(50, 224, 16))
_SMALLEST = (Setting(8, 8, 4),)


# A step, and a function that counts the weights of the encoder and the projection head.
_Made = tuple[Callable[[], float], Callable[[], int]]


def _plain_model(keras: Any, setting: Setting) -> Any:
    """Returns the ResNet with its projection head, of the layers of a Keras."""
    layers = keras.layers

    def convolved(x: Any, filters: int, size: int, stride: int = 1) -> Any:
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    def block(x: Any, filters: int, stride: int, *, first: bool) -> Any:
        bottleneck = setting.depth >= 50
        out = 4 * filters if bottleneck else filters
        shortcut = convolved(x, out, 1, stride) if first else x
        if bottleneck:
            x = layers.ReLU()(convolved(x, filters, 1))
            x = layers.ReLU()(convolved(x, filters, 3, stride))
            x = convolved(x, out, 1)
        else:
            x = layers.ReLU()(convolved(x, filters, 3, stride))
            x = convolved(x, filters, 3)
        return layers.ReLU()(x + shortcut)

    images = keras.Input([setting.side, setting.side, 3])
    width = 16 if setting.depth < 18 else 64
    if setting.side <= 32:
        x = layers.ReLU()(convolved(images, width, 3))
    else:
        x = layers.ReLU()(convolved(images, width, 7, 2))
        x = layers.MaxPool2D(3, 2, padding="same")(x)
    for group, blocks in enumerate(_BLOCKS[setting.depth]):
        for number in range(blocks):
            stride = 2 if group and not number else 1
            x = block(x, width * 2**group, stride, first=not number)
    x = layers.GlobalAveragePooling2D()(x)
    hidden = x.shape[-1]
    for number in range(3):
        x = layers.Dense(128 if number == 2 else hidden, use_bias=False)(x)
        x = layers.BatchNormalization(center=number < 2)(x)
        x = layers.ReLU()(x) if number < 2 else x
    return keras.Model(images, x)


def _plain_step(setting: Setting) -> _Made:
    """Returns the step of plain Keras."""
    import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

    # isort: split
    import tensorflow as tf

    model = _plain_model(tf.keras, setting)
    optimizer = tf.keras.optimizers.SGD(1e-3, momentum=0.9)
    count = setting.batch
    labels = tf.concat([tf.range(count, 2 * count), tf.range(count)], 0)

    @tf.function
    def train(views: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            z = tf.math.l2_normalize(model(views, training=True), -1)
            logits = tf.matmul(z, z, transpose_b=True) / 0.1 - 1e9 * tf.eye(2 * count)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            )
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    shape = [2 * count, setting.side, setting.side, 3]
    views = tf.random.stateless_uniform(shape, [0, 1])
    return lambda: float(train(views)), lambda: _number(model.trainable_variables)


def _our_step(setting: Setting) -> _Made:
    """Returns the step of this program."""
    import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

    # isort: split
    import tensorflow as tf

    from simclr_tf import config as config_lib
    from simclr_tf.doctor import speed
    from simclr_tf.models import simclr
    from simclr_tf.runs import builders

    def weights() -> int:
        config = config_lib.Config(image_size=setting.side, resnet_depth=setting.depth)
        model = simclr.SimCLR(builders.architecture_of(config, None), seed=0)
        return _number(model.trainable_variables)

    network = speed.Network(setting.depth, setting.side, setting.batch)
    return speed.make_step(network, tf.distribute.OneDeviceStrategy("/cpu:0"), "none"), weights


def _number(variables: Any) -> int:
    return sum(int(variable.shape.num_elements()) for variable in variables)


def serve(side: str, setting: Setting) -> None:
    """Trains two steps and prints weights and memory; then a step and its seconds per line."""
    import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

    # isort: split
    import tensorflow as tf

    from simclr_tf.doctor import speed  # noqa: F401  (both processes import the same)

    float(tf.reduce_sum(tf.matmul(tf.ones([64, 64]), tf.ones([64, 64]))))
    before = _peak_gib()
    step, weights = {"ours": _our_step, "plain": _plain_step}[side](setting)
    step()
    step()
    gib = _peak_gib() - before
    print(json.dumps({"weights": weights(), "gib": gib}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


def _peak_gib() -> float:
    # Works on Linux only. The peak of getrusage is at least the size of the parent process.
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def measure(setting: Setting, rounds: int) -> dict[str, float]:
    """Returns the median seconds and the GiB of both sides.

    Raises:
        RuntimeError: if the two networks do not have equally many weights.
    """
    seconds: dict[str, list[float]] = {side: [] for side in _SIDES}
    processes, ready = {}, {}
    for side in _SIDES:
        asked = json.dumps([side, *dataclasses.astuple(setting)])
        command = [sys.executable, __file__, "--serve", asked]
        processes[side] = children.Child(command, os.environ)
        ready[side] = json.loads(processes[side].read())
    for number in range(rounds):
        for side in _SIDES if number % 2 else reversed(_SIDES):
            seconds[side].append(float(processes[side].ask()))
    for process in processes.values():
        process.end()
    if len({found["weights"] for found in ready.values()}) > 1:
        raise RuntimeError(f"{setting}: the networks differ: {ready}.")
    return {
        **{f"{side}_seconds": statistics.median(seconds[side]) for side in _SIDES},
        **{f"{side}_gib": ready[side]["gib"] for side in _SIDES},
    }


def markdown(results: dict[str, dict[str, float]]) -> str:
    """Returns the table of docs/performance.md."""
    lines = [
        "| step | this program | plain Keras | speed | memory | of plain Keras |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, found in results.items():
        speed = found["plain_seconds"] / found["ours_seconds"]
        lines.append(
            f"| {name} | {found['ours_seconds']:.2f} s | {found['plain_seconds']:.2f} s "
            f"| {speed:.2f} | {found['ours_gib']:.2f} GiB | {found['plain_gib']:.2f} GiB |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and prints the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11, help="measured steps of each side")
    parser.add_argument("--only", default="", help="measure steps whose name contains this text")
    parser.add_argument("--write", action="store_true", help="update docs/performance.md")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--smallest", action="store_true", help="a tiny network, in seconds")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        side, *numbers = json.loads(arguments.serve)
        serve(side, Setting(*numbers))
        return
    if arguments.write and arguments.smallest:
        parser.error("--smallest is too small for docs/performance.md; leave out --write")
    results = {}
    for setting in _SMALLEST if arguments.smallest else SETTINGS:
        if arguments.only in str(setting):
            results[str(setting)] = measure(setting, arguments.rounds)
            print(markdown(results).splitlines()[-1], flush=True)
    print(markdown(results))
    if arguments.write:
        pages.replace_table(str(_PAGE), "plain_keras.py", markdown(results))
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
