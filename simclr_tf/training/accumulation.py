"""A training step that holds one chunk of its batch at a time and descends the same gradient.

Plain accumulation of gradients over chunks would compare the images of each chunk among
themselves only. Here every chunk is run twice (Gao et al. 2021, "GradCache"): once to get its
projections, from which the loss of the whole batch and its gradient by every projection follow;
and once more to carry that gradient on into the weights.

    for each chunk:   part -> project
    the whole batch:  judge
    for each chunk:   part -> add
    the whole batch:  finish

Each of these is a graph of its own, and the loops are Python's. One graph of all holds the views'
and the network's operations several times over, which was measured to take 100 MiB more, and its
loops TensorFlow may rewrite into ones that fail at their second run.

Batch norm sees one chunk at a time, in both passes the same. Its moving averages follow in the
second pass only, each chunk by a k-th of a step.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import tensorflow as tf

from simclr_tf import distribute
from simclr_tf.models import batch_norm
from simclr_tf.training import steps


def accumulated_step(learner: steps.Learner, task: steps.Task, chunks: int) -> steps.Step:
    """Returns the step that takes the batch of a replica in `chunks` parts, one after another.

    Args:
        learner: what trains.
        task: what it learns.
        chunks: k; divides the images of each replica.

    Returns:
        The step; its metrics are those of `steps.whole_step`.
    """
    chunked = _Chunked(learner, task, chunks)
    return steps.Step(chunked.on, task.metrics, in_pieces=True)


@dataclasses.dataclass(frozen=True)
class _Chunked:
    """What one replica does in each of the programs, and their order."""

    learner: steps.Learner
    task: steps.Task
    chunks: int

    def on(self, replicas: distribute.Replicas) -> Callable[[steps.Batch], steps.Metrics]:
        """Returns the step, over all replicas together: within one, none could reach another."""
        part = replicas.compiled(self.part)
        project, judge = replicas.compiled(self.project), replicas.compiled(self.judge)
        nothing, add = replicas.compiled(self.nothing), replicas.compiled(self.add)
        finish = replicas.compiled(self.finish)

        def run(batch: steps.Batch) -> steps.Metrics:
            indices = [tf.constant(index) for index in range(self.chunks)]
            slopes, of_batch = [()] * self.chunks, {}
            if self.task.together is not None:
                slopes, of_batch = judge(batch, [project(part(batch, i)) for i in indices])
            sums = nothing()
            for index, slope in zip(indices, slopes):
                sums = add(part(batch, index), slope, *sums)
            return finish(of_batch, *sums)

        return run

    def part(self, batch: steps.Batch, index: tf.Tensor) -> steps.Batch:
        """Returns one chunk of the batch, with its views."""
        size = batch["label"].shape[0] // self.chunks
        part = {
            name: tf.ensure_shape(x[index * size : (index + 1) * size], [size, *x.shape[1:]])
            for name, x in batch.items()
        }
        return self.task.views(part)

    def project(self, chunk: steps.Batch) -> tf.Tensor:
        """Returns the (v * b / k, d) projections of a chunk, and leaves no other trace."""
        with batch_norm.moving_average_scale(0.0):
            return self.task.forward(chunk)["projection"]

    def judge(
        self, batch: steps.Batch, projections: list[tf.Tensor]
    ) -> tuple[list[tf.Tensor], steps.Metrics]:
        """Returns the gradient by the projections of each chunk, and the batch's metrics."""
        assert self.task.together is not None
        with tf.GradientTape() as tape:
            tape.watch(projections)
            by_view = [tf.split(chunk, self.task.num_views) for chunk in projections]
            whole = tf.concat([part for view in zip(*by_view) for part in view], 0)  # (v * b, d)
            cost, metrics = self.task.together(whole, batch["label"])
        slopes = tape.gradient(cost, projections, output_gradients=self.learner.share())
        return slopes, {**metrics, steps.TOTAL: cost}

    def nothing(self) -> tuple[list[tf.Tensor], steps.Metrics]:
        """Returns sums of gradients and of metrics that are still zero."""
        zeros = {name: tf.constant(0.0) for name in (*self.task.each_metrics, steps.TOTAL)}
        return [tf.zeros_like(variable) for variable in self.learner.variables], zeros

    def add(
        self,
        chunk: steps.Batch,
        slope: Any,
        gradients: list[tf.Tensor],
        sums: steps.Metrics,
    ) -> tuple[list[tf.Tensor], steps.Metrics]:
        """Adds the share of one chunk to the gradients and to the metrics.

        Args:
            chunk: with its views.
            slope: the gradient by its projections, (v * b / k, d); () if nothing depends on them.
            gradients: those of the chunks before, one for each variable.
            sums: of the metrics of the chunks before.
        """
        k = self.chunks
        with tf.GradientTape() as tape, batch_norm.moving_average_scale(1 / k):
            outputs = self.task.forward(chunk)
            cost, metrics = self.task.each(chunk, outputs)
            share = self.learner.share() / k
            descended = share * (cost + self.learner.decay())
            if self.task.together is not None:
                descended += tf.reduce_sum(outputs["projection"] * slope)
        found = tape.gradient(
            descended, self.learner.variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        metrics[steps.TOTAL] = cost
        return (
            [old + new for old, new in zip(gradients, found)],
            {name: total + metrics[name] / k for name, total in sums.items()},
        )

    def finish(
        self, of_batch: steps.Metrics, gradients: list[tf.Tensor], means: steps.Metrics
    ) -> steps.Metrics:
        """Moves the variables and puts the metrics together."""
        decay = self.learner.decay()
        self.learner.apply(gradients)
        total = means[steps.TOTAL] + decay + of_batch.get(steps.TOTAL, 0.0)
        return {**means, **of_batch, steps.DECAY: decay, steps.TOTAL: total}
