"""What a training step minimizes: pretraining, fine-tuning and distillation."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import numpy as np
import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.data import mixing
from simclr_tf.losses import classification, contrastive
from simclr_tf.models import simclr
from simclr_tf.training import collapse, feature_metrics, label_terms, objectives

Batch = dict[str, tf.Tensor]
Metrics = dict[str, tf.Tensor]
Outputs = dict[str, tf.Tensor]
# (loss (), its metrics)
LossAndMetrics = tuple[tf.Tensor, Metrics]

_CONTRASTIVE = (
    *("train/contrast_loss", "train/contrast_acc", "train/contrast_entropy"),
    *(collapse.POSITIVE_COSINE, collapse.NEGATIVE_COSINE, "train/alignment", "train/uniformity"),
)
_FEATURES = (collapse.SPREAD, collapse.RANK)
# Entry of a batch with the result of `label_weights`.
LABEL_WEIGHT = "label_weight"
_ONE_LABEL = label_terms.one_label()


@dataclasses.dataclass(frozen=True)
class Task:
    """A loss with two terms, split so that a batch can be processed in chunks.

    One term is a mean over examples and can be computed chunk by chunk. The other depends on the
    projections of the whole batch.

    Attributes:
        forward: runs the network in training mode, on a batch or a chunk of one.
        per_example_loss: returns the mean loss of a batch or chunk, given its outputs, and metrics
            that are means over examples.
        per_example_metrics: names of the metrics of `per_example_loss`.
        batch_loss: returns the loss and metrics of the projections (v * b, d) and labels (b,) of
            this replica's whole batch; None if the task has no such term.
        batch_metrics: names of the metrics of `batch_loss`.
        make_views: makes the views of a batch or a chunk, the same ones at every call. By default
            batches hold their views already.
        autograph: whether `forward` needs AutoGraph, see `simclr.SimCLR.needs_autograph`.
        weighs_labels: whether `per_example_loss` reads `LABEL_WEIGHT` of a batch or chunk.
    """

    forward: Callable[[Batch], Outputs]
    per_example_loss: Callable[[Batch, Outputs], LossAndMetrics]
    per_example_metrics: tuple[str, ...]
    batch_loss: Callable[[tf.Tensor, tf.Tensor], LossAndMetrics] | None = None
    batch_metrics: tuple[str, ...] = ()
    make_views: Callable[[Batch], Batch] = lambda batch: batch
    autograph: bool = False
    weighs_labels: bool = False


def label_weights(labels: tf.Tensor) -> tf.Tensor:
    """Returns the weights with which a mean over examples is one over the labelled examples.

    Args:
        labels: (b,) of this replica's whole batch, below 0 where there is none; (b, c) of several.

    Returns:
        (b,) float32. The mean over all replicas is 1: it is 1 throughout if all examples are
        labelled. NaN throughout if no example of any replica is.
    """
    labelled = tf.cast(label_terms.are_known(labels), tf.float32)
    count = distribute.all_reduce_sum(tf.reduce_sum(labelled))
    total = distribute.num_replicas() * labels.shape[0]
    return tf.where(count > 0, labelled * (total / count), np.nan)


def contrastive_task(
    model: simclr.SimCLR,
    objective: objectives.Objective,
    *,
    temperature: float,
    hidden_norm: bool,
    labelled: bool,
    term: label_terms.LabelTerm = _ONE_LABEL,
) -> Task:
    """Returns the pretraining task: a contrastive loss, and a linear head trained alongside.

    All views go through the encoder in one batch, so batch norm cannot reveal which view an image
    is. The logged loss is the objective's, before its weight. The linear head reads the features
    behind a stop_gradient.

    Args:
        model: the network.
        objective: the contrastive loss.
        temperature: temperature of the similarities whose accuracy and entropy are logged; they,
            and the cosines, are those of the first two views, so that they can be compared with
            those of other numbers of views.
        hidden_norm: whether those similarities are cosines.
        labelled: whether to train the linear head; "label" must then hold the classes, and -1 for
            examples without one. Its loss and accuracy are means over the labelled examples of the
            global batch. Without any, the loss is 0, and its metrics are NaN.
        term: how the linear head learns from labels.

    Returns:
        The task, for batches of {"views": (b, v, h, w, 3), "label": (b,)}; (b, c) of several.
    """

    def forward(batch: Batch) -> Outputs:
        return model(_stack_views(batch["views"]), training=True)

    def per_example_loss(batch: Batch, outputs: Outputs) -> LossAndMetrics:
        features = outputs["features"]
        metrics = {
            collapse.SPREAD: feature_metrics.spread(features),
            collapse.RANK: feature_metrics.rank(features),
        }
        if not labelled:
            return tf.constant(0.0), metrics
        loss, of_head = _head_loss(batch, outputs["logits"], term)
        return loss, {**metrics, **of_head}

    def batch_loss(projection: tf.Tensor, labels: tf.Tensor) -> LossAndMetrics:
        views = tf.split(projection, projection.shape[0] // labels.shape[0])  # (b, d) each
        loss, objective_metrics = objective.loss(views, labels)
        agreement = _agreement_metrics(views[0], views[1], temperature, hidden_norm)
        metrics = {"train/contrast_loss": loss, **agreement, **objective_metrics}
        return objective.weight * loss, metrics

    return Task(
        forward,
        per_example_loss,
        (*_FEATURES, *(term.metrics if labelled else ())),
        batch_loss,
        (*_CONTRASTIVE, *objective.metrics),
        autograph=model.needs_autograph,
        weighs_labels=labelled,
    )


def _agreement_metrics(
    za: tf.Tensor, zb: tf.Tensor, temperature: float, hidden_norm: bool
) -> Metrics:
    """Returns how well the projections (b, d) of two views of the images agree."""
    agreement = contrastive.agreement(
        za,
        zb,
        temperature=temperature,
        l2_normalize=hidden_norm,
        tile=objectives.tile_side(2 * za.shape[0]),
    )
    return {
        "train/contrast_acc": agreement.accuracy,
        "train/contrast_entropy": agreement.entropy,
        collapse.POSITIVE_COSINE: agreement.positive_cosine,
        collapse.NEGATIVE_COSINE: agreement.negative_cosine,
        # The mean squared distance of the views of an image (Wang and Isola 2020).
        "train/alignment": 2 - 2 * agreement.positive_cosine,
        "train/uniformity": agreement.uniformity,
    }


def _head_loss(batch: Batch, logits: tf.Tensor, term: label_terms.LabelTerm) -> LossAndMetrics:
    """Returns the loss of the linear head on all views (v * b, c) of the labelled images."""
    views = batch["views"].shape[1]
    labels = tf.concat([batch["label"]] * views, 0)  # (v * b,) or (v * b, c)
    weights = tf.tile(batch[LABEL_WEIGHT], [views])  # (v * b,), NaN or 0 without a label
    defined = ~tf.math.is_nan(weights)
    losses = term.losses(logits, labels)
    loss = tf.reduce_mean(tf.where(defined, weights, 0.0) * losses)
    means = (
        tf.where(defined[0], loss, np.nan),
        tf.reduce_mean(weights * term.scores(logits, labels)),
    )
    return loss, dict(zip(term.metrics, means))


def _stack_views(views: tf.Tensor) -> tf.Tensor:
    """Returns the views (b, v, h, w, c) as one batch (v * b, h, w, c), all first views first."""
    b, v, *image = views.shape
    return tf.reshape(tf.transpose(views, [1, 0, 2, 3, 4]), [v * b, *image])


# (images (n, h, w, 3), labels (n,)) -> the images mixed with others.
Mixer = Callable[[tf.Tensor, tf.Tensor], mixing.Mixed]


def supervised_task(
    model: simclr.SimCLR,
    *,
    term: label_terms.LabelTerm = _ONE_LABEL,
    mixer: Mixer | None = None,
) -> Task:
    """Returns the fine-tuning task: cross-entropy with the labels, on one view of each image.

    Args:
        model: the network.
        term: how it learns from labels.
        mixer: mixes images of the batch (mixup, CutMix). The loss is then the mean of both labels'
            losses, weighted by the mixing ratio, and the accuracy is that of the dominant label.

    Returns:
        The task, for batches of {"views": (b, 1, h, w, 3), "label": (b,)}; (b, c) of several.
    """

    def forward(batch: Batch) -> Outputs:
        images, labels = batch["views"][:, 0], batch["label"]
        if mixer is None:
            return {"logits": model.classify(images, training=True)}
        mixed = mixer(images, labels)
        logits = model.classify(mixed.images, training=True)
        return {"logits": logits, "other_labels": mixed.other_labels, "ratio": mixed.weight}

    def per_example_loss(batch: Batch, outputs: Outputs) -> LossAndMetrics:
        def loss_for(labels: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(term.losses(outputs["logits"], labels))

        labels, loss = batch["label"], loss_for(batch["label"])
        if mixer is not None:
            ratio, other_labels = outputs["ratio"], outputs["other_labels"]
            loss = ratio * loss + (1 - ratio) * loss_for(other_labels)
            labels = tf.where(ratio >= 0.5, labels, other_labels)
        score = tf.reduce_mean(term.scores(outputs["logits"], labels))
        return loss, dict(zip(term.metrics, (loss, score)))

    return Task(forward, per_example_loss, term.metrics, autograph=model.needs_autograph)


def distillation_task(
    model: simclr.SimCLR,
    teacher: Callable[[tf.Tensor], tf.Tensor],
    *,
    temperature: float,
    weight: float,
    autograph: bool = False,
) -> Task:
    """Returns the distillation task (SimCLRv2): match the class probabilities of a teacher.

    Args:
        model: the student.
        teacher: maps images (n, h, w, 3) in [0, 1] to logits (n, c).
        temperature: temperature of both softmaxes.
        weight: weight of the teacher's term, from 0 to 1; the labels' term has the rest. At 1 the
            labels are not read.
        autograph: whether the teacher needs AutoGraph.

    Returns:
        The task, for batches of {"views": (b, 1, h, w, 3), "label": (b,)}.
    """

    def forward(batch: Batch) -> Outputs:
        images = batch["views"][:, 0]
        return {
            "logits": model.classify(images, training=True),
            "teacher_logits": tf.stop_gradient(teacher(images)),
        }

    def per_example_loss(batch: Batch, outputs: Outputs) -> LossAndMetrics:
        logits, teacher_logits = outputs["logits"], outputs["teacher_logits"]
        loss = classification.distillation(logits, teacher_logits, temperature=temperature)
        metrics = {
            "train/distillation_loss": loss,
            "train/teacher_agreement": accuracy(logits, tf.argmax(teacher_logits, 1)),
        }
        if weight < 1:
            label_loss = tf.reduce_mean(classification.cross_entropy(logits, batch["label"]))
            loss = weight * loss + (1 - weight) * label_loss
            metrics["train/supervised_loss"] = label_loss
            metrics["train/supervised_acc"] = accuracy(logits, batch["label"])
        return loss, metrics

    names = ("train/distillation_loss", "train/teacher_agreement")
    return Task(
        forward,
        per_example_loss,
        (*names, *(_ONE_LABEL.metrics if weight < 1 else ())),
        autograph=autograph or model.needs_autograph,
    )


def accuracy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns () the fraction of rows of logits (n, c) whose largest entry is at the label.

    Args:
        logits: (n, c).
        labels: (n,).
    """
    return tf.reduce_mean(label_terms.hits(logits, labels))
