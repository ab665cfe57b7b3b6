"""Reads by Python image files that hold arrays: .npy, .npz, TIFF and DICOM, of any depth.

These functions run in this Python process: not in a SavedModel, and not on the workers of a tf.data
service. `stored` decodes in a graph what needs no Python.
"""

from __future__ import annotations

import io
import logging
from typing import NamedTuple
import zipfile

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from simclr_tf import pixel_format, text
from simclr_tf.data import dicom, kinds, pillow

NPY, NPZ, TENSOR = "NumPy", "NumPy .npz", "serialized tensor"
_STARTS = {b"\x93NUMPY": NPY, b"PK\x03\x04": NPZ}
# The first and the third byte of a serialized tensor, before its type and its shape.
_DTYPE_TAG, _SHAPE_TAG, _TENSOR_START = 8, 18, 3
# How content begins that could not be made of files; the reason follows.
REFUSED = b"\x93REFUSED"
_RGB = pixel_format.RGB
# Kinds of images that Python reads with all of their values.
_IMAGES = (kinds.TIFF, kinds.DICOM)
# The name of the array that a .npz file has beside others.
_IMAGE = "image"
WITHOUT_TIFFFILE = (
    "the package tifffile reads, which is not installed; install it (pip install tifffile), or "
    "convert the images to .npy"
)


class Found(NamedTuple):
    """What an image file holds.

    Attributes:
        channels: number of channels.
        dtype: one of `pixel_format.DTYPES`.
        is_picture: whether it has at most four channels of 8 bits, which is usual for pictures.
    """

    channels: int
    dtype: str
    is_picture: bool = False

    def described(self) -> str:
        """Returns what the file holds, such as "13 channels of uint16"."""
        return f"{text.count(self.channels, 'channel')} of {self.dtype}"


def kind_of(content: bytes) -> str | None:
    """Returns the kind of a file of arrays, from its first bytes; None if it is none."""
    if len(content) > _TENSOR_START and content[0] == _DTYPE_TAG and content[2] == _SHAPE_TAG:
        return TENSOR
    return next((kind for start, kind in _STARTS.items() if content.startswith(start)), None)


def is_array(content: bytes) -> bool:
    """Returns whether a file is read by `read`, from its first bytes."""
    return _holds_array(content) or kinds.kind_of(content) in _IMAGES


def read(content: bytes, channels: int | None = None) -> np.ndarray:
    """Reads an image of a kind that is not decoded by TensorFlow.

    Args:
        content: the content of the file: .npy, .npz, TIFF, DICOM or a serialized tensor.
        channels: number of channels; None finds the shortest of the first and the last axis.

    Returns:
        (h, w, channels) of one of `pixel_format.DTYPES`.

    Raises:
        kinds.RefusedError: if it cannot be used.
    """
    if content.startswith(REFUSED):
        raise kinds.RefusedError(content.removeprefix(REFUSED).decode())
    kind = kind_of(content) or kinds.kind_of(content)
    if kind in _IMAGES:
        array = natural(_tiff(content) if kind == kinds.TIFF else dicom.read(content))
        if channels not in (None, array.shape[-1]):
            raise kinds.RefusedError(
                f"has {text.count(array.shape[-1], 'channel')}, and {channels} are expected"
            )
        return array
    if kind == TENSOR:
        return channels_last(natural(_tensor(content)), channels)
    if kind in (NPY, NPZ):
        return channels_last(natural(_numpy(content, kind)), channels)
    raise kinds.RefusedError(kinds.refusal(content[: kinds.HEAD], "this program"))


def found_in(content: bytes, channels: int | None = None) -> Found:
    """Returns what a file holds; a TIFF of one page of at most 4 channels of 8 bits is a picture.

    Args:
        content: the content of the file.
        channels: the channels that an array has, if both its first and its last axis may be these.

    Raises:
        kinds.RefusedError: if it cannot be used.
    """
    is_tiff = kinds.kind_of(content) == kinds.TIFF
    if is_tiff and pillow.is_picture(content):
        return Found(3, "uint8", is_picture=True)
    if is_tiff:
        channels = None  # Its axes are named.
    array = read(content, channels)
    return Found(array.shape[-1], array.dtype.name)


def decode_picture(content: bytes, max_pixels: int) -> tuple[np.ndarray, str]:
    """Decodes an image that TensorFlow does not decode to 8-bit RGB, as `pillow.decode` does.

    Arrays must be 8-bit RGB already. A TIFF of three grey pages is one, too.
    """
    if not _holds_array(content) and not _has_three_pages(content):
        return pillow.decode(content, max_pixels)
    try:
        image = read(content, _RGB.channels)
        if image.dtype != _RGB.dtype:
            raise kinds.RefusedError(f"has values of {image.dtype}, and the others are 8-bit RGB")
    except kinds.RefusedError as error:
        return np.zeros((0, 0, _RGB.channels), np.uint8), str(error)
    return np.ascontiguousarray(image), ""


