"""The number of steps of a run, and its learning rate at each of them."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import errors, text
from simclr_tf.config import resizing
from simclr_tf.keras_api import keras
from simclr_tf.runs import length


@dataclasses.dataclass(frozen=True)
class Plan:
    """The length of a run and its intervals, in steps.

    Attributes:
        num_examples: images to train on.
        batch_size: images per step over all replicas.
        total_steps: steps of the run.
        warmup_steps: steps of linear warm-up, at most total_steps.
        checkpoint_steps: steps between checkpoints.
        summary_steps: steps between log entries.
        peak_rate: learning rate after warm-up.
        decay_interval: steps between two decays after warm-up, of an exponential decay. Like
            decay_steps it need not be whole.
        decay_steps: the steps of the decays of a step decay.
        validation_steps: steps between evaluations during training; 0 for none.
    """

    num_examples: int
    batch_size: int
    total_steps: int
    warmup_steps: int
    checkpoint_steps: int
    summary_steps: int
    peak_rate: float
    decay_interval: float | None = None
    decay_steps: tuple[float, ...] = ()
    validation_steps: int = 0

    def validates(self, step: int) -> bool:
        """Returns whether the network is evaluated after so many steps."""
        if not self.validation_steps or not step:
            return False
        return step == self.total_steps or step % self.validation_steps == 0


def make_plan(config: config_lib.Config, num_examples: int) -> Plan:
    """Converts epochs into steps, as google-research/simclr does, and validates them.

    Args:
        config: settings of the run.
        num_examples: images to train on.

    Raises:
        UserError: if the split has fewer images than a batch, or only one, or if warm-up or a decay
            would come after the end of training.
    """
    batch = config.train_batch_size
    if num_examples < 2:
        raise errors.UserError(
            f"Split {config.train_split!r} has {text.count(num_examples, 'image')}, and a batch "
            "needs at least 2; add images, or set --train_split to a larger split."
        )
    if batch > num_examples:
        raise errors.UserError(
            f"--train_batch_size={batch} is more than the {num_examples} images of split "
            f"{config.train_split!r}; set it to {num_examples} or less."
        )
    total = length.total_steps(config, num_examples)
    if total > config_lib.MAX_STEPS:
        raise errors.UserError(
            f"--train_epochs={config.train_epochs} takes {total:,} steps, more than the "
            f"{config_lib.MAX_STEPS:,} that are possible; train for fewer epochs."
        )
    warmup = round(config.warmup_epochs * num_examples // batch)
    if total and warmup >= total:
        epochs = total * batch / num_examples
        raise errors.UserError(
            f"Warm-up takes {warmup} steps (--warmup_epochs={config.warmup_epochs:g}) but training "
            f"only {total} ({epochs:.3g} epochs); set --warmup_epochs below {epochs:.3g} or train "
            "longer."
        )
    resizing.phases(config.view_sizes, total)  # Raises for sizes without a step.
    decay = config.decay

    def decay_step(epoch: float) -> float:
        return _decay_step(config, epoch, total, num_examples)

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
        decay_interval=None if decay.interval is None else decay_step(decay.interval),
        decay_steps=tuple(map(decay_step, decay.epochs)),
        validation_steps=config.eval_epochs * epoch,
    )


def _decay_step(config: config_lib.Config, epoch: float, total: int, num_examples: int) -> float:
    """Returns the step of one of --decay_epochs.

    Raises:
        UserError: if training ends before it.
    """
    step = epoch * num_examples / config.train_batch_size
    if total and step >= total:
        ends = total * config.train_batch_size / num_examples
        raise errors.UserError(
            f"--decay_epochs={config.decay_epochs} has epoch {epoch:g}, when training has ended "
            f"(after {ends:.3g} epochs); name earlier ones, or train longer."
        )
    return step


def scaled_rate(base: float, batch_size: int, scaling: str) -> float:
    """Scales a learning rate by the batch size (SimCLR, sec. 2.3 and appendix B.1).

    Args:
        base: the value of --learning_rate.
        batch_size: images per step over all replicas.
        scaling: "linear": base * batch / 256; "sqrt": base * sqrt(batch). Their units
            differ: 0.3 linear and 0.075 sqrt agree at a batch of 4096.

    Returns:
        The peak learning rate.
    """
    return base * (batch_size / 256 if scaling == "linear" else math.sqrt(batch_size))


def make_schedule(config: config_lib.Config, plan: Plan) -> Schedule:
    """Returns the learning-rate schedule of a run.

    Args:
        config: the type of decay and its factor.
        plan: the steps of the run.
    """
    peak, warmup = plan.peak_rate, plan.warmup_steps
    if plan.decay_interval is not None:
        return WarmupExponential(
            peak, warmup, factor=config.decay_factor, every=plan.decay_interval
        )
    if plan.decay_steps:
        return WarmupStep(peak, warmup, factor=config.decay_factor, at=plan.decay_steps)
    return WarmupCosine(peak, warmup, plan.total_steps)


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0 to a peak; subclasses define the decay after it."""

    def __init__(self, peak: float, warmup_steps: int) -> None:
        """Creates the schedule.

        Args:
            peak: rate at the end of warm-up.
            warmup_steps: 0 or more. With warm-up, the rate of step 0 is 0.
        """
        self.peak, self.warmup_steps = peak, warmup_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the () float32 rate of a 0-based step."""
        # float32 cannot resolve the last steps of a long cosine.
        step = tf.cast(step, tf.float64)
        warm = step / max(1, self.warmup_steps)
        factor = tf.where(step < self.warmup_steps, warm, self.decay_factor(step))
        return tf.cast(self.peak * factor, tf.float32)

    def decay_factor(self, step: tf.Tensor) -> tf.Tensor:
        """Returns () the ratio of the rate to its peak, at a step () float64 after warm-up."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that create an equal schedule."""
        return dict(vars(self))


