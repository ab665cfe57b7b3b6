"""Counts the values of each channel of images that pass by, and finds percentiles of them.

Whole numbers of at most 16 bits are counted one by one, so that percentiles are exact. Values of
float32 are counted in bins of 2^-9 of their size (2^-7 if there are very many channels), within
which percentiles are interpolated; the least and the greatest value are exact. The order of the
images does not matter.
"""

from __future__ import annotations

import numpy as np

# Of the 32 bits of a float, those that number its bin: the sign, the exponent and 9 bits of the
# fraction, or 7 where counts would take more than 256 MiB.
_BIN_BITS, _FEWER_BITS, _MANY_CHANNELS = 18, 16, 128
# Pixels that are counted together, and the most values.
_PIXELS, _VALUES = 2**18, 2**24


class Counter:
    """Counts of the values of each channel."""

    def __init__(self, channels: int, dtype: str) -> None:
        """Begins with no images.

        Args:
            channels: c.
            dtype: type of the values, one of `pixel_format.DTYPES`.
        """
        self._dtype = np.dtype(dtype)
        bits = 8 * self._dtype.itemsize
        if self._dtype.kind == "f":
            bits = _BIN_BITS if channels <= _MANY_CHANNELS else _FEWER_BITS
        self._bits = bits
        self._counts = np.zeros((channels, 2**bits), np.int64)
        self._pending: list[np.ndarray] = []
        self.least = np.full(channels, np.inf)
        self.greatest = np.full(channels, -np.inf)

    def add(self, images: np.ndarray) -> None:
        """Counts the values of images (..., c)."""
        values = images.reshape(-1, images.shape[-1])
        self.least = np.minimum(self.least, values.min(axis=0))
        self.greatest = np.maximum(self.greatest, values.max(axis=0))
        self._pending.append(values)
        pixels = sum(map(len, self._pending))
        if pixels >= _PIXELS or pixels * values.shape[1] >= _VALUES:
            self._count()

    def _count(self) -> None:
        """Counts what was added since the last time; one image at a time would take longer."""
        if not self._pending:
            return
        values = np.concatenate(self._pending)
        self._pending = []
        for channel, counts in enumerate(self._counts):
            counts += np.bincount(self._bins(values[:, channel]), minlength=len(counts))

    def percentiles(self, percent: float) -> np.ndarray:
        """Returns (c,) the value of each channel below which a percentage of the values is.

        As by `numpy.percentile` and its linear method.
        """
        self._count()
        return np.array([self._percentile(channel, percent) for channel in range(len(self.least))])

    def moments(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (c,) the mean and the standard deviation of each channel after the scale.

        Values of float32 count as the middle of their bin.

        Args:
            low: (c,) values that become 0; lower ones do, too.
            high: (c,) values that become 1; higher ones do, too.
        """
        self._count()
        found = []
        for counts, least, greatest in zip(self._counts, low, high, strict=True):
            bins = np.flatnonzero(counts)
            scaled = np.clip((self._middles(bins) - least) / (greatest - least), 0, 1)
            mean = np.average(scaled, weights=counts[bins])
            variance = np.average((scaled - mean) ** 2, weights=counts[bins])
            found.append((mean, np.sqrt(variance)))
        means, deviations = np.array(found).T
        return means, deviations

    def _middles(self, bins: np.ndarray) -> np.ndarray:
        """Returns the value in the middle of each bin."""
        if self._dtype.kind != "f":
            return bins + float(np.iinfo(self._dtype).min)
        return np.array([(self._edge(one) + self._edge(one + 1)) / 2 for one in bins.tolist()])

    def _percentile(self, channel: int, percent: float) -> float:
        ends = np.cumsum(self._counts[channel])
        rank = (ends[-1] - 1) * percent / 100
        below, above = (
            self._value(channel, ends, int(at)) for at in (np.floor(rank), np.ceil(rank))
        )
        found = below + (above - below) * (rank - np.floor(rank))
        return float(np.clip(found, self.least[channel], self.greatest[channel]))

    def _value(self, channel: int, ends: np.ndarray, rank: int) -> float:
        """Returns the value of a rank, counted from 0; of a float, from its place in the bin."""
        number = int(np.searchsorted(ends, rank, side="right"))
        if self._dtype.kind != "f":
            return float(number + np.iinfo(self._dtype).min)
        low, high = self._edge(number), self._edge(number + 1)
        count = self._counts[channel, number]
        place = (rank - (ends[number] - count) + 0.5) / count
        return low + (high - low) * place

    def _bins(self, values: np.ndarray) -> np.ndarray:
        """Returns the number of the bin of each value, in ascending order of the values."""
        if self._dtype.kind != "f":
            return values.astype(np.int64) - np.iinfo(self._dtype).min
        bits = np.ascontiguousarray(values, np.float32).view(np.int32).astype(np.int64)
        # The bits of negative floats fall as their values rise.
        ordered = np.where(bits < 0, -(2**31) - bits, bits)
        return (ordered >> (32 - self._bits)) + 2 ** (self._bits - 1)

    def _edge(self, number: int) -> float:
        """Returns the least value of a bin of floats."""
        ordered = (number - 2 ** (self._bits - 1)) << (32 - self._bits)
        bits = -(2**31) - ordered if ordered < 0 else ordered
        return float(np.array(bits, np.int64).astype(np.int32).view(np.float32))
