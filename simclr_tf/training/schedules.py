"""How long a run is and how its learning rate moves: functions of counts and of the step."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import errors


@dataclasses.dataclass(frozen=True)
class Plan:
    """A training run in steps.

    Attributes:
        num_examples: images in the training split.
        batch_size: images per step over all replicas.
        total_steps: steps of the run.
        warmup_steps: steps of linear warm-up, at most total_steps.
        checkpoint_steps: steps between checkpoints.
        summary_steps: steps between records of the metrics.
        peak_rate: learning rate after warm-up.
    """

    num_examples: int
    batch_size: int
    total_steps: int
    warmup_steps: int
    checkpoint_steps: int
    summary_steps: int
    peak_rate: float


def make_plan(config: config_lib.Config, num_examples: int) -> Plan:
    """Turns epochs into steps, as google-research/simclr does, and checks that they make sense.

    Args:
        config: the run.
        num_examples: images in its training split.

    Raises:
        UserError: if the batch is larger than the split or warm-up is longer than training.
    """
    batch = config.train_batch_size
    if batch > num_examples:
        raise errors.UserError(
            f"--train_batch_size={batch} is more than the {num_examples} images of split "
            f"{config.train_split!r}; set it to {num_examples} or less."
        )
    total = config.train_steps or (
        num_examples * config.train_epochs // batch + 1 if config.train_epochs else 0
    )
    warmup = round(config.warmup_epochs * num_examples // batch)
    if total and warmup >= total:
        epochs = total * batch / num_examples
        raise errors.UserError(
            f"Warm-up takes {warmup} steps (--warmup_epochs={config.warmup_epochs:g}) but training "
            f"only {total} ({epochs:.3g} epochs); set --warmup_epochs below {epochs:.3g} or train "
            "longer."
        )
    epoch = max(1, round(num_examples / batch))
    checkpoint = config.checkpoint_steps or config.checkpoint_epochs * epoch
    return Plan(
        num_examples=num_examples,
        batch_size=batch,
        total_steps=total,
        warmup_steps=warmup,
        checkpoint_steps=checkpoint,
        summary_steps=config.train_summary_steps or min(epoch, 100),
        peak_rate=scaled_rate(config.learning_rate, batch, config.learning_rate_scaling),
    )


def scaled_rate(base: float, batch_size: int, scaling: str) -> float:
    """Scales a learning rate by the batch size (SimCLR, sec. 2.3 and appendix B.1).

    Args:
        base: the rate of the flag.
        batch_size: images per step over all replicas.
        scaling: "linear": base * batch / 256; "sqrt": base * sqrt(batch), which is not the
            same unit: 0.3 linear and 0.075 sqrt agree at a batch of 4096.

    Returns:
        The peak learning rate.
    """
    return base * (batch_size / 256 if scaling == "linear" else math.sqrt(batch_size))


class WarmupCosine(tf.keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then half a cosine to 0, without restarts (sec. 2.3)."""

    def __init__(self, peak: float, warmup_steps: int, total_steps: int) -> None:
        """Makes the schedule.

        Args:
            peak: rate at the end of warm-up.
            warmup_steps: 0 or more; step 0 has rate 0 if there is warm-up.
            total_steps: the rate is 0 from here on.
        """
        self.peak, self.warmup_steps, self.total_steps = peak, warmup_steps, total_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the () float32 rate of a 0-based step."""
        # In float64: float32 cannot tell the last steps of a long cosine from its end.
        step = tf.cast(step, tf.float64)
        warm = step / max(1, self.warmup_steps)
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        cosine = (1 + tf.cos(math.pi * tf.clip_by_value(done, 0.0, 1.0))) / 2
        factor = tf.where(step < self.warmup_steps, warm, cosine)
        return tf.cast(self.peak * factor, tf.float32)

    def get_config(self) -> dict[str, float]:
        """Returns the arguments that make this schedule again."""
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
        }
