"""Time and memory of NT-Xent's value and gradient: all similarities at once, or tile by tile.

    python benchmarks/loss.py            a table
    python benchmarks/loss.py --json     the same, and one JSON object as the last line

N images have 2N views and 4 N^2 similarities. "reference" is the loss as google-research/simclr
writes it: four blocks of similarities, softmax over one-hot labels. "dense" and "blocked" are this
project's two forms. Every measurement has a process of its own, and forms take turns, so that a
busy machine slows all alike; medians. Memory is what the process grew by, at its peak, from its
state with TensorFlow loaded and a small batch done.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
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

_WIDTH, _TEMPERATURE = 128, 0.1
_SIZES = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
# Largest N at which a form is tried: dense forms need gigabytes beyond it.
_LARGEST = {
    "reference": 8192,
    "dense": 8192,
    "blocked": 65536,
    "supcon_dense": 8192,
    "supcon_blocked": 8192,
}
# A form's calls in one process stop after so many seconds.
_ENOUGH_SECONDS = 8.0

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def reference(za: tf.Tensor, zb: tf.Tensor) -> tf.Tensor:
    """NT-Xent as the reference writes it, halved to the paper's mean."""
    za, zb = tf.math.l2_normalize(za, -1), tf.math.l2_normalize(zb, -1)
    n = za.shape[0]
    labels = tf.one_hot(tf.range(n), 2 * n)
    itself = tf.one_hot(tf.range(n), n) * 1e9

    def side(z: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
        within = tf.matmul(z, z, transpose_b=True) / _TEMPERATURE - itself
        across = tf.matmul(z, other, transpose_b=True) / _TEMPERATURE
        return tf.nn.softmax_cross_entropy_with_logits(labels, tf.concat([across, within], 1))

    return tf.reduce_mean(side(za, zb) + side(zb, za)) / 2


def _dense(za: tf.Tensor, zb: tf.Tensor) -> tf.Tensor:
    return contrastive.nt_xent(za, zb, temperature=_TEMPERATURE)


def _blocked(za: tf.Tensor, zb: tf.Tensor) -> tf.Tensor:
    return contrastive.nt_xent(za, zb, temperature=_TEMPERATURE, tile=_tile(za))


def _supcon_blocked(za: tf.Tensor, zb: tf.Tensor) -> tf.Tensor:
    labels = tf.range(za.shape[0]) % 100
    tile = _tile(za, by_label=True)
    return supcon.supcon([za, zb], labels, temperature=_TEMPERATURE, tile=tile).loss


def _supcon_dense(za: tf.Tensor, zb: tf.Tensor) -> tf.Tensor:
    labels = tf.range(za.shape[0]) % 100
    return supcon.supcon([za, zb], labels, temperature=_TEMPERATURE).loss


def _tile(za: tf.Tensor, *, by_label: bool = False) -> int:
    """Returns the side that training chooses."""
    return objectives.tile_side(2 * za.shape[0], by_label=by_label) or blocked.TILE


FORMS: dict[str, Loss] = {
    "reference": reference,
    "dense": _dense,
    "blocked": _blocked,
    "supcon_dense": _supcon_dense,
    "supcon_blocked": _supcon_blocked,
}


def measure(form: str, size: int) -> dict[str, float]:
    """Returns seconds of one call, and MiB at the peak above the idle process."""
    compute = tf.function(lambda za, zb: _value_and_gradient(FORMS[form], za, zb))
    rng = np.random.default_rng(0)

    def views(n: int) -> tuple[tf.Tensor, tf.Tensor]:
        made = rng.normal(size=(2, n, _WIDTH)).astype(np.float32)
        return tf.constant(made[0]), tf.constant(made[1])

    float(compute(*views(64))[0])
    batch = views(size)
    idle = _peak_mib()
    float(compute(*batch)[0])  # Traces, and asks the system for memory.
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


def _in_own_process(form: str, size: int) -> dict[str, float]:
    command = [sys.executable, __file__, f"--one={form}:{size}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def main() -> None:
    """Measures, prints a table, and with --json the object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each form and size")
    parser.add_argument("--largest", type=int, default=max(_SIZES), help="leave out larger N")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        form, size = arguments.one.split(":")
        print(json.dumps(measure(form, int(size))))
        return
    print(f"{'N':>7} {'form':16} {'seconds':>9} {'peak MiB':>9} {'loss':>10}")
    result = {}
    for size in (size for size in _SIZES if size <= arguments.largest):
        forms = [form for form in FORMS if size <= _LARGEST[form]]
        rounds = arguments.rounds if size <= 16384 else 1
        found = [{form: _in_own_process(form, size) for form in forms} for _ in range(rounds)]
        for form in forms:
            median = {
                key: statistics.median(one[form][key] for one in found) for key in found[0][form]
            }
            print(
                f"{size:7,} {form:16} {median['seconds']:9.3f} {median['peak_mib']:9,.0f} "
                f"{median['loss']:10.6f}",
                flush=True,
            )
            result[f"{form}_seconds_{size}"] = round(median["seconds"], 4)
            result[f"{form}_peak_mib_{size}"] = round(median["peak_mib"], 1)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
