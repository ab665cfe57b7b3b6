"""The evaluations of --evaluations, by name; `linear` gives them the scores that they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from simclr_tf.evaluation import (
    calibration,
    clusters,
    geometry,
    knn,
    map,
    outcome,
    per_class,
    retrieval,
    selective,
)

EVALUATIONS: Mapping[str, Callable[[outcome.Inputs], outcome.Outcome]] = {
    "knn": knn.evaluate,
    "per_class": per_class.evaluate,
    "retrieval": retrieval.evaluate,
    "calibration": calibration.evaluate,
    "selective": selective.evaluate,
    "clusters": clusters.evaluate,
    "geometry": geometry.evaluate,
    "map": map.evaluate,
}
