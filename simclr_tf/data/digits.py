"""A data set that needs no download: handwritten digits, rotated, moved and coloured.

scikit-learn includes 1,797 handwritten digits of 8 by 8 pixels (Alpaydin and Kaynak 1998). Each is
painted several times onto a frame of 28 by 28 pixels: 16 to 24 pixels wide, rotated by up to 15
degrees, at a random position, in a light colour on a dark one. Position and colour are independent
of the class, so a classifier of raw pixels does badly, and a representation that has learned to
ignore position and colour does well.

Importing this module makes the data set known to tensorflow-datasets as `digits`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

SIDE = 28
SPLITS = {"train": 6_000, "test": 1_500}
SCALE_RANGE = (2.0, 3.0)  # a digit of 8 pixels becomes 16 to 24 wide
MAX_TURN = np.deg2rad(15.0)
# Part of the data set's definition, whatever the seed of a run.
_SEED = 1998
_TRAIN_FRACTION = 0.8
_DARK = (0, 60)
_LIGHT = (170, 256)
_NOISE = 6.0  # standard deviation, of 255
_CHUNK = 100


class Digits(tfds.core.GeneratorBasedBuilder):
    """Builder of the `digits` data set for tensorflow-datasets.

    An example has `image` (28, 28, 3), `label` 0 to 9, and `digit_index`, which of
    scikit-learn's 1,797 digits was painted. No digit is in both splits.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "6,000 training and 1,500 test images."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                    "digit_index": tfds.features.Scalar(dtype=np.int64),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://scikit-learn.org/stable/datasets/toy_dataset.html#digits-dataset",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # There is nothing to download.
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        # Imported here because only the first run needs it.
        from sklearn import datasets

        digits = datasets.load_digits()
        rng = np.random.default_rng([_SEED, list(SPLITS).index(split)])
        chosen = np.resize(_digits_of(split, digits.target), SPLITS[split])
        for start in range(0, len(chosen), _CHUNK):
            indices = chosen[start : start + _CHUNK]
            images = paint(digits.images[indices] / 16.0, rng)
            for offset, (index, image) in enumerate(zip(indices, images)):
                label = int(digits.target[index])
                yield start + offset, {"image": image, "label": label, "digit_index": int(index)}


def _digits_of(split: str, labels: np.ndarray) -> np.ndarray:
    """Returns shuffled indices of the digits of a split: 4 in 5 of each class are for training."""
    rng = np.random.default_rng(_SEED)
    chosen = []
    for label in np.unique(labels):
        indices = rng.permutation(np.flatnonzero(labels == label))
        cut = round(_TRAIN_FRACTION * len(indices))
        chosen.append(indices[:cut] if split == "train" else indices[cut:])
    return rng.permutation(np.concatenate(chosen))


def paint(digits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paints each digit onto a frame of its own, at a random position, size, angle and colour.

    Args:
        digits: (b, 8, 8) floats, the ink of each pixel, in [0, 1].
        rng: the source of randomness.

    Returns:
        (b, 28, 28, 3) uint8 images.
    """
    b = len(digits)
    scale = rng.uniform(*SCALE_RANGE, b)
    turn = rng.uniform(-MAX_TURN, MAX_TURN, b)
    # The outer half pixel of a digit, which is nearly always blank, may exceed the frame.
    margin = scale[:, None] * (digits.shape[1] - 0.5) / 2
    centre = rng.uniform(margin, SIDE - margin, (b, 2))
    ink = _place(digits, scale=scale, turn=turn, centre=centre)[..., None]  # (b, h, w, 1)
    dark = rng.uniform(*_DARK, (b, 1, 1, 3))
    light = rng.uniform(*_LIGHT, (b, 1, 1, 3))
    images = dark + ink * (light - dark) + rng.normal(0.0, _NOISE, (b, SIDE, SIDE, 3))
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)  # (b, h, w, 3)


def _place(
    digits: np.ndarray, *, scale: np.ndarray, turn: np.ndarray, centre: np.ndarray
) -> np.ndarray:
    """Enlarges, rotates and moves each digit, with bicubic interpolation.

    Args:
        digits: (b, n, n) ink.
        scale: (b,) pixels of the frame per pixel of the digit; above 1, so there is no aliasing.
        turn: (b,) radians.
        centre: (b, 2) the digit's centre in the frame, (row, column).

    Returns:
        (b, 28, 28) ink in [0, 1].
    """
    n = digits.shape[1]
    pixel = np.arange(SIDE) + 0.5
    y = pixel[None, :, None] - centre[:, 0, None, None]  # (b, h, 1)
    x = pixel[None, None, :] - centre[:, 1, None, None]  # (b, 1, w)
    cos = (np.cos(turn) / scale)[:, None, None]
    sin = (np.sin(turn) / scale)[:, None, None]
    rows = _cubic_weights(cos * y - sin * x + (n - 1) / 2, n)  # (b, h, w, n)
    columns = _cubic_weights(sin * y + cos * x + (n - 1) / 2, n)  # (b, h, w, n)
    across = np.matmul(columns.reshape(len(digits), -1, n), digits.transpose(0, 2, 1))
    ink = np.sum(across.reshape(rows.shape) * rows, axis=-1)  # (b, h, w)
    return np.clip(ink, 0.0, 1.0)


def _cubic_weights(position: np.ndarray, n: int) -> np.ndarray:
    """Returns the (..., n) weights of n samples at each position (Keys 1981, a = -1/2)."""
    t = np.abs(position[..., None] - np.arange(n))
    near = (1.5 * t - 2.5) * t * t + 1.0
    far = ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
    return np.where(t < 1.0, near, np.where(t < 2.0, far, 0.0))
