"""Trains the runs of a study as jobs of a cluster, by submitit.

The number of a job is kept in the run directory, so that a study that was stopped and is started
again waits for its jobs instead of submitting them a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import os
import pathlib
from typing import Any

from simclr_tf import errors, storage
from simclr_tf.studies import attempts

JOB = "job.json"
_UNKNOWN = "UNKNOWN"
# How long a job may take unless --slurm_parameters says so; submitit's own 5 are not enough.
_MINUTES = 720


class Job:
    """A job of submitit that trains a run."""

    def __init__(self, job: Any, command: Sequence[str], folder: str) -> None:
        """Waits for a job.

        Args:
            job: the `submitit.Job`.
            command: what trains the run.
            folder: the run directory.
        """
        self._job, self._command, self._folder = job, command, folder

    def done(self) -> bool:
        """Returns whether it has ended."""
        return _has_ended(self._job)

    def result(self) -> attempts.Record:
        """Returns how it ended, also if the cluster ended it."""
        try:
            return self._job.result()
        except Exception as error:  # submitit raises whatever it finds, such as errors of the job.
            return attempts.lost(self._command, self._folder, _reason(error))


def _has_ended(job: Any) -> bool:
    import submitit

    if isinstance(job, submitit.LocalJob) and job._process is None:
        # Started by another process, so submitit does not know whether it is running.
        return job.paths.result_pickle.exists() or not _is_running(int(job.job_id))
    return job.done()


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def _reason(error: Exception) -> str:
    """Returns the error of the job, or the two lines in which submitit says what is missing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    errors_of_job = [line for line in lines if line.partition(":")[0].endswith("Error")]
    return " ".join(errors_of_job[-1:] or lines[:2]) or type(error).__name__


class Submitit:
    """Trains runs by submitit, on a cluster with Slurm or, for tests, in processes here."""

    def __init__(self, folder: str, cluster: str, *, jobs: int, parameters: str) -> None:
        """Sets up submitit.

        Args:
            folder: where it keeps its files; all machines must see it.
            cluster: "slurm" or "local".
            jobs: how many jobs may be submitted at a time.
            parameters: NAME=VALUE of submitit's parameters, comma-separated, such as
                slurm_partition=gpu,gpus_per_node=1,timeout_min=600.

        Raises:
            UserError: if submitit is not installed or refuses the parameters.
        """
        try:
            import submitit
        except ImportError as error:
            raise errors.UserError(
                "--launcher=slurm needs the package submitit; install it with pip install submitit."
            ) from error
        self.jobs = jobs
        self._folder, self._cluster = folder, cluster
        self._class = submitit.LocalJob if cluster == "local" else submitit.SlurmJob
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            own = {"name": "simclr-study", "timeout_min": _MINUTES}
            self._executor.update_parameters(**{**own, **_parameters(parameters)})
        except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
            raise _refused(error) from error

    def submit(self, command: Sequence[str], folder: str) -> Job:
        """Submits a run, or waits for the job that was submitted for it earlier.

        Raises:
            UserError: if the cluster refuses the job.
        """
        job = self._submitted(folder)
        if job is None:
            os.makedirs(folder, exist_ok=True)
            try:
                with _importable():
                    job = self._executor.submit(attempts.train, list(command), folder)
            except Exception as error:  # submitit raises errors of sbatch as several classes.
                raise _refused(error) from error
            stored = {"cluster": self._cluster, "job": job.job_id, "folder": self._folder}
            storage.write_json(os.path.join(folder, JOB), stored)
        return Job(job, command, folder)

    def _submitted(self, folder: str) -> Any | None:
        """Returns the job of a run that has not ended, None if there is none."""
        path = os.path.join(folder, JOB)
        if not os.path.exists(path):
            return None
        stored = storage.read_json(path)
        if stored.get("cluster") != self._cluster:
            return None
        job: Any = self._class(folder=pathlib.Path(stored["folder"]), job_id=stored["job"])
        # A job that the cluster no longer knows has ended; if not, the lock of the run directory
        # keeps its training apart from a second one.
        if _has_ended(job) or job.state.upper() == _UNKNOWN:
            return None
        return job

    def close(self) -> str:
        """Leaves the jobs in the queue of the cluster."""
        return (
            "Jobs that were submitted continue; squeue lists them, and the same command waits for "
            "them and collects their results."
        )


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Lets jobs that are submitted meanwhile import this package: they have this environment."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = attempts.python_path()
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _refused(error: Exception) -> errors.UserError:
    return errors.UserError(
        f"submitit cannot start jobs ({' '.join(str(error).split()).rstrip('.')}); correct "
        "--slurm_parameters, or use --launcher=local."
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
