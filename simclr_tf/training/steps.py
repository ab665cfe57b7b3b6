"""What a training step descends, and the step that takes its whole batch at once."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools

import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.data import mixing
from simclr_tf.keras_api import keras
from simclr_tf.losses import classification, contrastive
from simclr_tf.models import simclr
from simclr_tf.training import objectives

Batch = dict[str, tf.Tensor]
Metrics = dict[str, tf.Tensor]
Outputs = dict[str, tf.Tensor]
# (loss (), metrics of it)
Judged = tuple[tf.Tensor, Metrics]

# Metrics of every step.
DECAY, TOTAL = "train/weight_decay", "train/total_loss"


@dataclasses.dataclass(frozen=True)
class Task:
    """What is learned: a loss of two parts, so that a batch can be taken in chunks.

    Attributes:
        forward: runs the network in training mode, on a batch or a chunk of one.
        each: of a batch or chunk and its outputs: what its examples cost one by one, the mean of
            it, and metrics that are means over examples.
        together: of the projections (v * b, d) and labels (b,) of this replica's whole batch: what
            they cost as a batch; None if nothing.
        each_metrics: names of the metrics of `each`.
        batch_metrics: names of the metrics of `together`.
        num_views: v.
        views: makes the views of a batch or a chunk, always the same ones; by default they are
            there already.
    """

    forward: Callable[[Batch], Outputs]
    each: Callable[[Batch, Outputs], Judged]
    each_metrics: tuple[str, ...]
    together: Callable[[tf.Tensor, tf.Tensor], Judged] | None = None
    batch_metrics: tuple[str, ...] = ()
    num_views: int = 1
    views: Callable[[Batch], Batch] = lambda batch: batch

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics of a step."""
        return (*self.batch_metrics, *self.each_metrics, DECAY, TOTAL)


@dataclasses.dataclass(frozen=True)
class Step:
    """One training step over all replicas.

    Attributes:
        on: returns what trains once on these replicas, from their batches to their metrics, all ().
        metrics: their names.
        in_pieces: whether it is several compiled pieces, called one by one, and not to be made
            into one graph.
    """

    on: Callable[[distribute.Replicas], Callable[[Batch], Metrics]]
    metrics: tuple[str, ...]
    in_pieces: bool = False


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
    optimizer: keras.optimizers.Optimizer
    variables: list[tf.Variable]
    decayed: list[tf.Variable]
    weight_decay: float

    def decay(self) -> tf.Tensor:
        """Returns () weight_decay / 2 times the sum of squares of the decayed variables."""
        squares = [tf.nn.l2_loss(variable) for variable in self.decayed]
        return self.weight_decay * tf.add_n(squares) if squares else tf.constant(0.0)

    def share(self) -> tf.Tensor:
        """Returns (), what the gradient of this replica's mean loss is multiplied by.

        `apply_gradients` sums over replicas, so each one's share is divided by their number; and
        it is scaled up for float16.
        """
        share = tf.constant(1 / distribute.num_replicas())
        if hasattr(self.optimizer, "get_scaled_loss"):
            share = self.optimizer.get_scaled_loss(share)
        return share

    def apply(self, gradients: list[tf.Tensor | None]) -> None:
        """Moves the variables by gradients that hold this replica's share."""
        if hasattr(self.optimizer, "get_unscaled_gradients"):
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.variables))


def whole_step(learner: Learner, task: Task) -> Step:
    """Returns the step that takes the whole batch of a replica at once."""

    def on_replica(batch: Batch) -> Metrics:
        batch = task.views(batch)
        with tf.GradientTape() as tape:
            outputs = task.forward(batch)
            total, metrics = task.each(batch, outputs)
            if task.together is not None:
                cost, more = task.together(outputs["projection"], batch["label"])
                total, metrics = total + cost, {**metrics, **more}
            decay = learner.decay()
            total += decay
        learner.apply(tape.gradient(total, learner.variables, output_gradients=learner.share()))
        return {**metrics, DECAY: decay, TOTAL: total}

    return Step(lambda replicas: functools.partial(replicas.run, on_replica), task.metrics)


