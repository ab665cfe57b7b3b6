"""The grids of learning rates and weight decays of fine-tuning (SimCLR, appendix B.8.1)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np


class Cell(NamedTuple):
    """A learning rate and a weight decay.

    Attributes:
        learning_rate: the peak rate for a batch of 256; it is scaled with the batch size.
        decay: weight decay before it is divided by the learning rate, 0 for none. It is by which
            fraction a step at the peak rate shrinks the weights.
    """

    learning_rate: float
    decay: float

    @property
    def weight_decay(self) -> float:
        """The weight decay to train with: the decay divided by the learning rate, as in B.8.1."""
        return self.decay / self.learning_rate

    @property
    def name(self) -> str:
        """Name of the folder of the cell. Commas would separate paths in flags."""
        return f"lr={self.learning_rate:.3g}_wd={self.decay:.3g}"


@dataclasses.dataclass(frozen=True)
class Grid:
    """The cells that fine-tuning tries, and how long each is trained.

    Attributes:
        rates: learning rates.
        decays: weight decays, see `Cell`.
        batch_size: images per step, fewer if there are not as many training images.
        steps: training steps; 0 to count epochs.
        epochs: passes over the training images.
    """

    rates: tuple[float, ...]
    decays: tuple[float, ...]
    batch_size: int
    steps: int = 0
    epochs: int = 0

    @property
    def cells(self) -> list[Cell]:
        """All pairs of a rate and a decay."""
        return [Cell(rate, decay) for rate in self.rates for decay in self.decays]


def _log_spaced(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(float(value) for value in np.logspace(low, high, count))


# Grids of networks that were trained, by the value of --transfer_grid.
TRAINED = {
    "paper": Grid(
        _log_spaced(-4, -1, 7), (0.0, *_log_spaced(-6, -3, 7)), batch_size=256, steps=20_000
    ),
    "small": Grid((0.001, 0.01, 0.1), (0.0, 1e-5), batch_size=64, epochs=10),
}
# Those of random initial weights, which need more steps and larger rates.
RANDOM = {
    "paper": Grid(_log_spaced(-3, 0, 7), _log_spaced(-5, -1.5, 8), batch_size=256, steps=40_000),
    "small": Grid((0.01, 0.1, 1.0), (1e-5, 1e-3), batch_size=64, epochs=20),
}


def batch_norm_decay(num_examples: int, batch_size: int) -> float:
    """Returns the decay of batch norm's moving averages: max(1 - 10 / s, 0.9), s steps per epoch.

    Args:
        num_examples: number of training images.
        batch_size: images per step.
    """
    return max(1 - 10 * batch_size / num_examples, 0.9)
