"""One training step on one replica: forward, loss, gradient, update, metrics."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.losses import contrastive
from simclr_tf.models import simclr

Batch = dict[str, tf.Tensor]
Metrics = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Step:
    """One training step on one replica.

    Attributes:
        run: trains once, from this replica's batch to its metrics, all ().
        metrics: their names.
    """

    run: Callable[[Batch], Metrics]
    metrics: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Learner:
    """What a step trains, and with what.

    Attributes:
        model: the network.
        optimizer: moves its variables; sums gradients over replicas.
        variables: those that train.
        decayed: those whose squared norm the objective adds.
        weight_decay: how much of it.
    """

    model: simclr.SimCLR
    optimizer: tf.keras.optimizers.Optimizer
    variables: list[tf.Variable]
    decayed: list[tf.Variable]
    weight_decay: float

    def decay(self) -> tf.Tensor:
        """Returns () weight_decay / 2 times the sum of squares of the decayed variables."""
        squares = [tf.nn.l2_loss(variable) for variable in self.decayed]
        return self.weight_decay * tf.add_n(squares) if squares else tf.constant(0.0)

    def update(self, tape: tf.GradientTape, loss: tf.Tensor) -> None:
        """Descends the gradient of the loss, a mean over this replica's images.

        `apply_gradients` sums over replicas, so each one's share is divided by their number.
        """
        share = tf.constant(1 / distribute.num_replicas())
        scaled = hasattr(self.optimizer, "get_scaled_loss")
        if scaled:
            share = self.optimizer.get_scaled_loss(share)
        gradients = tape.gradient(loss, self.variables, output_gradients=share)
        if scaled:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.variables))


_SUPERVISED = ("train/supervised_loss", "train/supervised_acc")
_CONTRASTIVE = (
    "train/contrast_loss",
    "train/contrast_acc",
    "train/contrast_entropy",
    "train/feature_spread",
    "train/weight_decay",
    "train/total_loss",
)


def contrastive_step(
    learner: Learner, *, temperature: float, hidden_norm: bool, labelled: bool
) -> Step:
    """Returns the step of pretraining: NT-Xent, and the linear head learning along.

    Both views go through the encoder in one batch, so that batch norm cannot tell them apart.
    The objective is the sum of the two sides of NT-Xent, twice the paper's mean, as in the
    published runs: parameters outside LARS's trust ratio feel the factor. What is logged is the
    paper's value. The linear head reads the features behind a stop_gradient.

    Args:
        learner: what trains.
        temperature: of NT-Xent.
        hidden_norm: whether NT-Xent normalises the projections.
        labelled: whether the linear head learns along; batches then hold "label".

    Returns:
        The step, for batches of {"views": (b, 2, h, w, 3), "label": (b,)}.
    """

    def step(batch: Batch) -> Metrics:
        views = batch["views"]
        b, v, h, w, channels = views.shape
        images = tf.reshape(tf.transpose(views, [1, 0, 2, 3, 4]), [v * b, h, w, channels])
        with tf.GradientTape() as tape:
            outputs = learner.model(images, training=True)
            za, zb = tf.split(outputs["projection"], 2)  # (b, d) each
            contrast = contrastive.nt_xent(
                za, zb, temperature=temperature, l2_normalize=hidden_norm
            )
            decay = learner.decay()
            total = 2 * contrast.loss + decay
            if labelled:
                labels = tf.tile(batch["label"], [v])  # (v * b,)
                supervised = cross_entropy(outputs["logits"], labels)
                total += supervised
        learner.update(tape, total)
        metrics = {
            "train/contrast_loss": contrast.loss,
            "train/contrast_acc": contrast.accuracy,
            "train/contrast_entropy": contrast.entropy,
            "train/feature_spread": spread(outputs["features"]),
            "train/weight_decay": decay,
            "train/total_loss": total,
        }
        if labelled:
            metrics["train/supervised_loss"] = supervised
            metrics["train/supervised_acc"] = accuracy(outputs["logits"], labels)
        return metrics

    return Step(step, _CONTRASTIVE + (_SUPERVISED if labelled else ()))


def supervised_step(learner: Learner) -> Step:
    """Returns the step of fine-tuning: cross-entropy on one view per image.

    Returns:
        The step, for batches of {"views": (b, 1, h, w, 3), "label": (b,)}.
    """

    def step(batch: Batch) -> Metrics:
        images, labels = batch["views"][:, 0], batch["label"]
        with tf.GradientTape() as tape:
            logits = learner.model.classify(images, training=True)
            supervised = cross_entropy(logits, labels)
            decay = learner.decay()
            total = supervised + decay
        learner.update(tape, total)
        return {
            "train/supervised_loss": supervised,
            "train/supervised_acc": accuracy(logits, labels),
            "train/weight_decay": decay,
            "train/total_loss": total,
        }

    return Step(step, ("train/weight_decay", "train/total_loss", *_SUPERVISED))


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns () the mean cross-entropy of logits (n, c) for labels (n,)."""
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )


def accuracy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns () the share of rows of logits (n, c) whose largest entry is the label's."""
    hits = tf.equal(tf.argmax(logits, 1, output_type=labels.dtype), labels)
    return tf.reduce_mean(tf.cast(hits, tf.float32))


def spread(features: tf.Tensor) -> tf.Tensor:
    """Returns () how much features (n, f) differ between images: 0 collapsed, 1 isotropic.

    The standard deviation over images of the l2-normalised features, averaged over dimensions
    and times sqrt(f) (Chen and He 2021, sec. 4.1).
    """
    unit = tf.math.l2_normalize(tf.stop_gradient(features), -1)
    deviation = tf.math.reduce_std(unit, 0)  # (f,)
    return tf.reduce_mean(deviation) * features.shape[-1] ** 0.5
