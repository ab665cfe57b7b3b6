"""What the pixels of images are: how many channels, of which type, and which values become 0 and 1.

It is found once, from the training images, stored in architecture.json, and read wherever an image
is decoded: in training, evaluation, embedding and serving.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from simclr_tf import text

# What an image is kept in; other types become one of these, see `natural_dtype`.
DTYPES = ("uint8", "uint16", "int16", "float32")
# What types of arrays are kept in. Integers of more than 24 bits are rounded to float32.
_NATURAL = {
    **{name: name for name in DTYPES},
    "bool": "uint8",
    "int8": "int16",
    **dict.fromkeys(("float16", "float64", "int32", "uint32", "int64", "uint64"), "float32"),
}
# The lowest and the highest value of a type; of floats, those of images from 0 to 1.
_RANGES = {
    "uint8": (0.0, 255.0),
    "uint16": (0.0, 65535.0),
    "int16": (-32768.0, 32767.0),
    "float32": (0.0, 1.0),
}
MAX_CHANNELS = 1024
# How the values that become 0 and 1 are found.
PERCENTILE, MINMAX, DTYPE, NONE = "percentile", "minmax", "dtype", "none"
SCALES = (PERCENTILE, MINMAX, DTYPE, NONE)


@dataclasses.dataclass(frozen=True)
class PixelFormat:
    """The pixels of the images of a run. Without arguments: red, green and blue of 8 bits.

    Attributes:
        channels: c, number of channels.
        dtype: what decoded pixels are kept in, one of DTYPES.
        low: (c,) value of each channel that becomes 0; lower ones do, too.
        high: (c,) value of each channel that becomes 1; higher ones do, too.
        names: (c,) names of the channels, in their order.
        scale: how `low` and `high` were found, one of SCALES.
        mean: (c,) mean of each channel of the training images after the scale; None if networks
            take values from 0 to 1.
        deviation: (c,) its standard deviation, by which networks divide the difference to the mean.
    """

    channels: int = 3
    dtype: str = "uint8"
    low: tuple[float, ...] = (0.0, 0.0, 0.0)
    high: tuple[float, ...] = (255.0, 255.0, 255.0)
    names: tuple[str, ...] = ("red", "green", "blue")
    scale: str = DTYPE
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None

    @property
    def is_rgb(self) -> bool:
        """Whether these are pictures, which are decoded to 8-bit RGB whatever their files have."""
        full = (self.channels, self.dtype, self.low, self.high)
        return full == (RGB.channels, RGB.dtype, RGB.low, RGB.high)

    @property
    def has_colour(self) -> bool:
        """Whether the channels are red, green and blue, which operations on colours need."""
        return self.channels == RGB.channels

    def described(self) -> str:
        """Returns what the pixels are, such as "13 channels of uint16"."""
        return f"{text.count(self.channels, 'channel')} of {self.dtype}"

    @property
    def has_names(self) -> bool:
        """Whether the channels have names, and not only numbers."""
        return self.names != tuple(map(str, range(self.channels)))

    def ranges(self, most: int) -> str:
        """Returns which values become 0 and 1, of the first channels.

        Args:
            most: number of channels that are listed; the others are counted.
        """
        prefix = "" if self.has_names else "channel "
        listed = [
            f"{prefix}{name} from {low:.6g} to {high:.6g}"
            for name, low, high in zip(self.names, self.low, self.high, strict=True)
        ]
        more = len(listed) - most
        return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")

    def scaled(self, low: tuple[float, ...], high: tuple[float, ...], scale: str) -> PixelFormat:
        """Returns the format with other values that become 0 and 1."""
        return dataclasses.replace(self, low=low, high=high, scale=scale)

    @property
    def is_standardized(self) -> bool:
        """Whether networks subtract a mean and divide by a standard deviation."""
        return self.mean is not None

    def standardized(self, mean: tuple[float, ...], deviation: tuple[float, ...]) -> PixelFormat:
        """Returns the format whose channels networks standardize."""
        return dataclasses.replace(self, mean=mean, deviation=deviation)

    def with_names(self, names: tuple[str, ...]) -> PixelFormat:
        """Returns the format with other names of the channels."""
        return dataclasses.replace(self, names=names)

    def same_pixels(self, other: PixelFormat) -> bool:
        """Returns whether images of both have equally many channels of one type."""
        return (self.channels, self.dtype) == (other.channels, other.dtype)


RGB = PixelFormat()


def of_dtype(channels: int, dtype: str) -> PixelFormat:
    """Returns a format whose whole range of values becomes [0, 1].

    Args:
        channels: number of channels.
        dtype: one of DTYPES.
    """
    low, high = _RANGES[dtype]
    names = RGB.names if channels == RGB.channels else tuple(map(str, range(channels)))
    return PixelFormat(channels, dtype, channels * (low,), channels * (high,), names)


def natural_dtype(dtype: str) -> str | None:
    """Returns what arrays of a type of NumPy are kept in; None if they cannot be images."""
    return _NATURAL.get(dtype)


def from_json(stored: Mapping[str, Any]) -> PixelFormat:
    """Returns the format that `dataclasses.asdict` made a dictionary of.

    Raises:
        TypeError: if it is not one.
        ValueError: if its lists have not one entry for each channel.
    """
    lists = {name: tuple(stored[name]) for name in ("low", "high", "names")}
    if stored.get("mean") is not None:  # Older versions did not store it.
        lists |= {name: tuple(stored[name]) for name in ("mean", "deviation")}
    found = PixelFormat(**{**stored, **lists})
    if found.dtype not in DTYPES or {len(x) for x in lists.values()} != {found.channels}:
        raise ValueError(f"pixels of {found.channels} channels of {found.dtype}")
    return found
