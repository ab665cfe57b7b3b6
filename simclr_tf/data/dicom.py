"""Reads DICOM images by pydicom: one grey frame, in the units that its file says.

Of a file only what the pixels need is kept, see `_TAGS`: nothing about the patient or the study.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from simclr_tf import text
from simclr_tf.data import kinds

WITHOUT_PYDICOM = (
    "the package pydicom reads, which is not installed; install it (pip install pydicom), or "
    "convert the images to .npy"
)
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
_TAGS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration"),
    *("PhotometricInterpretation", "PixelRepresentation"),
    *("BitsAllocated", "BitsStored", "HighBit"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *_GROUPS,
    *_PIXELS,
)
_INVERTED = "MONOCHROME1"
_GREY = (_INVERTED, "MONOCHROME2")


def read(content: bytes) -> np.ndarray:
    """Reads the image of a DICOM file.

    The rescale, or the table, from stored values to those of the modality is applied, such as that
    to Hounsfield units. The window, which is for the eye, is not. Where low values are bright
    (MONOCHROME1) the values are mirrored within their range. Padding becomes the least value of the
    image.

    Args:
        content: the content of the file.

    Returns:
        (h, w, 1) float32.

    Raises:
        kinds.RefusedError: if it cannot be used.
    """
    try:
        import pydicom  # Of an extra; only some images need it.
        from pydicom import pixels
    except ImportError as error:
        raise kinds.RefusedError(f"is a DICOM image that {WITHOUT_PYDICOM}") from error
    try:
        dataset = pydicom.dcmread(io.BytesIO(content), specific_tags=list(_TAGS))
        _check(dataset, pixels)
        stored = np.asarray(dataset.pixel_array)
        transform = _transform(dataset)
        values = np.asarray(pixels.apply_modality_lut(stored, transform), np.float32)
        if dataset.PhotometricInterpretation == _INVERTED:
            ends = pixels.apply_modality_lut(_ends(dataset, stored.dtype), transform)
            values = np.float32(np.sum(ends, dtype=np.float64)) - values
        is_padding = _padding(dataset, stored)
    except kinds.RefusedError:
        raise
    except Exception as error:  # pydicom may raise anything on damaged files.
        raise kinds.RefusedError(
            f"is a DICOM file that pydicom cannot read ({text.reason(error)})"
        ) from error
    if is_padding.any() and not is_padding.all():
        values = np.where(is_padding, values[~is_padding].min(), values)
    return values[..., np.newaxis]


def _check(dataset: Any, pixels: Any) -> None:
    """Refuses what is not one grey frame, or cannot be decompressed."""
    if not any(name in dataset for name in _PIXELS):
        raise kinds.RefusedError("is a DICOM file without an image; leave it out")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise kinds.RefusedError(
            f"is a DICOM file of {frames:,} frames; store each as an image, such as .npy"
        )
    colours = dataset.PhotometricInterpretation
    if colours not in _GREY:
        raise kinds.RefusedError(
            f"is a DICOM image in colour ({colours}), of which only grey ones are read; convert it "
            "to PNG"
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    try:
        is_available = pixels.get_decoder(syntax).is_available
    except NotImplementedError as error:
        raise kinds.RefusedError(
            f"is a DICOM image compressed as {syntax.name}, which pydicom cannot decode; convert "
            "it to .npy"
        ) from error
    if not is_available:
        raise kinds.RefusedError(
            f"is a DICOM image compressed as {syntax.name}, for which pydicom needs more packages; "
            "install them (pip install 'pylibjpeg[all]'), or decompress the images"
        )


def _transform(dataset: Any) -> Any:
    """Returns what has the rescale of a file: of the enhanced kinds an item of its groups."""
    for name in _GROUPS:
        for group in dataset.get(name) or ():
            for item in group.get("PixelValueTransformationSequence") or ():
                return item
    return dataset


def _ends(dataset: Any, dtype: np.dtype) -> np.ndarray:
    """Returns (2,) the least and the greatest value that a file can store."""
    bits = int(dataset.get("BitsStored") or 0)
    if dtype.kind == "i":
        return np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1], dtype)
    return np.array([0, 2**bits - 1], dtype)


def _padding(dataset: Any, stored: np.ndarray) -> np.ndarray:
    """Returns (h, w) bool, which pixels only fill the image."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, bool)
    last = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((first, first if last is None else last))
    return (stored >= low) & (stored <= high)
