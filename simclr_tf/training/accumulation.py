"""A training step that holds one chunk of its batch at a time and descends the same gradient.

Plain accumulation of gradients over chunks would compare the images of each chunk among
themselves only. Here every chunk is run twice (Gao et al. 2021, "GradCache"): once to get its
projections, from which the loss of the whole batch and its gradient by every projection follow;
and once more to carry that gradient on into the weights.

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

    def run(replicas: distribute.Replicas, batch: steps.Batch) -> steps.Metrics:
        # Loops run over all replicas together: within one, replicas could not exchange anything.
        def repeat(function: Callable[..., Any], fixed: tuple[Any, ...], *state: Any) -> Any:
            # A call, not inlined: otherwise TensorFlow's memory optimizer may put a temporary
            # variable into the body that the iteration after the last makes and never deletes,
            # and the next step fails on it ("AlreadyExists").
            @tf.function(experimental_attributes={"_noinline": True})
            def once(fixed: tuple[Any, ...], index: tf.Tensor, state: Any) -> Any:
                return replicas.run(function, *fixed, index, *state)

            def body(index: tf.Tensor, *state: Any) -> tuple[Any, ...]:
                return index + 1, *once(fixed, index, state)

            start = (tf.constant(0), *state)
            return tf.while_loop(
                lambda index, *_: index < chunks, body, start, parallel_iterations=1
            )[1:]

        slopes, of_batch = (), {}
        if task.together is not None:
            empty = replicas.run(chunked.no_projections, batch)
            (projections,) = repeat(chunked.project, (batch,), empty)
            slopes, of_batch = replicas.run(chunked.judge, batch, projections)
        sums = replicas.run(chunked.nothing)
        sums = repeat(chunked.add, (batch, slopes), *sums)
        return replicas.run(chunked.finish, of_batch, *sums)

    return steps.Step(run, task.metrics)


@dataclasses.dataclass(frozen=True)
class _Chunked:
    """What one replica does between the loops and within them."""

    learner: steps.Learner
    task: steps.Task
    chunks: int

    def _chunk(self, batch: steps.Batch, index: tf.Tensor) -> steps.Batch:
        size = batch["label"].shape[0] // self.chunks
        part = {
            name: tf.ensure_shape(x[index * size : (index + 1) * size], [size, *x.shape[1:]])
            for name, x in batch.items()
        }
        return self.task.views(part)

    def no_projections(self, batch: steps.Batch) -> tf.Tensor:
        """Returns the (k, v * b / k, d) place for projections."""
        views = self.task.num_views * batch["label"].shape[0]
        width = self.learner.model.projection_width
        return tf.zeros([self.chunks, views // self.chunks, width])

    def project(
        self, batch: steps.Batch, index: tf.Tensor, projections: tf.Tensor
    ) -> tuple[tf.Tensor]:
        """Fills in the projections of one chunk, and leaves no other trace."""
        with batch_norm.averages_following(0.0):
            made = self.task.forward(self._chunk(batch, index))["projection"]
        return (tf.tensor_scatter_nd_update(projections, [[index]], made[tf.newaxis]),)

    def judge(self, batch: steps.Batch, projections: tf.Tensor) -> tuple[tf.Tensor, steps.Metrics]:
        """Returns the gradient by every projection, (k, v * b / k, d), and the batch's metrics."""
        assert self.task.together is not None
        k, v = self.chunks, self.task.num_views
        with tf.GradientTape() as tape:
            tape.watch(projections)
            by_view = tf.reshape(projections, [k, v, -1, projections.shape[2]])
            by_view = tf.transpose(by_view, [1, 0, 2, 3])  # (v, k, b / k, d)
            whole = tf.reshape(by_view, [-1, projections.shape[2]])  # (v * b, d)
            cost, metrics = self.task.together(whole, batch["label"])
        slopes = tape.gradient(cost, projections, output_gradients=self.learner.share())
        return slopes, {**metrics, steps.TOTAL: cost}

    def nothing(self) -> tuple[list[tf.Tensor], steps.Metrics]:
        """Returns sums of gradients and of metrics that are still zero."""
        zeros = {name: tf.constant(0.0) for name in (*self.task.each_metrics, steps.TOTAL)}
        return [tf.zeros_like(variable) for variable in self.learner.variables], zeros

    def add(
        self,
        batch: steps.Batch,
        slopes: Any,
        index: tf.Tensor,
        gradients: list[tf.Tensor],
        sums: steps.Metrics,
    ) -> tuple[list[tf.Tensor], steps.Metrics]:
        """Adds the share of one chunk to the gradients and to the metrics."""
        chunk, k = self._chunk(batch, index), self.chunks
        with tf.GradientTape() as tape, batch_norm.averages_following(1 / k):
            outputs = self.task.forward(chunk)
            cost, metrics = self.task.each(chunk, outputs)
            share = self.learner.share() / k
            descended = share * (cost + self.learner.decay())
            if self.task.together is not None:
                descended += tf.reduce_sum(outputs["projection"] * slopes[index])
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
