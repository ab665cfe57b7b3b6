"""Finds which values of images become 0 and 1, and their mean, in one pass over a split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simclr_tf import errors, pixel_format, text
from simclr_tf.data import decode, iterators, sources, stored, value_counts


def measure(
    source: sources.Source,
    split: str,
    scale: str,
    *,
    percentile: float,
    standardize: bool = False,
    with_python: bool = True,
    done: Callable[[int], None] = lambda count: None,
) -> tuple[pixel_format.PixelFormat, tuple[str, ...]]:
    """Returns the format of the images with the values that become 0 and 1.

    Args:
        source: the opened data set, whose `pixels` say how to decode its images.
        split: the split; every image of it is read once.
        scale: one of `pixel_format.SCALES`; "dtype" alone needs no pass.
        percentile: with "percentile", the percentage of values that become 0, and of those that
            become 1.
        standardize: whether the format is to have the mean and the standard deviation.
        with_python: as for `stored.decode_stored`.
        done: called with the number of images that were read.

    Returns:
        The format, and sentences for the user.

    Raises:
        UserError: if the images do not suit the scale.
        tf.errors.OpError: if an image cannot be read.
    """
    counter = count(source, split, with_python=with_python, done=done)
    pixels = source.pixels
    if scale == pixel_format.NONE:
        _check_unit(pixels, counter)
        low, high = np.zeros(pixels.channels), np.ones(pixels.channels)
    elif scale == pixel_format.DTYPE:
        low, high = np.array(pixels.low), np.array(pixels.high)
    elif scale == pixel_format.MINMAX:
        low, high = counter.least, counter.greatest
    else:
        low, high = counter.percentiles(percentile), counter.percentiles(100 - percentile)
    low, high, notes = _with_range(pixels, counter, low, high)
    pixels = pixels.scaled(tuple(map(float, low)), tuple(map(float, high)), scale)
    if standardize:
        mean, deviation = counter.moments(low, high)
        deviation = np.where(deviation > 0, deviation, 1)  # Of a constant channel.
        pixels = pixels.standardized(tuple(map(float, mean)), tuple(map(float, deviation)))
    return pixels, notes


def count(
    source: sources.Source,
    split: str,
    *,
    with_python: bool = True,
    done: Callable[[int], None] = lambda count: None,
) -> value_counts.Counter:
    """Counts the values of all images of a split, see `measure`."""
    pixels = source.pixels
    counter = value_counts.Counter(pixels.channels, pixels.dtype)

    def decoded(example: dict[str, tf.Tensor]) -> tf.Tensor:
        if pixels.is_rgb:
            return decode.decode_image(example["image"], with_pillow=with_python)
        return stored.decode_stored(example["image"], pixels, with_python=with_python)

    decoded = tf.autograph.experimental.do_not_convert(decoded)
    images = source.examples(split).map(decoded, num_parallel_calls=iterators.CORES)
    for number, image in enumerate(iterators.without_tuning(images).as_numpy_iterator(), 1):
        counter.add(image)
        done(number)
    return counter


def _check_unit(pixels: pixel_format.PixelFormat, counter: value_counts.Counter) -> None:
    """Refuses values beyond [0, 1]."""
    least, greatest = counter.least.min(), counter.greatest.max()
    if least < 0 or greatest > 1:
        raise errors.ArgumentError(
            "scale",
            pixel_format.NONE,
            f"leaves values as they are, which must be from 0 to 1, and these are from {least:g} "
            f"to {greatest:g}; use percentile or minmax.",
        )


def _with_range(
    pixels: pixel_format.PixelFormat,
    counter: value_counts.Counter,
    low: np.ndarray,
    high: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Widens the range of channels in which both ends are equal, and says so."""
    empty = ~(high > low)
    if not empty.any():
        return low, high, ()
    wide = empty & (counter.greatest > counter.least)
    low = np.where(wide, counter.least, low)
    high = np.where(wide, counter.greatest, np.where(empty, low + 1, high))
    notes = []
    if wide.any():
        notes.append(
            f"Nearly all values of {_named(pixels, wide)} are equal, so the least and the greatest "
            "value become 0 and 1."
        )
    constant = empty & ~wide
    if constant.any():
        notes.append(f"All values of {_named(pixels, constant)} are equal, so they become 0.")
    return low, high, tuple(notes)


def _named(pixels: pixel_format.PixelFormat, chosen: np.ndarray) -> str:
    names = [name for name, is_chosen in zip(pixels.names, chosen, strict=True) if is_chosen]
    plural = "s" if len(names) > 1 else ""
    return f"the channel{plural} {text.shortened(names)}"
