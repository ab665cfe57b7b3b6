"""Which contrastive loss a run descends, and what it logs of it."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import distribute
from simclr_tf.losses import blocked, contrastive, supcon

# From so many views on, similarities are made in tiles: faster on two cores already, and the
# memory that all of them would take, 16 MiB and growing with the square, is better used.
TILES_FROM = 2048
# Of so many, and with none of them left out, larger tiles are faster.
LARGE_TILES_FROM = 16384
WITHOUT_POSITIVE = "train/views_without_positive"

# (za (b, d), zb (b, d), labels (b,)) -> loss (), and metrics of its own.
Loss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, dict[str, tf.Tensor]]]


@dataclasses.dataclass(frozen=True)
class Objective:
    """A contrastive loss over the global batch.

    Attributes:
        loss: of this replica's projections, at the scale of its paper; a mean over replicas.
        weight: what the loss is multiplied by in training.
        metrics: names of the metrics that it adds.
    """

    loss: Loss
    weight: float
    metrics: tuple[str, ...] = ()


def make_objective(config: config_lib.Config) -> Objective:
    """Returns the contrastive objective that a run's settings name.

    SimCLR's losses are trained at twice the paper's mean, the sum of two sides, as the published
    runs were: parameters outside LARS's trust ratio feel the factor. SupCon's are trained at their
    mean, as theirs were.
    """
    name = config.resolved_objective
    if name in ("supcon", "supcon_in", "n_pairs"):
        return Objective(_supervised(config, name), 1.0, (WITHOUT_POSITIVE,))
    return Objective(_unsupervised(config, name), 2.0)


def chance_loss(config: config_lib.Config) -> float | None:
    """Returns the loss above which a network tells nothing apart; None if none can be told.

    SupCon has none: of many positives only few can be near at first, so that its loss begins
    above that of equal similarities, and a network that learns stays there for an epoch.
    """
    if config.resolved_objective == "nt_xent":
        return contrastive.chance_level(config.train_batch_size, config.negatives)
    return None


def tile_of(views: int, *, by_label: bool = False) -> int | None:
    """Returns the side of the tiles for so many views of one replica; None for no tiles."""
    everywhere = views * distribute.num_replicas()
    if everywhere < TILES_FROM:
        return None
    return blocked.TILE if by_label or everywhere < LARGE_TILES_FROM else blocked.LARGE_TILE


def _unsupervised(config: config_lib.Config, name: str) -> Loss:
    functions: dict[str, Callable[..., tf.Tensor]] = {
        "nt_xent": contrastive.nt_xent,
        "nt_logistic": contrastive.nt_logistic,
        "margin_triplet": contrastive.margin_triplet,
    }
    function = functions[name]
    settings: dict[str, Any] = {"l2_normalize": config.hidden_norm, "negatives": config.negatives}
    if name == "margin_triplet":
        settings["margin"] = config.margin
    else:
        settings["temperature"] = config.temperature
    if name != "nt_xent":
        settings["semi_hard"] = config.semi_hard
    in_tiles = name == "nt_xent" and config.negatives == "both"

    def loss(za: tf.Tensor, zb: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, dict]:
        tile = {"tile": tile_of(2 * za.shape[0])} if in_tiles else {}
        return function(za, zb, **settings, **tile), {}

    return loss


def _supervised(config: config_lib.Config, name: str) -> Loss:
    function = supcon.supcon_in if name == "supcon_in" else supcon.supcon
    most = 1 if name == "n_pairs" else config.supcon_positives

    def loss(za: tf.Tensor, zb: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, dict]:
        found = function(
            [za, zb],
            labels,
            temperature=config.temperature,
            l2_normalize=config.hidden_norm,
            max_positives=most,
            own_image=name != "n_pairs",
            scale_by_temperature=config.scale_by_temperature,
            tile=tile_of(2 * za.shape[0], by_label=True),
        )
        return found.loss, {WITHOUT_POSITIVE: found.without_positive}

    return loss
