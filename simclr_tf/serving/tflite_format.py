"""Files of TensorFlow Lite: a network in float32, float16 or int8 for phones and small devices."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import sys
import tempfile
from typing import Any
import warnings

import numpy as np
import tensorflow as tf

from simclr_tf import errors, storage, text
from simclr_tf.serving import converted, servable

FILE = "model.tflite"


def write(
    path: str, network: converted.Prepared, dtype: str, samples: converted.Samples | None
) -> None:
    """Writes a network as a file with the signature `prepared`.

    Args:
        path: the file to write.
        network: the network.
        dtype: float32; float16, in which the weights are stored; or int8, in which the network
            computes. Inputs and outputs are float32.
        samples: for int8, images from which it learns the ranges of values.

    Raises:
        UserError: if there is no converter, or the network cannot be converted.
    """
    lite = _lite()
    with tempfile.TemporaryDirectory() as folder, _quiet():
        tf.saved_model.save(network, folder, signatures=network.signatures())
        converter = lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=[servable.PREPARED]
        )
        _choose(converter, lite, dtype, samples)
        try:
            content = converter.convert()
        except errors.UserError:  # Of the samples.
            raise
        except Exception as error:  # The converter raises many kinds.
            others = " or ".join(one for one in ("float32", "float16", "int8") if one != dtype)
            raise errors.UserError(
                f"TensorFlow Lite cannot have this network in {dtype} ({_reason(error)}); try "
                f"--export_dtype={others}, or use --format=serving."
            ) from error
    storage.replace(path, content)


def load(path: str) -> converted.Run:
    """Returns what runs the signature `prepared` of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That the interpreter has moved to another package.
        with _quiet():
            # By content: a remote path is not one for the interpreter.
            interpreter = _lite().Interpreter(
                model_content=storage.read_bytes(path), num_threads=len(os.sched_getaffinity(0))
            )
            prepared = interpreter.get_signature_runner(servable.PREPARED)

    shapes = set()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        # For a new shape it prepares itself again, and says so.
        with contextlib.nullcontext() if images.shape in shapes else _quiet():
            found = prepared(images=images)
        shapes.add(images.shape)
        # Copies, because the next call may change the interpreter's memory.
        return {name: np.array(values) for name, values in found.items()}

    return run


def _choose(converter: Any, lite: Any, dtype: str, samples: converted.Samples | None) -> None:
    """Sets the arithmetic of a converter."""
    if dtype == "float32":
        return
    converter.optimizations = [lite.Optimize.DEFAULT]
    if dtype == "float16":
        converter.target_spec.supported_types = [tf.float16]
        return
    assert samples is not None, "int8 needs samples"
    converter.representative_dataset = lambda: ({"images": images} for images in samples())
    # An operation that int8 does not have is then an error.
    converter.target_spec.supported_ops = [lite.OpsSet.TFLITE_BUILTINS_INT8]


def _lite() -> Any:
    """Returns `tf.lite`.

    Raises:
        UserError: if this TensorFlow does not have it.
    """
    lite = getattr(tf, "lite", None)
    if not hasattr(lite, "TFLiteConverter") or not hasattr(lite, "Interpreter"):
        raise errors.UserError(
            f"TensorFlow {tf.__version__} has no tf.lite, which --format=tflite needs; use the "
            "TensorFlow that requirements.txt names, or --format=serving."
        )
    return lite


def _reason(error: Exception) -> str:
    """Returns the first line of an error: others list operations and their places in the code."""
    return text.reason(error).splitlines()[0].strip().rstrip(".:")[:300]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what native code writes to the standard error, such as statistics of a conversion."""
    sys.stderr.flush()
    before = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
