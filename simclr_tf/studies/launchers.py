"""Where the runs of a study are trained: on this machine, or by Slurm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent import futures
import queue
from typing import Protocol

from simclr_tf import console, errors
from simclr_tf.studies import attempts, cluster


class Job(Protocol):
    """A run that is being trained."""

    def done(self) -> bool:
        """Returns whether it has ended."""

    def result(self) -> attempts.Record:
        """Returns how it ended; waits for that."""


class Launcher(Protocol):
    """Trains runs.

    Attributes:
        jobs: how many runs it is given at a time.
    """

    jobs: int

    def submit(self, command: Sequence[str], folder: str) -> Job:
        """Starts to train a run, or puts it in a queue."""

    def close(self) -> str:
        """Ends what can be ended, and returns a sentence on what happens to the rest."""


class Local:
    """Trains runs on this machine, several at a time, each on processors of its own."""

    def __init__(self, jobs: int) -> None:
        """Divides the processors among the jobs.

        Args:
            jobs: number of runs at a time.

        Raises:
            UserError: if there are more jobs than processors.
        """
        available = attempts.processors()
        if jobs > len(available):
            raise errors.UserError(
                f"--jobs={jobs} needs a processor for each job, and this machine has "
                f"{len(available)}; give at most --jobs={len(available)}."
            )
        self.jobs = jobs
        self._processes = attempts.Processes()
        self._pool = futures.ThreadPoolExecutor(jobs)
        self._cores: queue.Queue[list[int] | None] = queue.Queue()
        for job in range(jobs):
            self._cores.put(available[job::jobs] if jobs > 1 else None)

    def submit(self, command: Sequence[str], folder: str) -> Job:
        """Trains a run as soon as one of the jobs is free."""
        return self._pool.submit(self._train, command, folder)

    def _train(self, command: Sequence[str], folder: str) -> attempts.Record:
        cores = self._cores.get()
        try:
            return attempts.train(command, folder, processes=self._processes, cores=cores)
        finally:
            self._cores.put(cores)

    def close(self) -> str:
        """Ends all runs, which save a checkpoint first."""
        if self._processes.any_running:
            console.say("Ending the runs, which save a checkpoint first. Ctrl-C ends them at once.")
        self._processes.end_all()
        try:
            self._pool.shutdown(wait=True, cancel_futures=True)
        except BaseException:  # The user does not want to wait for checkpoints.
            self._processes.end_all()
            raise
        return "The runs have ended; what they trained is in their checkpoints."


def make(name: str, *, folder: str, jobs: int, parameters: str) -> Callable[[], Launcher]:
    """Returns what makes a launcher, see --launcher."""
    if name == "local":
        return lambda: Local(jobs)
    return lambda: cluster.Submitit(folder, name, jobs=jobs, parameters=parameters)