def contrastive_task(
    model: simclr.SimCLR,
    objective: objectives.Objective,
    *,
    temperature: float,
    hidden_norm: bool,
    labelled: bool,
) -> Task:
    """Returns what pretraining learns: to tell images apart, or classes of images.

    All views go through the encoder in one batch, so that batch norm cannot tell them apart. What
    is logged is the objective's loss without its weight. The linear head reads the features
    behind a stop_gradient.

    Args:
        model: the network.
        objective: the contrastive loss.
        temperature: of the similarities whose accuracy and entropy are logged.
        hidden_norm: whether those are cosines.
        labelled: whether the linear head learns along; batches then hold "label".

    Returns:
        The task, for batches of {"views": (b, 2, h, w, 3), "label": (b,)}.
    """

    def forward(batch: Batch) -> Outputs:
        return model(_stacked(batch["views"]), training=True)

    def each(batch: Batch, outputs: Outputs) -> Judged:
        metrics = {"train/feature_spread": spread(outputs["features"])}
        if not labelled:
            return tf.constant(0.0), metrics
        labels = tf.tile(batch["label"], [batch["views"].shape[1]])  # (v * b,)
        loss = tf.reduce_mean(classification.cross_entropy(outputs["logits"], labels))
        metrics["train/supervised_loss"] = loss
        metrics["train/supervised_acc"] = accuracy(outputs["logits"], labels)
        return loss, metrics

    def together(projection: tf.Tensor, labels: tf.Tensor) -> Judged:
        za, zb = tf.split(projection, 2)  # (b, d) each
        loss, more = objective.loss(za, zb, labels)
        found = contrastive.agreement(
            za,
            zb,
            temperature=temperature,
            l2_normalize=hidden_norm,
            tile=objectives.tile_of(2 * za.shape[0]),
        )
        metrics = {
            "train/contrast_loss": loss,
            "train/contrast_acc": found.accuracy,
            "train/contrast_entropy": found.entropy,
        }
        return objective.weight * loss, {**metrics, **more}

    names = ("train/feature_spread", *(_SUPERVISED if labelled else ()))
    of_batch = (*_CONTRASTIVE, *objective.metrics)
    return Task(forward, each, names, together, of_batch, num_views=2)


_CONTRASTIVE = ("train/contrast_loss", "train/contrast_acc", "train/contrast_entropy")
_SUPERVISED = ("train/supervised_loss", "train/supervised_acc")


def _stacked(views: tf.Tensor) -> tf.Tensor:
    """Returns the views (b, v, h, w, c) under one another: (v * b, h, w, c), first views first."""
    b, v, *image = views.shape
    return tf.reshape(tf.transpose(views, [1, 0, 2, 3, 4]), [v * b, *image])


# (images (n, h, w, 3), labels (n,)) -> the images mixed with others.
Mixer = Callable[[tf.Tensor, tf.Tensor], mixing.Mixed]


def supervised_task(
    model: simclr.SimCLR, *, label_smoothing: float = 0.0, mixer: Mixer | None = None
) -> Task:
    """Returns what fine-tuning learns: labels, by cross-entropy, from one view of each image.

    Args:
        model: the network.
        label_smoothing: see `classification.cross_entropy`.
        mixer: mixes images of the batch (mixup, CutMix); the loss is that of both labels by their
            shares, the accuracy that of the larger share's.

    Returns:
        The task, for batches of {"views": (b, 1, h, w, 3), "label": (b,)}.
    """

    def forward(batch: Batch) -> Outputs:
        images, labels = batch["views"][:, 0], batch["label"]
        if mixer is None:
            return {"logits": model.classify(images, training=True)}
        mixed = mixer(images, labels)
        logits = model.classify(mixed.images, training=True)
        return {"logits": logits, "others": mixed.other_labels, "share": mixed.weight}

    def each(batch: Batch, outputs: Outputs) -> Judged:
        def loss_for(labels: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(
                classification.cross_entropy(
                    outputs["logits"], labels, label_smoothing=label_smoothing
                )
            )

        labels, loss = batch["label"], loss_for(batch["label"])
        if mixer is not None:
            share = outputs["share"]
            loss = share * loss + (1 - share) * loss_for(outputs["others"])
            labels = tf.where(share >= 0.5, labels, outputs["others"])
        metrics = {
            "train/supervised_loss": loss,
            "train/supervised_acc": accuracy(outputs["logits"], labels),
        }
        return loss, metrics

    return Task(forward, each, _SUPERVISED)


def distillation_task(
    model: simclr.SimCLR,
    teacher: Callable[[tf.Tensor], tf.Tensor],
    *,
    temperature: float,
    weight: float,
) -> Task:
    """Returns what a student learns (SimCLRv2): the classes that a teacher sees in images.

    Args:
        model: the student.
        teacher: maps images (n, h, w, 3) in [0, 1] to logits (n, c).
        temperature: of both softmaxes.
        weight: of the teacher, from 0 to 1; the labels have the rest. At 1 no label is read.

    Returns:
        The task, for batches of {"views": (b, 1, h, w, 3), "label": (b,)}.
    """

    def forward(batch: Batch) -> Outputs:
        images = batch["views"][:, 0]
        return {
            "logits": model.classify(images, training=True),
            "teacher": tf.stop_gradient(teacher(images)),
        }

    def each(batch: Batch, outputs: Outputs) -> Judged:
        logits, of_teacher = outputs["logits"], outputs["teacher"]
        loss = classification.distillation(logits, of_teacher, temperature=temperature)
        metrics = {
            "train/distillation_loss": loss,
            "train/teacher_agreement": accuracy(logits, tf.argmax(of_teacher, 1)),
        }
        if weight < 1:
            of_labels = tf.reduce_mean(classification.cross_entropy(logits, batch["label"]))
            loss = weight * loss + (1 - weight) * of_labels
            metrics["train/supervised_loss"] = of_labels
            metrics["train/supervised_acc"] = accuracy(logits, batch["label"])
        return loss, metrics

    names = ("train/distillation_loss", "train/teacher_agreement")
    return Task(forward, each, (*names, *(_SUPERVISED if weight < 1 else ())))


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
