"""Shows how many images are finished while a pipeline runs, wherever its workers are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import threading

from simclr_tf import console, errors, storage
from simclr_tf.bulk import plan, shards, work

_POLL_SECONDS = 2.0
_LINE_SECONDS = 10.0


@contextlib.contextmanager
def shown(job: work.Job, planned: plan.Plan, finished: Mapping[int, object]) -> Iterator[None]:
    """Shows the progress by looking at the folder of the output now and then.

    Args:
        job: what all shards have in common.
        planned: all shards.
        finished: the shards that were finished before.
    """
    images = {
        shards.table_name(shard.number, job.num_shards): shard.images for shard in planned.shards
    }
    before = sum(shard.images for shard in planned.shards if shard.number in finished)
    stopped = threading.Event()
    with console.Progress("features", planned.images, before, line_every=_LINE_SECONDS) as progress:

        def look() -> None:
            with contextlib.suppress(errors.UserError):  # What is wrong, the pipeline says.
                done = sum(images.get(name, 0) for name in storage.names_in(job.folder))
                if done < planned.images or progress.done < done:
                    progress.update(done)

        def watch() -> None:
            while not stopped.wait(_POLL_SECONDS):
                look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
        look()
