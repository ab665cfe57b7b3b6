"""The settings of a run: described once, validated once, stored as a flagfile."""

from simclr_tf.config.decay import Decay
from simclr_tf.config.settings import (
    CONTRASTIVE_OBJECTIVES,
    EVALUATIONS,
    MAX_STEPS,
    MODES,
    OBJECTIVES,
    SUPERVISED_CONTRAST,
    TRAIN_MODES,
    UNSUPERVISED_OBJECTIVES,
    Config,
)
from simclr_tf.config.validation import SHORT_MODES, validate

__all__ = [
    "CONTRASTIVE_OBJECTIVES",
    "EVALUATIONS",
    "MAX_STEPS",
    "MODES",
    "OBJECTIVES",
    "SHORT_MODES",
    "SUPERVISED_CONTRAST",
    "TRAIN_MODES",
    "UNSUPERVISED_OBJECTIVES",
    "Config",
    "Decay",
    "validate",
]