def size_of_picture(content: bytes, max_pixels: int) -> tuple[np.ndarray, str]:
    """Returns (2,) int32, height and width, and "", or 0 and the reason; see `decode_picture`."""
    if not _holds_array(content) and not _has_three_pages(content):
        return pillow.size(content, max_pixels)
    image, reason = decode_picture(content, max_pixels)
    return np.array(image.shape[:2], np.int32), reason


def _has_three_pages(content: bytes) -> bool:
    """Returns whether a file is a TIFF of three grey pages of 8 bits."""
    if kinds.kind_of(content) != kinds.TIFF or pillow.is_picture(content):
        return False
    try:
        array = read(content)
    except kinds.RefusedError:
        return False
    return (array.shape[-1], array.dtype.name) == (_RGB.channels, _RGB.dtype)


def _holds_array(content: bytes) -> bool:
    return kind_of(content) is not None or content.startswith(REFUSED)


def natural(array: np.ndarray) -> np.ndarray:
    """Returns an array of one of `pixel_format.DTYPES`.

    Raises:
        kinds.RefusedError: if there is none for its type.
    """
    dtype = pixel_format.natural_dtype(array.dtype.name)
    if dtype is None:
        remedy = (
            "store the magnitude and the phase as two channels"
            if array.dtype.kind == "c"
            else "store whole numbers or float32"
        )
        raise kinds.RefusedError(f"has values of the type {array.dtype} ({remedy})")
    return array.astype(dtype, copy=False)


def channels_last(array: np.ndarray, channels: int | None) -> np.ndarray:
    """Returns an array with its channels in the last axis, (h, w, c).

    Args:
        array: (h, w), (h, w, c) or (c, h, w), with any number of axes of length 1 in front.
        channels: c; None finds the shortest of the first and the last axis.

    Raises:
        kinds.RefusedError: if it has other axes, or the two are about equally long.
    """
    shape = array.shape
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[..., np.newaxis]
    if array.ndim != 3 or 0 in array.shape:
        raise kinds.RefusedError(
            f"has the shape {shape}; an image has height, width and channels, in this order or "
            "with the channels first"
        )
    first, _, last = array.shape
    wanted = channels
    if wanted is None:
        wanted = min(first, last)
        if 2 * wanted > max(first, last):
            raise kinds.RefusedError(
                f"has the shape {shape}, so that it is not clear whether it has {last} or {first} "
                f"channels; say it, as in --channels={last}"
            )
    if last == wanted:
        return array
    if first == wanted:
        return np.moveaxis(array, 0, -1)
    raise kinds.RefusedError(f"has the shape {shape}, and {wanted} channels are expected")


def _numpy(content: bytes, kind: str) -> np.ndarray:
    try:
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        if kind == NPY:
            return loaded
        with loaded:
            names = loaded.files
            if _IMAGE not in names and len(names) != 1:
                listed = text.shortened(names) or "none"
                raise kinds.RefusedError(
                    f"holds {len(names)} arrays ({listed}); name the image {_IMAGE!r}, or store it "
                    "alone"
                )
            return loaded[_IMAGE if _IMAGE in names else names[0]]
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise kinds.RefusedError(
            f"is a {kind} file that cannot be read ({text.reason(error)})"
        ) from error


def _tensor(content: bytes) -> np.ndarray:
    """Returns what `tf.io.serialize_tensor` has serialized."""
    try:
        return tf.make_ndarray(tensor_pb2.TensorProto.FromString(content))
    except Exception as error:  # Parsing and reshaping raise several kinds of errors.
        raise kinds.RefusedError("is a serialized tensor that is damaged") from error


def _tiff(content: bytes) -> np.ndarray:
    """Returns (h, w, c) of the first series of a TIFF: pages and samples become channels."""
    try:
        import tifffile  # Of an extra; only some images need it.
    except ImportError as error:
        raise kinds.RefusedError(f"is a TIFF image that {WITHOUT_TIFFFILE}") from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # What it logs is also raised.
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            series = file.series[0]
            array = series.asarray()
            axes = series.axes
    except Exception as error:  # tifffile may raise anything on damaged files.
        raise kinds.RefusedError(
            f"is a TIFF image that tifffile cannot read ({text.reason(error)})"
        ) from error
    if "Y" not in axes or "X" not in axes:
        raise kinds.RefusedError(f"is a TIFF image without height and width (its axes are {axes})")
    if array.size == 0:
        raise kinds.RefusedError(
            f"is a TIFF image without pixels (its axes {axes} are {array.shape})"
        )
    y, x = axes.index("Y"), axes.index("X")
    array = np.moveaxis(array, (y, x), (-2, -1))
    return np.moveaxis(array.reshape(-1, *array.shape[-2:]), 0, -1)  # (h, w, c)
