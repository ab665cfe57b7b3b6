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
