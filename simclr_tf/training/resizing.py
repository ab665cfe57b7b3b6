"""Progressive resizing: trains with smaller views first, which take less computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

from simclr_tf import config as config_lib
from simclr_tf import console
from simclr_tf.config import resizing
from simclr_tf.training import averages, placement


def phases(config: config_lib.Config, total_steps: int) -> list[resizing.Phase]:
    """Returns the phases of a training."""
    return resizing.phases(config.view_sizes, total_steps)


def config_at(config: config_lib.Config, total_steps: int, step: int) -> config_lib.Config:
    """Returns the settings with the image size of a step, counted from 0."""
    ahead = [phase for phase in phases(config, total_steps) if step < phase.end]
    size = ahead[0].size if ahead else config.image_size
    if size == config.image_size:
        return config
    return dataclasses.replace(config, image_size=size, progressive_resizing=None)


class Resizing:
    """Trains one phase after another.

    Attributes:
        step: the next step, counted from 0.
    """

    def __init__(
        self,
        make: Callable[[int, int], placement.Train],
        phases: Sequence[resizing.Phase],
        step: int,
    ) -> None:
        """Begins.

        Args:
            make: returns what trains from a step to the end of its phase, given both.
            phases: the phases of the training.
            step: the first step.
        """
        self._make, self.step = make, step
        self._phases = [phase for phase in phases if step < phase.end]
        self._train = make(step, self._phases[0].end)

    def __call__(self, count: int) -> averages.Sums:
        """Trains for a number of steps, or for fewer where the phase ends."""
        if self.step == self._phases[0].end:
            del self._phases[0]
            size = self._phases[0].size
            console.say(f"From step {self.step + 1:,} on, views have {size} px.")
            self._train = self._make(self.step, self._phases[0].end)
        sums = self._train(min(count, self._phases[0].end - self.step))
        self.step += sums.steps
        return sums
