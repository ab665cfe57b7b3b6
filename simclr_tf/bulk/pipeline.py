"""The pipeline of Apache Beam. Nothing else of the project imports Beam."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import contextlib
import logging
import os
import sys
import threading
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference import base
from apache_beam.options import pipeline_options
import psutil

from simclr_tf import errors
from simclr_tf.bulk import network, plan, shards, work

VERSION = beam.__version__
# The part of Beam's DirectRunner that runs in Python alone; DirectRunner itself would first try to
# download another runner.
_DEFAULT_RUNNER = "FnApiRunner"
_MAX_REASON = 300
# The name that Beam gives to a thread that starts a worker process and waits for its end.
_WORKER_THREAD = "run_worker"
# And to one that reads what a worker answers, which fails as well.
_CONTROL_THREAD = "beam_control_read"


class Handler(base.ModelHandler[plan.Shard, shards.Result, network.Network]):
    """Runs the network on shards, for `RunInference`.

    An example is a whole shard, whose images the handler reads and divides into batches. If an
    example were an image, Beam would form the batches, and a shard would only be finished after all
    images had been grouped by shard, that is, at the very end.
    """

    def __init__(self, job: work.Job) -> None:
        super().__init__()
        self._job = job

    def load_model(self) -> network.Network:
        """Loads the SavedModel, once in each process."""
        return work.load(self._job)

    def run_inference(
        self,
        batch: Sequence[plan.Shard],
        model: network.Network,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[shards.Result]:
        """Yields what was computed for each shard."""
        del inference_args
        for shard in batch:
            yield work.compute(self._job, model, shard)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """Returns the settings by which Beam passes on each shard as soon as there is one."""
        return {"min_batch_size": 1, "max_batch_size": 1}

    def get_metrics_namespace(self) -> str:
        """Returns the name under which Beam counts shards and measures their time."""
        return "simclr_tf_bulk"


class Write(beam.DoFn):
    """Writes shards, and counts images."""

    def __init__(self, job: work.Job) -> None:
        super().__init__()
        self._job = job
        self._rows = beam.metrics.Metrics.counter("simclr_tf_bulk", "images")
        self._unreadable = beam.metrics.Metrics.counter("simclr_tf_bulk", "unreadable")

    def process(self, result: shards.Result) -> None:
        """Writes a shard."""
        work.write(self._job, result)
        self._rows.inc(len(result.ids))
        self._unreadable.inc(len(result.unreadable))


def run(job: work.Job, missing: Sequence[plan.Shard], flags: Sequence[str]) -> None:
    """Computes and writes shards, and returns when all are written.

    Args:
        job: what they have in common.
        missing: the shards.
        flags: flags of Beam.

    Raises:
        UserError: if the pipeline fails.
    """
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    logging.getLogger("apache_beam.runners.portability.local_job_service").setLevel(logging.ERROR)
    previous, threading.excepthook = threading.excepthook, _end_if_a_worker_has_ended
    try:
        options = pipeline_options.PipelineOptions(list(flags))
        standard = options.view_as(pipeline_options.StandardOptions)
        standard.runner = standard.runner or _DEFAULT_RUNNER
        pipeline = beam.Pipeline(options=options)
        (
            pipeline
            | "Shards" >> beam.Create(list(missing))
            | "Distribute" >> beam.Reshuffle()
            | "Infer" >> base.RunInference(Handler(job))
            | "Write" >> beam.ParDo(Write(job))
        )
        state = pipeline.run().wait_until_finish()
    except Exception as error:  # Runners raise anything, with what a worker raised in the message.
        raise errors.UserError(
            f"The pipeline stopped ({_reason(error)}). Finished shards are kept: when the cause is "
            "removed, run the same command again."
        ) from error
    finally:
        threading.excepthook = previous
    if state is not None and state != beam.runners.runner.PipelineState.DONE:
        raise errors.UserError(
            f"The pipeline ended in the state {state}; see the log of its runner. Finished shards "
            "are kept: run the same command again."
        )


def _end_if_a_worker_has_ended(raised: threading.ExceptHookArgs) -> None:
    """Ends this process if a worker process of this machine was killed.

    Beam only learns of it in the thread that started the worker, and waits for its answer for ever.
    """
    name = None if raised.thread is None else raised.thread.name
    if name == _CONTROL_THREAD:
        return
    if name != _WORKER_THREAD:
        threading.__excepthook__(raised)
        return
    print(
        f"error: A worker has ended ({raised.exc_value}), as it does if the memory is not enough. "
        "Finished shards are kept: run the same command again, with fewer workers if "
        "it was the memory. With another --batch_size, name another --output.",
        file=sys.stderr,
        flush=True,
    )
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(2)


def _reason(error: Exception) -> str:
    """Returns the last line of an error, without what was raised around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:_MAX_REASON] if lines else type(error).__name__
