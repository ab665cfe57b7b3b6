"""When checkpoints and metrics are written, and how many are kept."""

from __future__ import annotations

import dataclasses

from simclr_tf.config.metadata import Section
from simclr_tf.config.sections import bounds

_LOGS = Section("Checkpoints and logs")


@dataclasses.dataclass(frozen=True)
class LogSettings:
    """When checkpoints and metrics are written, and how many are kept."""

    checkpoint_epochs: int = _LOGS.setting(
        1,
        "Epochs between checkpoints.",
        at_least=1,
        reason="use --checkpoint_steps for less than an epoch",
        resume="freely",
        at_most=bounds.MANY_EPOCHS,
        limit_reason="no training takes as long",
    )
    checkpoint_steps: int = _LOGS.setting(
        0,
        "Steps between checkpoints; above 0, it overrides --checkpoint_epochs.",
        at_least=0,
        reason="0 leaves it to --checkpoint_epochs",
        resume="freely",
        at_most=bounds.MAX_STEPS,
        limit_reason="no training takes as long",
    )
    keep_checkpoint_max: int = _LOGS.setting(
        5,
        "Number of checkpoints to keep, beside the best one of --eval_epochs.",
        at_least=1,
        reason="a run must keep its last checkpoint to be resumed",
        resume="freely",
        at_most=bounds.MANY,
        limit_reason="no run has more",
    )
    keep_hub_module_max: int = _LOGS.setting(
        1,
        "Number of SavedModels to keep.",
        at_least=1,
        reason="the last SavedModel is kept",
        resume="freely",
        at_most=bounds.MANY,
        limit_reason="no run has more",
    )
    train_summary_steps: int = _LOGS.setting(
        0,
        "Steps between records in metrics.jsonl and TensorBoard. 0: every epoch, but at least "
        "every 100 steps.",
        at_least=0,
        reason="0 chooses the interval automatically",
        resume="freely",
        at_most=bounds.MAX_STEPS,
        limit_reason="no training takes as long",
    )
