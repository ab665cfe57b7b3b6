"""The contrastive loss of a run, and the metrics that it logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import distribute
from simclr_tf.losses import blocked, contrastive, several_supcon, supcon

# From this many views on, similarities are computed in tiles. That is faster, even on two cores,
# and saves memory: all similarities at once would take 16 MiB, and grow with the square.
MIN_VIEWS_FOR_TILES = 2048
# From this many views on, larger tiles are faster if no pair of views is excluded.
MIN_VIEWS_FOR_LARGE_TILES = 16384
VIEWS_WITHOUT_POSITIVE = "train/views_without_positive"

# (v views of (b, d), labels (b,) or (b, c)) -> loss (), and its additional metrics.
Loss = Callable[[Sequence[tf.Tensor], tf.Tensor], tuple[tf.Tensor, dict[str, tf.Tensor]]]


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
    the losses of both sides; the factor matters for parameters that LARS does not rescale. It is
    the same for more views, which then change what the mean is over, and not the scale. SupCon's
    losses have weight 1, as in the reference.
    """
    name = config.resolved_objective
    if name in ("supcon", "supcon_in", "n_pairs"):
        return Objective(_supervised(config, name), 1.0, (VIEWS_WITHOUT_POSITIVE,))
    return Objective(_unsupervised(config, name), 2.0)


def num_negatives(config: config_lib.Config) -> int:
    """Returns the number of negatives of a view, of an objective without labels."""
    return contrastive.num_negatives(
        config.train_batch_size, num_views=config.num_views, negatives=config.negatives
    )


def chance_loss(config: config_lib.Config) -> float | None:
    """Returns the chance-level loss, or None if it is undefined.

    It is undefined for SupCon: with many positives, of which few are near at first, its loss
    starts above the loss of equal similarities, and a network that learns stays there for an epoch.
    """
    if config.resolved_objective == "nt_xent":
        return contrastive.chance_level(
            config.train_batch_size,
            num_views=config.num_views,
            negatives=config.negatives,
            decoupled=config.decoupled,
        )
    return None


def tile_side(views: int, *, masked: bool = False) -> int | None:
    """Returns the side of the tiles of similarities, or None to compute them all at once.

    Args:
        views: number of views on one replica.
        masked: whether some pairs of views are excluded.
    """
    total = views * distribute.num_replicas()
    if total < MIN_VIEWS_FOR_TILES:
        return None
    small = masked or total < MIN_VIEWS_FOR_LARGE_TILES
    return blocked.TILE if small else blocked.LARGE_TILE


def _unsupervised(config: config_lib.Config, name: str) -> Loss:
    settings: dict[str, Any] = {"l2_normalize": config.hidden_norm, "negatives": config.negatives}
    if name == "margin_triplet":
        settings["margin"] = config.margin
    else:
        settings["temperature"] = config.temperature
    if name == "nt_xent":
        return _nt_xent(config, settings)
    settings["semi_hard"] = config.semi_hard
    functions: dict[str, Callable[..., tf.Tensor]] = {
        "nt_logistic": contrastive.nt_logistic,
        "margin_triplet": contrastive.margin_triplet,
    }
    function = functions[name]

    def loss(views: Sequence[tf.Tensor], _: tf.Tensor) -> tuple[tf.Tensor, dict]:
        za, zb = views
        return function(za, zb, **settings), {}

    return loss


def _nt_xent(config: config_lib.Config, settings: dict[str, Any]) -> Loss:
    def loss(views: Sequence[tf.Tensor], _: tf.Tensor) -> tuple[tf.Tensor, dict]:
        tile = None
        if config.negatives == "both":
            tile = tile_side(len(views) * views[0].shape[0], masked=config.decoupled)
        return contrastive.nt_xent(views, decoupled=config.decoupled, tile=tile, **settings), {}

    return loss


def _supervised(config: config_lib.Config, name: str) -> Loss:
    function = supcon.supcon_in if name == "supcon_in" else supcon.supcon
    most_positives = 1 if name == "n_pairs" else config.supcon_positives

    def of_several(views: Sequence[tf.Tensor], labels: tf.Tensor) -> tuple[tf.Tensor, dict]:
        # What else --objective may be is refused by `runs.several_labels`.
        found = several_supcon.several_supcon(
            views,
            labels,
            temperature=config.temperature,
            l2_normalize=config.hidden_norm,
            scale_by_temperature=config.scale_by_temperature,
            tile=tile_side(len(views) * views[0].shape[0]),
        )
        return found, {VIEWS_WITHOUT_POSITIVE: tf.constant(0.0)}

    def loss(views: Sequence[tf.Tensor], labels: tf.Tensor) -> tuple[tf.Tensor, dict]:
        if labels.shape.rank == 2:
            return of_several(views, labels)
        result = function(
            views,
            labels,
            temperature=config.temperature,
            l2_normalize=config.hidden_norm,
            max_positives=most_positives,
            own_image=name != "n_pairs",
            decoupled=config.decoupled,
            scale_by_temperature=config.scale_by_temperature,
            average_classes=config.supcon_class_average,
            tile=None
            if config.supcon_class_average
            else tile_side(len(views) * views[0].shape[0], masked=True),
        )
        return result.loss, {VIEWS_WITHOUT_POSITIVE: result.without_positive}

    return loss
