"""Says in a bundle what is done to images before the network sees them."""

from __future__ import annotations

from typing import Any

from simclr_tf import pixel_format
from simclr_tf.data import crops
from simclr_tf.models import simclr
from simclr_tf.serving import forms

_STANDARDIZED = (
    " The network itself then subtracts the mean of each channel, and divides by its standard "
    "deviation (see pixels)."
)


def pixels_of(pixels: pixel_format.PixelFormat) -> dict[str, Any]:
    """Returns the channels of images in their order, and the values of each that become 0 and 1."""
    return {
        "dtype": pixels.dtype,
        "scale": pixels.scale,
        "channels": [
            {"name": name, "becomes_0": low, "becomes_1": high}
            for name, low, high in zip(pixels.names, pixels.low, pixels.high, strict=True)
        ],
        **({"mean": pixels.mean, "deviation": pixels.deviation} if pixels.is_standardized else {}),
    }


def describe(architecture: simclr.Architecture, form: forms.Form) -> dict[str, Any]:
    """Returns, in numbers and words, what is done to an image before the network sees it."""
    size, pixels = architecture.image_size, architecture.pixels
    kept = crops.evaluation_crop(size)
    share = "the shorter side" if kept == 1 else f"{kept} of the shorter side"
    who = "The program that calls the network does this."
    if form.format == "serving":
        who = "All signatures do this themselves, except for `prepared`, which takes the result."
    return {
        "colours": "RGB" if pixels.is_rgb else ", ".join(pixels.names),
        "range": [0.0, 1.0],
        "crop": kept,
        "resize": "bicubic",
        "size": [size, size],
        "description": (
            f"{_values(pixels)} The square in the centre of "
            f"an image, with {share} as its side, is kept and resized to {size} x {size} pixels by "
            "TensorFlow's bicubic kernel without antialiasing; results are clipped to [0, 1]. "
            f"Encoded photos are turned upright by their EXIF orientation first. {who}"
            f"{_STANDARDIZED if pixels.is_standardized else ''}"
        ),
    }


def _values(pixels: pixel_format.PixelFormat) -> str:
    if pixels.is_rgb:
        return "Values are RGB from 0 to 1, 8-bit ones divided by 255."
    return (
        f"Images have {pixels.described()} ({', '.join(pixels.names)}), in the units of the "
        "training images: of each channel the value becomes_0 becomes 0, becomes_1 becomes 1, "
        "linearly between, and what is beyond is clipped (see pixels)."
    )
