"""The weights of a stem for images of other channels than those that it was trained on."""

from __future__ import annotations

import math

import numpy as np


def repeated(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Repeats the weights of a convolution over its channels, and rescales them.

    For one channel they are added up, as if the image came in all of the channels. Otherwise
    channel i has the weights of channel i modulo k, times k / c, so that activations keep their
    size.

    Args:
        kernel: (h, w, k, f).
        channels: c, number of channels.

    Returns:
        (h, w, c, f).
    """
    known = kernel.shape[2]
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    copies = np.tile(kernel, (1, 1, math.ceil(channels / known), 1))
    return copies[:, :, :channels] * (known / channels)


def in_words(known: int, channels: int) -> str:
    """Returns what `repeated` does to the weights of some channels, for others."""
    if channels == 1:
        return f"the weights of {known} channels were added up for 1"
    taken = f"{known} channels were repeated"
    if channels < known:
        taken = f"the first {channels} of {known} channels were taken, the others left out,"
    return f"the weights of {taken} and scaled by {known}/{channels} for {channels}"


def averaging(channels: int, outputs: int) -> np.ndarray:
    """Returns weights by which each output is the mean of its share of the channels.

    The channels, in their order, are cut into as many equal pieces as there are outputs. A channel
    of which only a part is in a piece counts by that part. So values stay within their range, and
    neighbours, such as bands of near wavelengths, are averaged.

    Args:
        channels: c, number of channels.
        outputs: f, number of outputs.

    Returns:
        (c, f) float64, whose columns add up to 1.
    """
    edges = np.linspace(0, channels, outputs + 1)
    channel = np.arange(channels)[:, np.newaxis]
    shared = np.minimum(edges[1:], channel + 1) - np.maximum(edges[:-1], channel)
    return np.maximum(shared, 0) * (outputs / channels)
