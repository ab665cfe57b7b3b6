"""Progressive resizing: trains with smaller views first, which take less computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import NamedTuple

from simclr_tf import config as config_lib
from simclr_tf import console
from simclr_tf.training import averages, placement


class Phase(NamedTuple):
    """Steps whose views have one size.

    Attributes:
        size: side of the views, in pixels.
        end: the step after the last one, counted from 0.
    """

    size: int
    end: int


def phases(config: config_lib.Config, total_steps: int) -> list[Phase]:
    """Returns the phases of a training; those without a step are left out, but not the last one."""
    found: list[Phase] = []
    share = 0.0
    *first, last = config.view_sizes
    for part in first:
        share += part.share
        end = round(share * total_steps)
        if end > (found[-1].end if found else 0):
            found.append(Phase(part.size, end))
    return [*found, Phase(last.size, total_steps)]


def phase_at(config: config_lib.Config, total_steps: int, step: int) -> Phase:
    """Returns the phase of a step; after the last step, the last phase."""
    all_ = phases(config, total_steps)
    return next((phase for phase in all_ if step < phase.end), all_[-1])


def config_at(config: config_lib.Config, total_steps: int, step: int) -> config_lib.Config:
    """Returns the settings with the image size of a step, counted from 0."""
    size = phase_at(config, total_steps, step).size
    if size == config.image_size:
        return config
    return dataclasses.replace(config, image_size=size, progressive_resizing=None)


class Resizing:
    """Trains one phase after another.

    Attributes:
        step: the next step, counted from 0.
    """

    def __init__(
        self, make: Callable[[int, Phase], placement.Train], phases: Sequence[Phase], step: int
    ) -> None:
        """Begins.

        Args:
            make: returns what trains from a step on, for a phase.
            phases: the phases of the training.
            step: the first step.
        """
        self._make, self.step = make, step
        self._phases = [phase for phase in phases if step < phase.end]
        self._train = make(step, self._phases[0])

    def __call__(self, count: int) -> averages.Sums:
        """Trains for a number of steps, or for fewer where the phase ends."""
        if self.step == self._phases[0].end:
            del self._phases[0]
            size = self._phases[0].size
            console.say(f"From step {self.step + 1:,} on, views have {size} px.")
            self._train = self._make(self.step, self._phases[0])
        sums = self._train(min(count, self._phases[0].end - self.step))
        self.step += sums.steps
        return sums
