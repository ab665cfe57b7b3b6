"""What may end training early, on one worker or on several."""

from __future__ import annotations

import dataclasses

from simclr_tf import preemption as preemption_lib
from simclr_tf import workers as workers_lib
from simclr_tf.runs import lock


@dataclasses.dataclass(frozen=True)
class Control:
    """What may end training early, and what makes several workers do the same.

    Attributes:
        preemption: signals that end training early.
        held: the lock of the run directory.
        workers: the connection to the other workers.
    """

    preemption: preemption_lib.Preemption
    held: lock.Held
    workers: workers_lib.Workers

    def agree(self, stops: bool, pace: float) -> tuple[bool, float]:
        """Returns whether any worker stops, and the seconds of a step on the slowest."""
        answers = self.workers.exchange([stops, pace])
        if any(stopped for stopped, _ in answers):
            self.preemption.request("a signal to another worker")
        return self.preemption.requested, max(seconds for _, seconds in answers)
