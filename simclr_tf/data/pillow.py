"""Decodes by Pillow what TensorFlow does not decode: WebP, TIFF, AVIF and rare kinds of BMP.

These functions run in this Python process, through `tf.numpy_function`: not in a SavedModel, and
not on the workers of a tf.data service. They do not raise, but return why an image cannot be used.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError, features

from simclr_tf import text
from simclr_tf.data import exif, kinds

# By kind: the name of the format in Pillow, and the optional library that Pillow needs for it.
_FORMATS = {
    kinds.WEBP: ("WEBP", "webp"),
    kinds.TIFF: ("TIFF", None),
    kinds.AVIF: ("AVIF", "avif"),
    kinds.HEIC: ("HEIF", None),  # A plugin for Pillow may register it.
    kinds.JPEG_2000: ("JPEG2000", "jpg_2000"),
    kinds.BMP: ("BMP", None),
}
# Modes without a defined range of values.
_NO_RANGE = ("I", "F")
# Modes of pictures of 8 bits or less.
_PICTURES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")
_ANY_SIZE = 2**62
# What Pillow warns of is either an error too, or does not concern the pixels.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(encoded: bytes, max_pixels: int) -> tuple[np.ndarray, str]:
    """Decodes an image to RGB, turned upright, as `decode.decode_image` does.

    Args:
        encoded: the content of the file.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        (h, w, 3) uint8 and "", or an empty array and why the image cannot be used, as the rest of
        a sentence.
    """
    try:
        with _open(encoded, max_pixels) as image:
            return np.ascontiguousarray(_rgb(ImageOps.exif_transpose(image))), ""
    except Exception as error:  # Pillow may raise anything on damaged files.
        return np.zeros((0, 0, 3), np.uint8), _reason(encoded, max_pixels, error)


def size(encoded: bytes, max_pixels: int) -> tuple[np.ndarray, str]:
    """Returns (2,) int32, the height and width of the upright image, and "", or 0 and the reason.

    Args:
        encoded: the content of the file.
        max_pixels: larger images are refused.
    """
    try:
        with _open(encoded, max_pixels) as image:
            if image.getexif().get(exif.TAG, 1) in (5, 6, 7, 8):
                # Whether the size is that of the upright image depends on the kind and on Pillow.
                image = ImageOps.exif_transpose(image)
            return np.array([image.height, image.width], np.int32), ""
    except Exception as error:  # Pillow may raise anything on damaged files.
        return np.zeros(2, np.int32), _reason(encoded, max_pixels, error)


def sixteen_bit_samples(encoded: bytes, max_pixels: int) -> np.ndarray | None:
    """Returns the samples of a grey 16-bit image; None if it is another one, or unreadable."""
    try:
        with _open(encoded, max_pixels) as image:
            return np.asarray(image) if image.mode.startswith("I;16") else None
    except Exception:  # Pillow may raise anything on damaged files.
        return None


def is_picture(encoded: bytes) -> bool:
    """Returns whether an image has one page of at most four channels of 8 bits."""
    try:
        with _open(encoded, _ANY_SIZE) as image:
            return image.mode in _PICTURES and getattr(image, "n_frames", 1) == 1
    except Exception:  # Pillow may raise anything on files that it does not read.
        return False


def _open(encoded: bytes, max_pixels: int) -> Image.Image:
    """Opens an image, of which it reads the header only."""
    kind = kinds.kind_of(encoded)
    if kind not in _FORMATS:
        raise kinds.RefusedError(kinds.refusal(encoded, "this program"))
    name, library = _FORMATS[kind]
    Image.init()
    if name not in Image.OPEN or (library and library not in features.get_supported()):
        raise kinds.RefusedError(kinds.refusal(encoded, f"Pillow {PIL.__version__}"))
    image = Image.open(io.BytesIO(encoded), formats=[name])
    if image.width * image.height > max_pixels:
        raise Image.DecompressionBombError
    return image


def _rgb(image: Image.Image) -> np.ndarray:
    """Returns (h, w, 3) uint8: without alpha, and with the upper byte of 16-bit samples."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if image.mode in _NO_RANGE:
        raise kinds.RefusedError(
            "has samples of 32 bits, whose range is not known (convert it to 8 or 16 bits)"
        )
    if image.mode in ("RGBa", "La"):  # Their colours are multiplied by alpha.
        image = image.convert(image.mode.upper())
    return np.asarray(image.convert("RGB"))


def _reason(encoded: bytes, max_pixels: int, error: Exception) -> str:
    """Returns why an image could not be decoded, as the rest of a sentence."""
    if isinstance(error, kinds.RefusedError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {max_pixels:,} pixels"
    if isinstance(error, UnidentifiedImageError):
        why = "its header is corrupt, or it is of a rare variant"
    else:
        why = text.reason(error)
    return f"is a {kinds.kind_of(encoded)} image that Pillow cannot read ({why})"
