"""Imports TensorFlow, lists its devices and trains for some seconds, and writes what it found.

    python -m simclr_tf.doctor.probe SECONDS

It is a program of its own, because TensorFlow may end the process, for example on a processor
without the instructions that it was built for. Every line that it writes is a JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

# Keys of what is written, in this order, and of the error that ended it.
IMPORTED, DEVICES, NETWORK = "imported", "devices", "network"
FLOAT32, BFLOAT16 = "float32", "bfloat16"
EMULATED = "emulated"  # Why bfloat16 is not measured.
ERROR = "error"


def main(arguments: list[str]) -> int:
    """Runs the program and returns its exit code."""
    try:
        _probe(float(arguments[0]))
    except Exception as error:  # Whatever fails is what this program looks for.
        lines = str(error).strip().splitlines()
        _write(ERROR, f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": "))
        return 1
    return 0


def _write(key: str, value: Any) -> None:
    print(json.dumps({key: value}), flush=True)


def _probe(seconds: float) -> None:
    start = time.perf_counter()
    import tensorflow as tf

    from simclr_tf.keras_api import keras

    _ = keras.Model  # Keras is imported when it is first used.
    took = time.perf_counter() - start
    cuda = tf.test.is_built_with_cuda()
    _write(IMPORTED, {"version": tf.__version__, "cuda_build": cuda, "seconds": took})

    from simclr_tf import distribute, text
    from simclr_tf.doctor import speed
    from simclr_tf.runs import arithmetic, environment
    from simclr_tf.training import memory

    strategy = distribute.make_strategy()
    devices = environment.describe(strategy)["devices"]
    _write(DEVICES, {"names": devices, "free": memory.free_bytes(strategy)})
    has_gpu = any(device.startswith("GPU") for device in devices)
    network = speed.ON_GPU if has_gpu else speed.ON_CPU
    _write(NETWORK, f"{network}, on {text.count(strategy.num_replicas_in_sync, 'replica')}")
    precisions = {FLOAT32: arithmetic.FLOAT32, BFLOAT16: arithmetic.BFLOAT16}
    fast, why = arithmetic.support(strategy)
    if fast is False:  # A step in it may take longer than all the rest.
        _write(EMULATED, why)
        del precisions[BFLOAT16]
    rates = speed.images_per_second(network, strategy, list(precisions.values()), seconds)
    for key, rate in zip(precisions, rates, strict=True):
        _write(key, rate)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
