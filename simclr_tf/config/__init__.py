"""The settings of a run: described once, validated once, stored as a flagfile."""

from simclr_tf.config.decay import Decay
from simclr_tf.config.sections.bounds import MAX_STEPS
from simclr_tf.config.sections.evaluation import EVALUATIONS
from simclr_tf.config.sections.objective import (
    CONTRASTIVE_OBJECTIVES,
    OBJECTIVES,
    SUPERVISED_CONTRAST,
    UNSUPERVISED_OBJECTIVES,
)
from simclr_tf.config.sections.task import MODES, PRESETS, TRAIN_MODES
from simclr_tf.config.settings import Config
from simclr_tf.config.validation import SHORT_MODES, validate

__all__ = [
    "CONTRASTIVE_OBJECTIVES",
    "EVALUATIONS",
    "MAX_STEPS",
    "MODES",
    "OBJECTIVES",
    "PRESETS",
    "SHORT_MODES",
    "SUPERVISED_CONTRAST",
    "TRAIN_MODES",
    "UNSUPERVISED_OBJECTIVES",
    "Config",
    "Decay",
    "validate",
]
