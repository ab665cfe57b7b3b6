"""Applies the signature of a SavedModel to encoded images, in batches of one size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import io
import logging
import os
import re
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import errors, storage, text
from simclr_tf.bulk import signature
from simclr_tf.data import array_files, kinds

# What images that cannot be decoded raise.
_DAMAGED = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)
# Name of an output -> (n, w) float32.
Outputs = dict[str, np.ndarray]
# Pixels of the side of the blank image.
_BLANK_SIDE = 8
_PNG_CHANNELS = 3
# Kinds of arrays that a SavedModel decodes.
_DECODED = (array_files.NPY, array_files.TENSOR)
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
        pixels = _pixels(folder)
        self._blank = _blank(pixels)
        # The channels of images that are not pictures; Python reads what TensorFlow does not.
        self._channels = None if _are_pictures(pixels) else len(pixels["channels"])

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
        reasons: dict[int, str] = {}
        images = []
        for position, content in enumerate(encoded):
            try:
                images.append(self._blank if content is None else self._decodable(content))
            except kinds.RefusedError as error:
                images.append(self._blank)
                reasons[position] = f"The image {error}"
        images += [self._blank] * (self.batch_size - len(images))
        try:
            found = self._run(images)
        except _DAMAGED:
            damaged = self._reasons(images)
            if not damaged:  # So it is not the fault of an image.
                raise
            for position in damaged:
                images[position] = self._blank
            reasons |= damaged
            found = self._run(images)
        return {name: values[: len(encoded)] for name, values in found.items()}, reasons

    def _decodable(self, content: bytes) -> bytes:
        """Returns the content of a file that the SavedModel decodes, if it can be read at all.

        Raises:
            kinds.RefusedError: if it is one for Python, and cannot be read.
        """
        if self._channels is None or not array_files.is_array(content):
            return content
        if array_files.kind_of(content) in _DECODED:
            return content
        return _npy(array_files.read(content, self._channels))

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


def _pixels(folder: str) -> dict[str, Any]:
    """Returns what a SavedModel says of its images; exports that do not are for pictures."""
    path = os.path.join(folder, _DESCRIPTION)
    described = storage.read_json(path) if tf.io.gfile.exists(path) else {}
    return described.get("pixels") or {"channels": [{}] * 3, "dtype": "uint8"}


def _are_pictures(pixels: Mapping[str, Any]) -> bool:
    return (len(pixels["channels"]), pixels["dtype"]) == (_PNG_CHANNELS, "uint8")


def _blank(pixels: Mapping[str, Any]) -> bytes:
    """Returns the content of a file with a blank image that a SavedModel can decode."""
    shape = (_BLANK_SIDE, _BLANK_SIDE, len(pixels["channels"]))
    blank = np.zeros(shape, pixels["dtype"])
    return tf.io.encode_png(blank).numpy() if _are_pictures(pixels) else _npy(blank)


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(array))
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
