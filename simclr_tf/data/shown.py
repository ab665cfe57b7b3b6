"""Draws images of any number of channels: three of them as red, green and blue, or one as grey."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import tensorflow as tf

from simclr_tf import errors, pixel_format, text

# The setting by which pictures of views show each channel by itself.
EACH = "each"
_Images = TypeVar("_Images", np.ndarray, tf.Tensor)


def choose(pixels: pixel_format.PixelFormat, wanted: str | None) -> tuple[int, ...]:
    """Returns the numbers of the channels to draw: three, or one.

    Args:
        pixels: the pixels of the images.
        wanted: --show_channels: one or three numbers, counted from 0, or names of channels; "each"
            stands for the first where one picture is drawn. None: red, green and blue, if there are
            channels of these names, or the first one.

    Raises:
        ArgumentError: if there are no such channels.
    """
    if wanted is None or wanted == EACH:
        names = pixels.names
        if wanted is None and set(pixel_format.RGB.names) <= set(names):
            return tuple(names.index(name) for name in pixel_format.RGB.names)
        return (0, 1, 2) if wanted is None and pixels.channels == 3 else (0,)
    given = text.listed(wanted)
    numbers = [_number(pixels, wanted, name) for name in given]
    if len(numbers) not in (1, 3):
        raise errors.ArgumentError(
            "show_channels",
            wanted,
            f"names {text.count(len(numbers), 'channel')}; name three, which are drawn as red, "
            f"green and blue, one, which is drawn grey, or {EACH}.",
        )
    return tuple(numbers)


def _number(pixels: pixel_format.PixelFormat, wanted: str, name: str) -> int:
    if name in pixels.names:
        return pixels.names.index(name)
    if name.isdecimal() and int(name) < pixels.channels:
        return int(name)
    named = any(not one.isdecimal() for one in pixels.names)
    has = f" ({text.shortened(pixels.names, most=16)})" if named else ""
    raise errors.ArgumentError(
        "show_channels",
        wanted,
        f"names {name!r}, and the channels are 0 to {pixels.channels - 1}{has}.",
    )


def as_rgb(images: _Images, channels: tuple[int, ...]) -> _Images:
    """Returns images (..., c) with the channels drawn as red, green and blue, (..., 3).

    Args:
        images: of NumPy or TensorFlow.
        channels: from `choose`.
    """
    if channels == (0, 1, 2) and images.shape[-1] == 3:
        return images
    drawn = 3 * channels if len(channels) == 1 else channels
    if isinstance(images, np.ndarray):
        return images[..., list(drawn)]
    return tf.gather(images, drawn, axis=-1)


def rows_of_views(
    views: np.ndarray, pixels: pixel_format.PixelFormat, wanted: str | None
) -> list[tuple[str, np.ndarray]]:
    """Returns the rows of a contact sheet for views (v, n, s, s, c), see `rows`."""
    return [
        row
        for number, images in enumerate(views, 1)
        for row in rows(f"view {number} of each image", images, pixels, wanted)
    ]


def rows(
    caption: str, images: np.ndarray, pixels: pixel_format.PixelFormat, wanted: str | None
) -> list[tuple[str, np.ndarray]]:
    """Returns the rows of a contact sheet for some images: one, or with "each" one per channel.

    Args:
        caption: what the images are.
        images: (n, s, s, c) in [0, 1].
        pixels: their pixels.
        wanted: --show_channels, see `choose`.

    Returns:
        A caption and (n, s, s, 3) for each row.
    """
    if wanted == EACH:
        return [
            (f"{caption}; channel {name}", as_rgb(images, (number,)))
            for number, name in enumerate(pixels.names)
        ]
    channels = choose(pixels, wanted)
    return [(with_channels(caption, in_words(pixels, channels)), as_rgb(images, channels))]


def with_channels(caption: str, drawn: str) -> str:
    """Returns a caption that also says which channels are drawn, see `in_words`."""
    return "; ".join(filter(None, [caption, drawn]))


def in_words(pixels: pixel_format.PixelFormat, channels: tuple[int, ...]) -> str:
    """Returns which channels are drawn; "" of pictures.

    Args:
        pixels: the pixels of the images.
        channels: from `choose`.
    """
    if pixels.has_colour and channels == (0, 1, 2):
        return ""
    names = ", ".join(pixels.names[number] for number in channels)
    if len(channels) == 1:
        return f"channel {names} as grey"
    return f"channels {names} as red, green and blue"
