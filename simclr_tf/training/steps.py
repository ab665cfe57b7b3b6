"""The training step that processes its whole batch at once."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.keras_api import keras
from simclr_tf.models import simclr
from simclr_tf.training import gradients as gradients_lib
from simclr_tf.training import tasks

# Metrics of every step.
WEIGHT_DECAY, TOTAL_LOSS = "train/weight_decay", "train/total_loss"
GRADIENT_NORM = "train/gradient_norm"


@dataclasses.dataclass(frozen=True)
class Learner:
    """The network, its optimizer, and the variables to train.

    Attributes:
        model: the network.
        optimizer: the optimizer.
        variables: the variables to train.
        decayed: those whose squared norm is added to the loss.
        weight_decay: coefficient of the squared norm.
        clip_norm: largest norm of the gradient that is applied; 0 for no limit.
    """

    model: simclr.SimCLR
    optimizer: keras.optimizers.Optimizer
    variables: list[tf.Variable]
    decayed: list[tf.Variable]
    weight_decay: float
    clip_norm: float = 0.0

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled for float16; steps whose gradient overflows are then usual."""
        return hasattr(self.optimizer, "get_scaled_loss")

    def weight_decay_loss(self) -> tf.Tensor:
        """Returns () weight_decay / 2 times the sum of squares of the decayed variables."""
        squares = [tf.nn.l2_loss(variable) for variable in self.decayed]
        return self.weight_decay * tf.add_n(squares) if squares else tf.constant(0.0)

    def gradient_scale(self) -> tf.Tensor:
        """Returns () the factor for the gradient of this replica's mean loss.

        It is 1 / R, because `apply` sums over the R replicas, times the loss scale of float16.
        """
        scale = tf.constant(1 / distribute.num_replicas())
        if self.scales_loss:
            scale = self.optimizer.get_scaled_loss(scale)
        return scale

    def apply(self, gradients: list[tf.Tensor | None], loss: tf.Tensor) -> tf.Tensor:
        """Updates the variables, unless the loss or the gradient is not finite.

        In float16 the optimizer handles gradients that are not finite: it lowers the loss scale.

        Args:
            gradients: of this replica, multiplied by `gradient_scale`.
            loss: () total loss of this replica.

        Returns:
            () float32, the norm of the gradient of the mean loss over the global batch, before it
            is clipped.
        """
        if self.scales_loss:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        *gradients, loss = distribute.all_reduce_sums([*gradients, loss])
        norm = gradients_lib.global_norm(gradients)
        if self.clip_norm:
            gradients = gradients_lib.clip(gradients, norm, self.clip_norm)
        finite = tf.math.is_finite(loss)
        if not self.scales_loss:
            finite &= tf.math.is_finite(norm)
        distribute.run_if(finite, self._update, gradients)
        return norm

    def _update(self, gradients: list[tf.Tensor | None]) -> None:
        """Updates the variables with gradients that were summed over replicas."""
        pairs = zip(gradients, self.variables)
        self.optimizer.apply_gradients(pairs, experimental_aggregate_gradients=False)


@dataclasses.dataclass(frozen=True)
class Step:
    """One training step over all replicas.

    Attributes:
        train: takes the batches of the replicas, updates the variables, and returns the metrics,
            each () and averaged over replicas.
        metrics: names of the metrics.
        scales_loss: see `Learner.scales_loss`.
        multi_graph: whether `train` calls several compiled graphs from Python, and must not be
            traced into a single one.
        autograph: whether tracing `train` needs AutoGraph.
    """

    train: Callable[[tasks.Batch], tasks.Metrics]
    metrics: tuple[str, ...]
    scales_loss: bool = False
    multi_graph: bool = False
    autograph: bool = False


def whole_step(
    learner: Learner,
    task: tasks.Task,
    strategy: tf.distribute.Strategy,
    *,
    jit_compile: bool = False,
) -> Step:
    """Returns the step that processes the whole batch of each replica at once.

    Args:
        learner: what to train.
        task: the loss to minimize.
        strategy: the strategy, which runs the step on every replica.
        jit_compile: compiles the step with XLA; one replica only.
    """

    def train_on_replica(batch: tasks.Batch) -> tasks.Metrics:
        gradients, metrics = compute_gradients(learner, task, task.make_views(batch))
        return {**metrics, GRADIENT_NORM: learner.apply(gradients, metrics[TOTAL_LOSS])}

    run = distribute.on_replicas(
        strategy, train_on_replica, jit_compile=jit_compile, autograph=task.autograph
    )

    def train(batch: tasks.Batch) -> tasks.Metrics:
        return distribute.mean_over_replicas(strategy, run(batch))

    return Step(train, metric_names(task), learner.scales_loss, autograph=task.autograph)


def compute_gradients(
    learner: Learner, task: tasks.Task, batch: tasks.Batch
) -> tuple[list[tf.Tensor | None], tasks.Metrics]:
    """Computes the gradients of the total loss of this replica's batch.

    Args:
        learner: what to train.
        task: the loss to minimize.
        batch: with its views.

    Returns:
        The gradients by `learner.variables`, multiplied by `Learner.gradient_scale`; and the
        metrics of the step.
    """
    if task.weighs_labels:
        batch = {**batch, tasks.LABEL_WEIGHT: tasks.label_weights(batch["label"])}
    with tf.GradientTape() as tape:
        outputs = task.forward(batch)
        total, metrics = task.per_example_loss(batch, outputs)
        if task.batch_loss is not None:
            loss, batch_metrics = task.batch_loss(outputs["projection"], batch["label"])
            total, metrics = total + loss, {**metrics, **batch_metrics}
        weight_decay = learner.weight_decay_loss()
        total += weight_decay
    scale = learner.gradient_scale()
    gradients = tape.gradient(total, learner.variables, output_gradients=scale)
    return gradients, {**metrics, WEIGHT_DECAY: weight_decay, TOTAL_LOSS: total}


def metric_names(task: tasks.Task) -> tuple[str, ...]:
    """Returns the names of the metrics of a step."""
    return (*task.batch_metrics, *task.per_example_metrics, WEIGHT_DECAY, TOTAL_LOSS, GRADIENT_NORM)