class WarmupCosine(Schedule):
    """Linear warm-up, then half a cosine to 0, without restarts (Chen et al. 2020, sec. 2.3)."""

    def __init__(self, peak: float, warmup_steps: int, total_steps: int) -> None:
        """Creates the schedule; the rate is 0 from `total_steps` on."""
        super().__init__(peak, warmup_steps)
        self.total_steps = total_steps

    def decay_factor(self, step: tf.Tensor) -> tf.Tensor:
        """Returns () the ratio of the rate to its peak, at a step after warm-up."""
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return (1 + tf.cos(math.pi * tf.clip_by_value(done, 0.0, 1.0))) / 2


class WarmupExponential(Schedule):
    """Linear warm-up, then staircase decay at equal intervals (SupCon, classifiers on ImageNet)."""

    def __init__(self, peak: float, warmup_steps: int, *, factor: float, every: float) -> None:
        """Creates the schedule.

        Args:
            peak: see `Schedule`.
            warmup_steps: see `Schedule`.
            factor: multiplies the rate at the end of every interval.
            every: length of an interval in steps, not necessarily whole.
        """
        super().__init__(peak, warmup_steps)
        self.factor, self.every = factor, every

    def decay_factor(self, step: tf.Tensor) -> tf.Tensor:
        """Returns () the ratio of the rate to its peak, at a step after warm-up."""
        decays = tf.floor((step - self.warmup_steps) / self.every)
        return tf.pow(tf.constant(self.factor, tf.float64), decays)


class WarmupStep(Schedule):
    """Linear warm-up, then decay at given steps (SupCon, classifiers on CIFAR)."""

    def __init__(
        self, peak: float, warmup_steps: int, *, factor: float, at: Sequence[float]
    ) -> None:
        """Creates the schedule.

        Args:
            peak: see `Schedule`.
            warmup_steps: see `Schedule`.
            factor: multiplies the rate at each step of `at`.
            at: steps, counted from the start of training, not necessarily whole.
        """
        super().__init__(peak, warmup_steps)
        self.factor, self.at = factor, tuple(at)

    def decay_factor(self, step: tf.Tensor) -> tf.Tensor:
        """Returns () the ratio of the rate to its peak, at a step after warm-up."""
        decays = tf.math.count_nonzero(step >= tf.constant(self.at, tf.float64), dtype=tf.float64)
        return tf.pow(tf.constant(self.factor, tf.float64), decays)
