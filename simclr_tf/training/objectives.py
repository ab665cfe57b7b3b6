"""The contrastive loss of a run, and the metrics that it logs."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import distribute
from simclr_tf.losses import blocked, contrastive, supcon

# From this many views on, similarities are computed in tiles. That is faster, even on two cores,
# and saves memory: all similarities at once would take 16 MiB, and grow with the square.
MIN_VIEWS_FOR_TILES = 2048
# From this many views on, larger tiles are faster if no pair of views is excluded.
MIN_VIEWS_FOR_LARGE_TILES = 16384
VIEWS_WITHOUT_POSITIVE = "train/views_without_positive"

# (za (b, d), zb (b, d), labels (b,)) -> loss (), and its additional metrics.
Loss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, dict[str, tf.Tensor]]]


@dataclasses.dataclass(frozen=True)
class Objective:
    """A contrastive loss over the global batch.

    Attributes:
        loss: computes the loss of this replica's projections, at the scale of its paper; the loss
            of the global batch is the mean over replicas.
        weight: coefficient of the loss in training.
        metrics: names of the additional metrics.
    """

    loss: Loss
    weight: float
    metrics: tuple[str, ...] = ()


def make_objective(config: config_lib.Config) -> Objective:
    """Returns the contrastive objective of a run.

    SimCLR's losses have twice the weight of the paper's mean, because the published runs summed
    the losses of both sides; the factor matters for parameters that LARS does not rescale. SupCon's
    losses have weight 1, as in the reference.
    """
    name = config.resolved_objective
    if name in ("supcon", "supcon_in", "n_pairs"):
        return Objective(_supervised(config, name), 1.0, (VIEWS_WITHOUT_POSITIVE,))
    return Objective(_unsupervised(config, name), 2.0)


def chance_loss(config: config_lib.Config) -> float | None:
    """Returns the chance-level loss, or None if it is undefined.

    It is undefined for SupCon: with many positives, of which few are near at first, its loss
    starts above the loss of equal similarities, and a network that learns stays there for an epoch.
    """
    if config.resolved_objective == "nt_xent":
        return contrastive.chance_level(config.train_batch_size, config.negatives)
    return None


def tile_side(views: int, *, by_label: bool = False) -> int | None:
    """Returns the side of the tiles of similarities, or None to compute them all at once.

    Args:
        views: number of views on one replica.
        by_label: whether labels exclude some pairs of views.
    """
    total = views * distribute.num_replicas()
    if total < MIN_VIEWS_FOR_TILES:
        return None
    small = by_label or total < MIN_VIEWS_FOR_LARGE_TILES
    return blocked.TILE if small else blocked.LARGE_TILE


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
    tiled = name == "nt_xent" and config.negatives == "both"

    def loss(za: tf.Tensor, zb: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, dict]:
        tile = {"tile": tile_side(2 * za.shape[0])} if tiled else {}
        return function(za, zb, **settings, **tile), {}

    return loss


def _supervised(config: config_lib.Config, name: str) -> Loss:
    function = supcon.supcon_in if name == "supcon_in" else supcon.supcon
    most_positives = 1 if name == "n_pairs" else config.supcon_positives

    def loss(za: tf.Tensor, zb: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, dict]:
        result = function(
            [za, zb],
            labels,
            temperature=config.temperature,
            l2_normalize=config.hidden_norm,
            max_positives=most_positives,
            own_image=name != "n_pairs",
            scale_by_temperature=config.scale_by_temperature,
            tile=tile_side(2 * za.shape[0], by_label=True),
        )
        return result.loss, {VIEWS_WITHOUT_POSITIVE: result.without_positive}

    return loss
