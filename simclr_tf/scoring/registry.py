"""The evaluations of --evaluations that run the network again, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from simclr_tf.evaluation import outcome
from simclr_tf.scoring import network, probes

EVALUATIONS: Mapping[str, Callable[[network.Context], outcome.Outcome]] = {
    "probes": probes.measure,
}
