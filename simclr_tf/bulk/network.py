"""Applies the signature of a SavedModel to encoded images, in batches of one size."""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import io
import logging
import os
import re

import numpy as np
import tensorflow as tf

from simclr_tf import errors, storage, text
from simclr_tf.bulk import signature

# What images that cannot be decoded raise.
_DAMAGED = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)
# Name of an output -> (n, w) float32.
Outputs = dict[str, np.ndarray]
# Pixels of the side of the blank image.
_BLANK_SIDE = 8
_PNG_CHANNELS = 3
_DESCRIPTION = "assets.extra/model.json"  # Says what the images are; missing in older exports.


def limit_threads(threads: int) -> None:
    """Lets each operation of TensorFlow use some threads, if TensorFlow has not started yet.

    The number of threads changes the order of sums, and so the last bits of the features.
    """
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        logging.warning(
            "TensorFlow was started with another number of threads than --threads=%d, so the last "
            "bits of the results may differ from those of other processes.",
            threads,
        )


class Network:
    """A loaded SavedModel.

    Every batch has the same size, so that the result for an image does not depend on how many
    images there are. Rows that are missing, and those of damaged images, are of a blank image.
    """

    def __init__(self, folder: str, argument: str, outputs: Sequence[str], batch_size: int) -> None:
        """Loads a SavedModel.

        Args:
            folder: the SavedModel.
            argument: name of the input of its signature.
            outputs: names of the outputs that are returned.
            batch_size: b, images in a batch.
        """
        # The object keeps the weights alive, which the signature does not.
        self._loaded = tf.saved_model.load(folder)
        self._function = self._loaded.signatures[signature.NAME]
        self._argument, self._outputs, self.batch_size = argument, tuple(outputs), batch_size
        self._blank = _blank(folder)

    def apply(
        self, encoded: Sequence[bytes | None]
    ) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        """Runs the network on up to b images.

        Args:
            encoded: the content of n image files, at most b; None for one that is missing.

        Returns:
            Name of an output -> (n, w) float32; and the position of each damaged image -> why it
            cannot be decoded. The rows of damaged and of missing images mean nothing.

        Raises:
            UserError: if the batch does not fit in the memory.
        """
        images = [self._blank if content is None else content for content in encoded]
        images += [self._blank] * (self.batch_size - len(images))
        reasons: dict[int, str] = {}
        try:
            found = self._run(images)
        except _DAMAGED:
            reasons = self._reasons(images)
            if not reasons:  # So it is not the fault of an image.
                raise
            for position in reasons:
                images[position] = self._blank
            found = self._run(images)
        return {name: values[: len(encoded)] for name, values in found.items()}, reasons

    def _run(self, images: Sequence[bytes]) -> Outputs:
        try:
            found = self._function(**{self._argument: tf.constant(images, tf.string)})
        except tf.errors.ResourceExhaustedError as error:
            raise errors.UserError(
                f"A batch of {len(images):,} images does not fit in the memory "
                f"({text.reason(error)}); give a smaller --batch_size, and another --output."
            ) from error
        return {name: found[name].numpy() for name in self._outputs}

    def _reasons(self, images: Sequence[bytes]) -> dict[int, str]:
        """Returns the positions of the images that fail alone, and why."""
        reasons = {}
        for position, content in enumerate(images):
            try:
                self._run([content])
            except _DAMAGED as error:
                reasons[position] = _reason(error)
        return reasons


def _blank(folder: str) -> bytes:
    """Returns the content of a file with a blank image that a SavedModel can decode."""
    path = os.path.join(folder, _DESCRIPTION)
    described = storage.read_json(path) if tf.io.gfile.exists(path) else {}
    pixels = described.get("pixels") or {"channels": [{}] * 3, "dtype": "uint8"}
    shape = (_BLANK_SIDE, _BLANK_SIDE, len(pixels["channels"]))
    blank = np.zeros(shape, pixels["dtype"])
    if shape[-1] == _PNG_CHANNELS and pixels["dtype"] == "uint8":
        return tf.io.encode_png(blank).numpy()
    content = io.BytesIO()
    np.save(content, blank)
    return content.getvalue()


def _reason(error: tf.errors.OpError) -> str:
    """Returns what an operation in the graph says of an image, which is before its own name."""
    lines = [line.strip() for line in str(error).splitlines()]
    named = [number for number, line in enumerate(lines) if line.startswith("[[{{node")]
    if not named or not named[0]:
        return text.reason(error)
    said = re.sub(r"^\(\d+\) \w+: *", "", lines[named[0] - 1])
    # The operation is in a data set within the graph, whose stages are named first.
    said = re.sub(r"^.* with iterator: \S+: *", "", said)
    return re.sub(r"^assertion failed: \[(.*)\]$", r"\1", said).rstrip(".")
