"""Where the runs of a study are trained: on this machine, or by Slurm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent import futures
import os
import queue
from typing import Any, Protocol

from simclr_tf import errors
from simclr_tf.studies import attempts


class Job(Protocol):
    """A run that is being trained."""

    def done(self) -> bool:
        """Returns whether it has ended."""

    def result(self) -> Any:
        """Returns how it ended; waits for that."""


class Launcher(Protocol):
    """Trains runs."""

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
        available = _processors()
        if jobs > len(available):
            raise errors.UserError(
                f"--jobs={jobs} needs a processor for each job, and this machine has "
                f"{len(available)}; give at most --jobs={len(available)}."
            )
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
        self._processes.end_all()
        self._pool.shutdown(wait=True, cancel_futures=True)
        return "The runs have saved their checkpoints."


def _processors() -> list[int]:
    """Returns the numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class Submitit:
    """Trains runs by submitit, on a cluster with Slurm or, for tests, in processes here."""

    def __init__(self, folder: str, *, cluster: str, jobs: int, parameters: str) -> None:
        """Sets up submitit.

        Args:
            folder: where it keeps its files; all machines must see it.
            cluster: "slurm" or "local".
            jobs: how many runs at a time.
            parameters: NAME=VALUE of submitit's parameters, comma-separated, such as
                slurm_partition=gpu,gpus_per_node=1,timeout_min=600.

        Raises:
            UserError: if submitit is not installed or refuses the parameters.
        """
        try:
            import submitit
        except ImportError as error:
            raise errors.UserError(
                "--launcher=slurm needs the package submitit; install it with "
                "pip install 'simclr-tf[cluster]' or pip install submitit."
            ) from error
        self._folder = folder
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            limit = {"slurm_array_parallelism": jobs} if cluster == "slurm" else {}
            self._executor.update_parameters(
                name="simclr-study", **limit, **_parameters(parameters)
            )
        except (RuntimeError, NameError, ValueError) as error:
            raise errors.UserError(
                f"submitit cannot start jobs ({' '.join(str(error).split()).rstrip('.')}); correct "
                "--slurm_parameters, or use --launcher=local."
            ) from error

    def submit(self, command: Sequence[str], folder: str) -> Job:
        """Submits a run."""
        return self._executor.submit(attempts.train, list(command), folder)

    def close(self) -> str:
        """Leaves the jobs in the queue of the cluster."""
        return (
            "Jobs that were submitted continue; squeue lists them, and the same command waits for "
            "them and collects their results."
        )


def _parameters(text: str) -> dict[str, Any]:
    """Returns the parameters of a list of NAME=VALUE, with whole numbers as int."""
    parameters: dict[str, Any] = {}
    for one in filter(None, (part.strip() for part in text.split(","))):
        name, assigned, value = one.partition("=")
        if not assigned:
            raise ValueError(f"{one!r} is not NAME=VALUE")
        parameters[name] = int(value) if value.isdigit() else value
    return parameters


def make(name: str, *, folder: str, jobs: int, parameters: str) -> Callable[[], Launcher]:
    """Returns what makes a launcher, see --launcher."""
    if name == "local":
        return lambda: Local(jobs)
    return lambda: Submitit(folder, cluster=name, jobs=jobs, parameters=parameters)
