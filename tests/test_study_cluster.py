"""The runs of a study as jobs of a cluster, by submitit, whose local cluster stands for Slurm."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
import tiny_studies

from simclr_tf import errors
from simclr_tf.studies import attempts, cluster, launchers


def submitit(tmp_path, parameters=""):
    return cluster.Submitit(str(tmp_path / "jobs"), "local", jobs=1, parameters=parameters)


def test_a_study_that_is_started_again_waits_for_the_job_that_it_submitted(tmp_path):
    code = f"import time, os; open('{tmp_path}/' + str(os.getpid()), 'w'); time.sleep(3); exit(2)"
    first = submitit(tmp_path)
    job = first.submit(tiny_studies.python(code), str(tmp_path / "run"))
    assert "the same command waits for them" in first.close()
    again = submitit(tmp_path).submit(tiny_studies.python(code), str(tmp_path / "run"))
    # As in another process, which did not start it.
    assert again._job._process is None
    assert not again.done()
    while not again.done():
        time.sleep(0.1)
    assert again.result() == job.result() == attempts.read(str(tmp_path / "run"))
    assert again.result().status == "failed"
    assert len([path for path in tmp_path.iterdir() if path.name.isdigit()]) == 1
    # A job that has ended is no reason not to submit another one.
    third = submitit(tmp_path).submit(tiny_studies.python("pass"), str(tmp_path / "run"))
    assert third._job.job_id != job._job.job_id
    assert third.result().attempts == 2


def test_a_job_that_its_machine_ended_is_a_run_that_failed(tmp_path):
    code = tiny_studies.WAITS.format(tmp_path / "started")
    job = submitit(tmp_path).submit(tiny_studies.python(code), str(tmp_path / "run"))
    tiny_studies.wait_for(tmp_path / "started")
    os.kill(int(job._job.job_id), signal.SIGKILL)
    os.waitpid(int(job._job.job_id), 0)
    job._job._results_timeout_s = 0
    record = job.result()
    assert record.status == "failed"
    assert "has not produced any output" in record.error


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ("timeout_min", "'timeout_min' is not NAME=VALUE"),
        ("timeout=3", "timeout"),
        ("nodes=2", "LocalExecutor can use only one node"),
    ],
)
def test_parameters_that_submitit_does_not_have_are_refused(tmp_path, parameters, reason):
    with pytest.raises(errors.UserError, match=f"submitit cannot start jobs .*{reason}"):
        submitit(tmp_path, parameters)


def test_a_machine_without_slurm_or_submitit_is_named(tmp_path, monkeypatch):
    make = launchers.make("slurm", folder=str(tmp_path), jobs=1, parameters="")
    with pytest.raises(
        errors.UserError, match=r"cannot start jobs .*slurm cluster.*--launcher=local"
    ):
        make()
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(errors.UserError, match="pip install submitit"):
        make()
