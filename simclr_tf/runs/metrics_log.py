"""Logs of a training run: metrics.jsonl and TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
import json
import math
import os

import numpy as np
import tensorflow as tf

from simclr_tf import console, errors, storage, text

METRICS = "metrics.jsonl"


class MetricsLog:
    """Writes the metrics of a run as JSON lines and as TensorBoard scalars."""

    def __init__(self, model_dir: str, *, from_step: int = 0) -> None:
        """Opens the files of a run directory.

        Args:
            model_dir: the run directory.
            from_step: the step that training resumes from. Lines of later steps, which a killed
                run wrote after its last checkpoint, are removed: those steps will be repeated. So
                are incomplete lines, as a crash or a full disk leaves them.

        Raises:
            UserError: if the metrics so far cannot be read.
        """
        self.path = os.path.join(model_dir, METRICS)
        self._drop_after(from_step)
        self._writer = tf.summary.create_file_writer(model_dir)

    def _drop_after(self, step: int) -> None:
        if not tf.io.gfile.exists(self.path):
            return
        lines = self._read().splitlines(keepends=True)
        # An incomplete last line is usual.
        damaged = sum(math.isinf(_step_of(line)) and line.endswith(b"\n") for line in lines)
        if damaged:
            console.warn(f"{self.path} had {damaged} damaged lines, which were removed.")
        self._remove(lambda line: _step_of(line) > step)

    def _remove(self, condition: Callable[[bytes], bool]) -> None:
        """Removes the lines for which a condition holds."""
        if not tf.io.gfile.exists(self.path):
            return
        lines = self._read().splitlines(keepends=True)
        kept = [line for line in lines if not condition(line)]
        if len(kept) < len(lines):
            storage.replace(self.path, b"".join(kept))

    def _read(self) -> bytes:
        try:
            with tf.io.gfile.GFile(self.path, "rb") as file:
                return file.read()
        except (OSError, tf.errors.OpError) as error:
            raise errors.UserError(
                f"{self.path} cannot be read ({text.reason(error)}); "
                f"{storage.remedy(error, files=[self.path])} and run the same command again."
            ) from error

    def write(self, step: int, metrics: dict[str, float], *, replacing: str | None = None) -> None:
        """Records the metrics of a step in both places.

        Args:
            step: the step.
            metrics: name -> value.
            replacing: removes a line of this step whose metrics have names that begin so. A run
                that was killed may have written it.
        """
        if replacing is not None:
            self._remove(lambda line: _step_of(line) == step and f'"{replacing}'.encode() in line)
        line = json.dumps(
            {"step": step, **{name: _round(value) for name, value in metrics.items()}}
        )
        with tf.io.gfile.GFile(self.path, "a") as file:
            file.write(line + "\n")
        with self._writer.as_default():
            for name, value in metrics.items():
                tf.summary.scalar(name, value, step=step)
        self._writer.flush()

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Records one (h, w, 3) uint8 picture for TensorBoard."""
        with self._writer.as_default():
            tf.summary.image(name, image[np.newaxis], step=step)
        self._writer.flush()


def _step_of(line: bytes) -> float:
    """Returns the step of a line of metrics; infinity if the line is incomplete or damaged."""
    try:
        step = json.loads(line)["step"] if line.endswith(b"\n") else None
    except (ValueError, LookupError, TypeError):  # UnicodeDecodeError is a ValueError.
        return math.inf
    return step if type(step) is int else math.inf


def _round(value: float) -> float:
    """Rounds to seven digits, the precision of float32."""
    return float(f"{value:.7g}")
