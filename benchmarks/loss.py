"""Measures time and memory of contrastive losses, with all similarities at once or tile by tile.

    python benchmarks/loss.py              prints a table
    python benchmarks/loss.py --json       also prints one JSON object as the last line
    python benchmarks/loss.py --smallest   takes seconds

Each measurement computes the value and the gradient of a loss. N images have 2N views and 4 N^2
similarities. "reference" is NT-Xent as in google-research/simclr: four blocks of similarities and a
softmax over one-hot labels. "dense" and "blocked" are the two implementations of this project.

Every measurement runs in its own process. Losses are measured in turns, so that other load on the
machine affects all of them alike. The results are medians. Memory is the growth of the process to
its peak, from its state after TensorFlow was loaded and a small batch computed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import json
import os
import resource
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import numpy as np

import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

import tensorflow as tf  # isort: skip

from simclr_tf.losses import blocked, contrastive, supcon
from simclr_tf.training import objectives

tf.get_logger().setLevel("ERROR")  # No warnings about the many functions traced on purpose.

_WIDTH, _TEMPERATURE = 128, 0.1
_SIZES = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
_SMALLEST_SIZE, _WARMUP_SIZE = 128, 64
# The largest N at which each loss is measured. Beyond it, dense losses need many gigabytes.
_LARGEST = {
    "reference": 8192,
    "dense": 8192,
    "blocked": 65536,
    "supcon_dense": 8192,
    "supcon_blocked": 8192,
}
# A process repeats a call until all calls together took this long, but at most 5 times.
_ENOUGH_SECONDS = 8.0

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def reference(za: tf.Tensor, zb: tf.Tensor) -> tf.Tensor:
    """Returns NT-Xent as the reference computes it, halved to the paper's mean."""
    za, zb = tf.math.l2_normalize(za, -1), tf.math.l2_normalize(zb, -1)
    n = za.shape[0]
    labels = tf.one_hot(tf.range(n), 2 * n)
    diagonal = tf.one_hot(tf.range(n), n) * 1e9

    def side(z: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
        within = tf.matmul(z, z, transpose_b=True) / _TEMPERATURE - diagonal
        across = tf.matmul(z, other, transpose_b=True) / _TEMPERATURE
        return tf.nn.softmax_cross_entropy_with_logits(labels, tf.concat([across, within], 1))

    return tf.reduce_mean(side(za, zb) + side(zb, za)) / 2


def _dense(za: tf.Tensor, zb: tf.Tensor) -> tf.Tensor:
    return contrastive.nt_xent([za, zb], temperature=_TEMPERATURE)


def _blocked(za: tf.Tensor, zb: tf.Tensor) -> tf.Tensor:
    return contrastive.nt_xent([za, zb], temperature=_TEMPERATURE, tile=_tile(za))


def _supcon_blocked(za: tf.Tensor, zb: tf.Tensor) -> tf.Tensor:
    labels = tf.range(za.shape[0]) % 100
    tile = _tile(za, masked=True)
    return supcon.supcon([za, zb], labels, temperature=_TEMPERATURE, tile=tile).loss


def _supcon_dense(za: tf.Tensor, zb: tf.Tensor) -> tf.Tensor:
    labels = tf.range(za.shape[0]) % 100
    return supcon.supcon([za, zb], labels, temperature=_TEMPERATURE).loss


def _tile(za: tf.Tensor, *, masked: bool = False) -> int:
    """Returns the side of the tiles that training uses, or the default for a small batch."""
    return objectives.tile_side(2 * za.shape[0], masked=masked) or blocked.TILE


LOSSES: dict[str, Loss] = {
    "reference": reference,
    "dense": _dense,
    "blocked": _blocked,
    "supcon_dense": _supcon_dense,
    "supcon_blocked": _supcon_blocked,
}


def measure(name: str, size: int) -> dict[str, float]:
    """Returns the seconds of a call, the growth of the process in MiB, and the loss."""
    compute = tf.function(lambda za, zb: _value_and_gradient(LOSSES[name], za, zb))
    rng = np.random.default_rng(0)

    def views(n: int) -> tuple[tf.Tensor, tf.Tensor]:
        pair = rng.normal(size=(2, n, _WIDTH)).astype(np.float32)
        return tf.constant(pair[0]), tf.constant(pair[1])

    float(compute(*views(_WARMUP_SIZE))[0])
    batch = views(size)
    idle = _peak_mib()
    float(compute(*batch)[0])  # Traces the graph and allocates memory.
    seconds: list[float] = []
    while not seconds or (sum(seconds) < _ENOUGH_SECONDS and len(seconds) < 5):
        start = time.perf_counter()
        value = float(compute(*batch)[0])
        seconds.append(time.perf_counter() - start)
    peak = _peak_mib() - idle
    return {"seconds": statistics.median(seconds), "peak_mib": peak, "loss": value}


def _value_and_gradient(loss: Loss, za: tf.Tensor, zb: tf.Tensor) -> tuple[tf.Tensor, ...]:
    with tf.GradientTape() as tape:
        tape.watch([za, zb])
        value = loss(za, zb)
    return value, *tape.gradient(value, [za, zb])


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _measure_in_new_process(names: Sequence[str], size: int) -> dict[str, dict[str, float]]:
    command = [sys.executable, __file__, f"--measure={','.join(names)}:{size}"]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def measure_round(names: Sequence[str], size: int, *, apart: bool) -> dict[str, dict[str, float]]:
    """Measures each loss once.

    Args:
        names: of the losses.
        size: N.
        apart: whether each loss has its own process, as measurements of memory need.

    Returns:
        The results of `measure`, by name.
    """
    if not apart:
        return _measure_in_new_process(names, size)
    return {name: _measure_in_new_process([name], size)[name] for name in names}


def main() -> None:
    """Measures the losses and prints the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--rounds", type=int, default=3, help="processes per loss and size")
    parser.add_argument("--largest", type=int, default=max(_SIZES), help="skip N above this")
    parser.add_argument(
        "--smallest",
        action="store_true",
        help=f"measure only N = {_SMALLEST_SIZE}, once and all losses in one process, in seconds, "
        "to check that this program works",
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        names, size = arguments.measure.split(":")
        print(json.dumps({name: measure(name, int(size)) for name in names.split(",")}))
        return
    print(f"{'N':>7} {'loss':16} {'seconds':>9} {'peak MiB':>9} {'value':>10}")
    result = {}
    sizes = [_SMALLEST_SIZE] if arguments.smallest else _SIZES
    for size in (size for size in sizes if size <= arguments.largest):
        names = [name for name in LOSSES if size <= _LARGEST[name]]
        rounds = 1 if arguments.smallest or size > 16384 else arguments.rounds
        measured = [measure_round(names, size, apart=not arguments.smallest) for _ in range(rounds)]
        for name in names:
            median = {
                key: statistics.median(one[name][key] for one in measured)
                for key in measured[0][name]
            }
            print(
                f"{size:7,} {name:16} {median['seconds']:9.3f} {median['peak_mib']:9,.0f} "
                f"{median['loss']:10.6f}",
                flush=True,
            )
            result[f"{name}_seconds_{size}"] = round(median["seconds"], 4)
            result[f"{name}_peak_mib_{size}"] = round(median["peak_mib"], 1)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
