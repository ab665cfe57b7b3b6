"""Loads a SavedModel in a fresh process, and compares its answers with those of the network.

Such a process has neither this package nor what the network's code has registered in this one: as
on a server. An encoder of the user's may depend on that, for example by `tf.py_function`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
import contextlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import console, errors, pixel_format, text
from simclr_tf.data import crops, scaling
from simclr_tf.models import simclr
from simclr_tf.serving import outputs, servable

_PROGRAM = pathlib.Path(__file__).with_name("answer_once.py")
# The import of TensorFlow and a large model take a minute on a busy machine.
_SECONDS = 900
# What outputs in float32 may differ by, relative and as a part of the largest one. Graphs are
# optimised, so the last digits differ.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4
# In other dtypes, the length of the difference as a part of the length of the output. In bfloat16
# that was 0.003 for the features of a trained ResNet-14, 0.02 for a random ResNet-18 and 0.2 for a
# random ResNet-50; of other weights it is about 1. What int8 may differ by depends on the network
# and is measured on images.
_TOLERANCES = {"float16": 0.02, "bfloat16": 0.3}


class FreshProcess:
    """A process that imports TensorFlow while this one writes the model."""

    def __init__(self, process: subprocess.Popen | None) -> None:
        """Takes the process; None if none could be started."""
        self._process = process

    def check(
        self, folder: str, model: simclr.SimCLR, names: tuple[str, ...], *, dtype: str = "float32"
    ) -> None:
        """Compares the answers for two images.

        Where the process cannot run at all, or is ended, a warning says that nothing was compared.

        Args:
            folder: folder of the SavedModel of a `servable.Servable`.
            model: its network, in float32.
            names: its outputs.
            dtype: in what the SavedModel computes.

        Raises:
            UserError: if the process cannot load the SavedModel, or its answers differ.
        """
        size = model.architecture.image_size
        pixels = model.architecture.pixels
        got = self._answers(folder, [_encoded(one) for one in _pictures(size, pixels)])
        if got is None:
            return
        want = outputs.compute(model, prepared_pictures(size, pixels), names)
        differing = [
            name
            for name in names
            if not is_close(name, np.array(got[name]), want[name].numpy(), dtype)
        ]
        if dtype != "float32" and differing:
            raise errors.UserError(
                f"The SavedModel in {dtype} was loaded in a new process to check it, and its "
                f"{' and '.join(differing)} differed from those in float32 by more than "
                f"{_TOLERANCES[dtype]:.0%}, so it was not kept; leave out --export_dtype={dtype}."
            )
        if differing or not all(got[outputs.VALID]):
            raise errors.UserError(
                f"The SavedModel was loaded in a new process to check it, and its "
                f"{' and '.join(differing) or 'valid'} differed from the network's, so it was not "
                "kept; if --encoder names code of your own, let its layers depend on their "
                "inputs and weights only, and otherwise report this as a bug."
            )

    def _answers(self, folder: str, encoded: list[bytes]) -> dict[str, Any] | None:
        """Returns what the process answers, None if it cannot."""
        if self._process is None:
            return None
        request = {
            "folder": folder,
            "signature": servable.OF_BYTES,
            "images": [base64.b64encode(one).decode() for one in encoded],
        }
        try:
            answer, problem = self._process.communicate(json.dumps(request) + "\n", _SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            _warn(text.reason(error))
            return None
        if self._process.returncode < 0:
            _warn(f"it was ended by signal {-self._process.returncode}")
            return None
        if self._process.returncode:
            named = re.findall(r"^[\w.]+(?:Error|Exception)\b.*", problem, re.MULTILINE)
            reason = [*(problem.strip().splitlines() or ["it printed no reason"]), *named][-1]
            raise errors.UserError(
                f"The SavedModel was written, but a new process cannot load it ({reason}), and so "
                "could no server; it was not kept. If --encoder names code of your own, use only "
                "operations of TensorFlow in it, and no tf.py_function."
            )
        return json.loads(answer.splitlines()[-1])


@contextlib.contextmanager
def fresh_process() -> Iterator[FreshProcess]:
    """Starts a process, which ends with the context."""
    # Accelerators are this process's, and the modules beside the program are none of its own.
    settings = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONSAFEPATH": "1"}
    try:
        process = subprocess.Popen(
            [sys.executable, str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings},
        )
    except OSError as error:
        _warn(text.reason(error))
        yield FreshProcess(None)
        return
    with process:
        try:
            yield FreshProcess(process)
        finally:
            process.kill()


def _warn(reason: str) -> None:
    console.warn(f"The SavedModel was not loaded in a new process to check it ({reason}).")


def _pictures(size: int, pixels: pixel_format.PixelFormat) -> np.ndarray:
    """Returns two images (2, s, s, c) as they are stored, the same in every export."""
    random = np.random.default_rng(0)
    if pixels.is_rgb:
        return random.integers(0, 256, (2, size, size, 3), np.uint8)
    values = random.uniform(pixels.low, pixels.high, (2, size, size, pixels.channels))
    return values.astype(pixels.dtype)


def _encoded(picture: np.ndarray) -> bytes:
    """Returns the content of a PNG file of 8-bit RGB, else of a .npy file."""
    if picture.dtype == np.uint8 and picture.shape[2] == pixel_format.RGB.channels:
        return tf.io.encode_png(picture).numpy()
    content = io.BytesIO()
    np.save(content, picture)
    return content.getvalue()


def prepared_pictures(size: int, pixels: pixel_format.PixelFormat = pixel_format.RGB) -> tf.Tensor:
    """Returns the two images that exports are checked by, (2, s, s, c) float32 in [0, 1]."""
    pictures = _pictures(size, pixels)
    if not pixels.is_rgb:
        pictures = scaling.to_unit(pictures, pixels)
    return tf.stack([crops.evaluation_image(one, size) for one in pictures])


def is_close(name: str, one: np.ndarray, other: np.ndarray, dtype: str) -> bool:
    """Returns whether an output differs from that of the network in float32 by no more than it may.

    Args:
        name: its name; the order of classes that are almost equally likely may differ.
        one: the output.
        other: that of the network.
        dtype: in what the output was computed.
    """
    if name == "top_classes":
        return True
    if dtype == "float32":
        scale = float(np.max(np.abs(other)))
        return np.allclose(one, other, rtol=_RELATIVE, atol=_ABSOLUTE * scale)
    if name == "probabilities" or dtype not in _TOLERANCES:  # Small differences of scores grow.
        return True
    difference = float(np.linalg.norm(one - other))
    return difference <= _TOLERANCES[dtype] * float(np.linalg.norm(other))  # NaN is not.
