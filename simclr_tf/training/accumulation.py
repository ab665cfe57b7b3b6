"""The training step that holds one chunk of its batch at a time, with the same gradient.

Plain gradient accumulation would contrast only the images within a chunk. Here every chunk goes
through the network twice (Gao et al. 2021, "GradCache"): the first pass computes its projections,
from which the loss of the whole batch and its gradient by every projection follow; the second pass
propagates that gradient into the weights.

    for each chunk:   slice_chunk -> project
    whole batch:      batch_loss
    for each chunk:   slice_chunk -> accumulate
    whole batch:      apply

Each of these is a graph of its own, called from Python. A single graph of all of them repeats the
operations of the views and of the network; it was measured to take 100 MiB more, and TensorFlow's
graph optimizer may rewrite its loops into ones that fail at their second run.

Batch norm normalizes one chunk at a time, in the same way in both passes. Only the second pass
updates its moving averages: each of the k chunks by a k-th of a step.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.models import batch_norm
from simclr_tf.training import steps, tasks


def chunked_step(
    learner: steps.Learner,
    task: tasks.Task,
    strategy: tf.distribute.Strategy,
    chunks: int,
    *,
    jit_compile: bool = False,
) -> steps.Step:
    """Returns the step that processes the batch of each replica in chunks, one after another.

    Args:
        learner: what to train.
        task: the loss to minimize.
        strategy: the strategy, which runs each graph on every replica.
        chunks: k; a divisor of the number of images of a replica.
        jit_compile: compiles each graph with XLA; one replica only.

    Returns:
        The step. It has the metrics of `steps.whole_step`.
    """

    def graph(function: Callable[..., Any], *bound: Any) -> Callable[..., Any]:
        run = distribute.on_replicas(
            strategy,
            functools.partial(function, *bound),
            jit_compile=jit_compile,
            autograph=task.autograph,
        )
        return tf.function(run, autograph=task.autograph)

    slice_one = graph(slice_chunk, task, chunks)
    project = graph(_project, task)
    batch_loss = graph(_batch_loss, learner, task)
    zeros = graph(_zeros, learner, task)
    accumulate = graph(_accumulate, learner, task, chunks)
    weigh = graph(tasks.label_weights)
    apply = graph(_apply, learner)

    def train(batch: tasks.Batch) -> tasks.Metrics:
        indices = [tf.constant(index) for index in range(chunks)]
        if task.weighs_labels:
            batch = {**batch, tasks.LABEL_WEIGHT: weigh(batch["label"])}
        projection_grads, batch_metrics = [None] * chunks, {}
        if task.batch_loss is not None:
            projections = [project(slice_one(batch, index)) for index in indices]
            projection_grads, batch_metrics = batch_loss(batch, projections)
        gradients, metrics = zeros()
        for index, chunk_grads in zip(indices, projection_grads):
            chunk = slice_one(batch, index)
            gradients, metrics = accumulate(chunk, chunk_grads, gradients, metrics)
        metrics = apply(gradients, metrics, batch_metrics)
        return distribute.mean_over_replicas(strategy, metrics)

    return steps.Step(train, steps.metric_names(task), learner.scales_loss, multi_graph=True)


def slice_chunk(task: tasks.Task, chunks: int, batch: tasks.Batch, index: tf.Tensor) -> tasks.Batch:
    """Returns chunk `index` of `chunks` of the batch, with its views."""
    size = batch["label"].shape[0] // chunks
    # Not by indexing, whose end XLA does not know to be `size` after its start.
    chunk = {
        name: tf.slice(x, [index * size, *[0] * (len(x.shape) - 1)], [size, *x.shape[1:]])
        for name, x in batch.items()
    }
    made = task.make_views(chunk)
    if tasks.LABEL_WEIGHT in chunk:
        made = {**made, tasks.LABEL_WEIGHT: chunk[tasks.LABEL_WEIGHT]}
    return made


def _project(task: tasks.Task, chunk: tasks.Batch) -> tf.Tensor:
    """Returns the (v * b / k, d) projections of a chunk, without updating moving averages."""
    with batch_norm.moving_average_scale(0.0):
        return task.forward(chunk)["projection"]


def _batch_loss(
    learner: steps.Learner, task: tasks.Task, batch: tasks.Batch, projections: list[tf.Tensor]
) -> tuple[list[tf.Tensor], tasks.Metrics]:
    """Returns the gradient by the projections of each chunk, and the metrics of the batch."""
    assert task.batch_loss is not None
    num_views = sum(projection.shape[0] for projection in projections) // batch["label"].shape[0]
    with tf.GradientTape() as tape:
        tape.watch(projections)
        by_chunk = [tf.split(projection, num_views) for projection in projections]
        by_view = [tf.concat(view, 0) for view in zip(*by_chunk)]  # v times (b, d)
        loss, metrics = task.batch_loss(tf.concat(by_view, 0), batch["label"])
    gradients = tape.gradient(loss, projections, output_gradients=learner.gradient_scale())
    return gradients, {**metrics, steps.TOTAL_LOSS: loss}


def _zeros(learner: steps.Learner, task: tasks.Task) -> tuple[list[tf.Tensor], tasks.Metrics]:
    """Returns the gradients and metrics from which to accumulate."""
    names = (*task.per_example_metrics, steps.TOTAL_LOSS)
    gradients = [tf.zeros_like(variable) for variable in learner.variables]
    return gradients, {name: tf.constant(0.0) for name in names}


def _accumulate(
    learner: steps.Learner,
    task: tasks.Task,
    chunks: int,
    chunk: tasks.Batch,
    projection_grads: tf.Tensor | None,
    gradients: list[tf.Tensor],
    metrics: tasks.Metrics,
) -> tuple[list[tf.Tensor], tasks.Metrics]:
    """Adds the contribution of one chunk to the gradients and to the metrics.

    Args:
        learner: what to train.
        task: the loss to minimize.
        chunks: k.
        chunk: with its views.
        projection_grads: (v * b / k, d) gradient by its projections; None if the task has no
            `batch_loss`.
        gradients: sums over the earlier chunks, one for each variable.
        metrics: sums over the earlier chunks, each divided by k.
    """
    with tf.GradientTape() as tape, batch_norm.moving_average_scale(1 / chunks):
        outputs = task.forward(chunk)
        loss, chunk_metrics = task.per_example_loss(chunk, outputs)
        scale = learner.gradient_scale() / chunks
        target = scale * (loss + learner.weight_decay_loss())
        if projection_grads is not None:
            # The gradient of this product is `projection_grads`, propagated into the weights.
            target += tf.reduce_sum(outputs["projection"] * projection_grads)
    chunk_gradients = tape.gradient(
        target, learner.variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    chunk_metrics[steps.TOTAL_LOSS] = loss
    return (
        [total + new for total, new in zip(gradients, chunk_gradients)],
        {name: total + chunk_metrics[name] / chunks for name, total in metrics.items()},
    )


def _apply(
    learner: steps.Learner,
    gradients: list[tf.Tensor],
    metrics: tasks.Metrics,
    batch_metrics: tasks.Metrics,
) -> tasks.Metrics:
    """Updates the variables, and returns the metrics of the step."""
    weight_decay = learner.weight_decay_loss()
    total = metrics[steps.TOTAL_LOSS] + weight_decay + batch_metrics.get(steps.TOTAL_LOSS, 0.0)
    return {
        **metrics,
        **batch_metrics,
        steps.WEIGHT_DECAY: weight_decay,
        steps.TOTAL_LOSS: total,
        steps.GRADIENT_NORM: learner.apply(gradients, total),
    }
