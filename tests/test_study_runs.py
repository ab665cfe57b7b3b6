"""How the runs of a study are trained: their processes, their order, and jobs of a cluster."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import resource
import signal
import threading
import time
from typing import Any

import pytest
import tiny_studies

from simclr_tf import errors, preemption
from simclr_tf.runs import listing
from simclr_tf.studies import attempts, cells, launchers, schedule

pytestmark = pytest.mark.exhaustive


def test_a_run_that_ends_well_is_done_and_its_costs_are_measured(tmp_path):
    code = "import time; print('hello'); x = bytearray(80_000_000); sum(range(3_000_000))"
    record = attempts.train(tiny_studies.python(code), str(tmp_path / "run"))
    assert record.status == "done"
    assert record.error == ""
    assert 0.01 < record.cpu_seconds <= record.seconds * (os.cpu_count() or 1) + 1
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert max(80e6, own / 2) < record.peak_memory < own + 80e6
    assert attempts.read(str(tmp_path / "run")) == record
    assert (tmp_path / "run" / "output.log").read_text() == "hello\n"


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        (
            "print('error: the disk is full.'); print('bye'); exit(2)",
            "failed",
            "error: the disk is full.",
        ),
        ("raise ValueError('no such thing')", "failed", "ValueError: no such thing"),
        ("exit(3)", "failed", "Exit code 3 without output."),
        ("print('Ended by SIGTERM.'); exit(143)", "interrupted", "Ended by SIGTERM."),
        ("import os; os.kill(os.getpid(), 9)", "failed", "Killed by SIGKILL; lack of memory is"),
        ("import os; os.kill(os.getpid(), 15)", "interrupted", "Killed by SIGTERM"),
    ],
)
def test_a_run_that_does_not_end_well_says_why(tmp_path, code, status, error):
    record = attempts.train(tiny_studies.python(code), str(tmp_path))
    assert record.status == status
    assert record.error.startswith(error)


def test_the_costs_of_attempts_are_added_and_only_the_last_error_counts(tmp_path):
    code = "import time; time.sleep({}); print('error: {}'); exit({})"
    first = attempts.train(tiny_studies.python(code.format(0.3, "one", 2)), str(tmp_path))
    second = attempts.train(tiny_studies.python("exit(2)"), str(tmp_path))
    third = attempts.train(tiny_studies.python(code.format(0.3, "three", 0)), str(tmp_path))
    assert [one.attempts for one in (first, second, third)] == [1, 2, 3]
    assert second.error == "Exit code 2 without output."
    assert third.seconds > 0.6
    assert third.cpu_seconds > second.cpu_seconds > first.cpu_seconds
    assert third.peak_memory == max(one.peak_memory for one in (first, second, third))


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"status": "done"}', '{"command": 3}'])
def test_a_damaged_record_is_that_of_a_run_to_start_again(tmp_path, content):
    (tmp_path / "cell.json").write_text(content)
    assert attempts.read(str(tmp_path)) is None
    assert attempts.train(tiny_studies.python("pass"), str(tmp_path)).attempts == 1


def test_records_of_cells_that_were_trained_earlier_can_be_read(tmp_path):
    stored: dict[str, Any] = {
        "status": "done",
        "command": ["python", "run.py"],
        "seconds": 1.5,
        "cpu_seconds": 1.0,
        "peak_memory": 3,
        "attempts": 1,
        "host": "vm",
        "cores": 1,
        "error": "",
    }
    (tmp_path / "cell.json").write_text(json.dumps(stored))
    assert attempts.read(str(tmp_path)) == attempts.Record(
        **{**stored, "command": ("python", "run.py")}
    )


def test_a_finished_run_whose_settings_meant_something_else_is_refused(tmp_path):
    run = cells.Run({"dataset": "digits", "train_epochs": 3}, title="a cell")
    folder = pathlib.Path(run.folder(str(tmp_path)))
    folder.mkdir(parents=True)
    record = dataclasses.asdict(tiny_studies.record())
    (folder / attempts.RECORD).write_text(json.dumps(record))
    # The program has chosen the batch size, and has had no other default since.
    same = dataclasses.replace(run.config(str(tmp_path)), train_batch_size=64)
    (folder / "flags.txt").write_text(same.to_flagfile())
    assert list(schedule.finished([run], str(tmp_path))) == [run.identity]
    other = dataclasses.replace(same, weight_decay=0.5)
    (folder / "flags.txt").write_text(other.to_flagfile())
    with pytest.raises(errors.UserError, match=r"other settings .--weight_decay: 0.5 stored"):
        schedule.finished([run], str(tmp_path))


def test_a_run_that_another_study_finished_meanwhile_stays_done(tmp_path):
    done = json.dumps(json.loads(json.dumps(tiny_studies.record().__dict__)))
    code = f"open('{tmp_path}/cell.json', 'w').write('''{done}'''); exit(2)"
    assert attempts.train(tiny_studies.python(code), str(tmp_path)).status == "done"
    assert attempts.read(str(tmp_path)).status == "done"


def test_a_run_that_another_study_trains_is_waited_for(tmp_path):
    begun, go_on = tmp_path / "begun", tmp_path / "go on"
    code = (
        f"import os, time; open('{begun}', 'a').write('x'); "
        f"[time.sleep(0.05) for _ in range(600) if not os.path.exists('{go_on}')]"
    )
    studies = [launchers.Local(1) for _ in range(2)]
    first = studies[0].submit(tiny_studies.python(code), str(tmp_path / "run"))
    tiny_studies.wait_for(begun)
    second = studies[1].submit(tiny_studies.python(code), str(tmp_path / "run"))
    time.sleep(0.5)
    assert not second.done()
    go_on.touch()
    assert first.result() == second.result()
    assert begun.read_text() == "x"
    assert attempts.read(str(tmp_path / "run")).attempts == 1


def test_a_study_that_waits_for_another_one_can_be_ended(tmp_path):
    studies = [launchers.Local(1) for _ in range(2)]
    waits = tiny_studies.python(tiny_studies.WAITS.format(tmp_path / "started"))
    first = studies[0].submit(waits, str(tmp_path / "run"))
    tiny_studies.wait_for(tmp_path / "started")
    second = studies[1].submit(waits, str(tmp_path / "run"))
    time.sleep(0.3)
    studies[1].close()
    assert second.result().status == "interrupted"
    assert attempts.read(str(tmp_path / "run")) is None
    assert not first.done()
    studies[0].close()


def test_more_jobs_than_processors_are_refused(monkeypatch):
    monkeypatch.setattr(attempts, "processors", lambda: [0, 3])
    with pytest.raises(errors.UserError, match=r"--jobs=3 needs .* has 2; give at most --jobs=2"):
        launchers.Local(3)


@pytest.mark.skipif(len(attempts.processors()) < 2, reason="one processor")
def test_each_job_has_processors_of_its_own(tmp_path):
    launcher = launchers.Local(2)
    code = "import os, time; print(sorted(os.sched_getaffinity(0))); time.sleep(0.5)"
    code = f"import time; time.sleep(0.2); {code}"
    jobs = [launcher.submit(tiny_studies.python(code), str(tmp_path / str(i))) for i in range(2)]
    assert [job.result().status for job in jobs] == ["done", "done"]
    launcher.close()
    used = [json.loads((tmp_path / str(i) / "output.log").read_text()) for i in range(2)]
    assert sorted(used[0] + used[1]) == attempts.processors()


def test_closing_ends_what_runs_and_starts_nothing_else(tmp_path):
    launcher = launchers.Local(1)
    running = launcher.submit(
        tiny_studies.python(tiny_studies.WAITS.format(tmp_path / "started")), str(tmp_path / "a")
    )
    queued = launcher.submit(tiny_studies.python("pass"), str(tmp_path / "b"))
    tiny_studies.wait_for(tmp_path / "started")
    start = time.monotonic()
    launcher.close()
    assert time.monotonic() - start < 20
    assert running.result().status == "interrupted"
    assert queued.done()
    assert attempts.read(str(tmp_path / "b")) is None


def test_a_second_signal_ends_runs_that_are_saving(tmp_path, monkeypatch):
    # The first signal is ignored, as by a run that takes long to save.
    code = "import signal; signal.signal(15, lambda *_: signal.signal(15, signal.SIG_DFL)); "
    launcher = launchers.Local(1)
    job = launcher.submit(
        tiny_studies.python(code + tiny_studies.WAITS.format(tmp_path / "started")),
        str(tmp_path / "a"),
    )
    tiny_studies.wait_for(tmp_path / "started")
    shutdown = launcher._pool.shutdown

    def interrupted(**_):
        time.sleep(0.3)
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher._pool, "shutdown", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launcher.close()
    assert job.result().status == "interrupted"
    shutdown()


class Fake:
    """A launcher whose jobs end when they are looked at for the second time."""

    def __init__(self, jobs=2, failing=(), error=None):
        self.jobs, self.failing, self.error = jobs, failing, error
        self.started, self.running, self.most, self.closed = [], 0, 0, 0

    def submit(self, command, folder):
        identity = pathlib.Path(folder).name
        self.started.append(identity)
        self.running += 1
        self.most = max(self.most, self.running)
        looks = iter([False, True])
        status = "failed" if identity in self.failing else "done"

        def done():
            if self.error is not None:
                raise self.error
            ended = next(looks)
            self.running -= ended
            return ended

        fake = type("Job", (), {})()
        fake.done, fake.result = done, lambda: tiny_studies.record(status, error="error: no.")
        return fake

    def close(self):
        self.closed += 1
        return "Closed."


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(schedule, "_LOOK_SECONDS", 0)


FIRST = [cells.Run({"seed": seed, "mode": "train"}, None, f"first {seed}") for seed in (0, 1)]
RUNS = [
    cells.Run({"seed": 0, "image_size": side}, FIRST[side % 2], f"run {side}")
    for side in range(8, 12)
]


def train(launcher, root, runs=RUNS, handled=None):
    handled = handled or preemption.Preemption()
    return schedule.train_all(runs, str(root), lambda: launcher, handled, what="test")


def test_each_run_is_trained_once_after_its_first_stage_and_few_at_a_time(tmp_path, quick):
    launcher = Fake(jobs=3)
    records = train(launcher, tmp_path, [*RUNS, *RUNS])
    assert sorted(launcher.started) == sorted(one.identity for one in (*FIRST, *RUNS))
    for one in RUNS:
        started = launcher.started.index
        assert started(one.parent.identity) < started(one.identity)
    assert len(records) == 6
    assert launcher.most == 3
    assert launcher.closed == 1


def test_a_run_that_fails_leaves_out_only_what_starts_from_it(tmp_path, quick, capsys):
    launcher = Fake(failing={FIRST[0].identity})
    records = train(launcher, tmp_path)
    assert launcher.started.count(FIRST[0].identity) == 1
    assert {one.title for one in RUNS if one.identity in records} == {"run 9", "run 11"}
    printed = capsys.readouterr().out
    assert "first 0 failed: error: no. Its output is in" in printed
    assert "run 8 is left out, because its first stage is not done." in printed


def test_a_log_has_a_line_at_the_start_and_one_for_every_change(tmp_path, quick, capsys):
    train(Fake(jobs=1), tmp_path, FIRST)
    lines = [line.split("  ")[:2] for line in capsys.readouterr().out.splitlines()]
    assert lines == [["test 0/2", "first 0"], ["test 1/2", "first 1"], ["test 2/2", ""]]


def test_runs_that_are_done_are_not_started(tmp_path, quick):
    for one in (FIRST[1], RUNS[1]):
        attempts.train(tiny_studies.python("pass"), one.folder(str(tmp_path)))
    launcher = Fake()
    train(launcher, tmp_path)
    assert not {FIRST[1].identity, RUNS[1].identity} & set(launcher.started)
    assert len(launcher.started) == 4

    for one in (*FIRST, *RUNS):
        attempts.train(tiny_studies.python("pass"), one.folder(str(tmp_path)))
    assert len(train(None, tmp_path)) == 6  # No launcher is needed.


def test_a_run_is_listed_with_what_each_study_calls_it(tmp_path, quick):
    folder = pathlib.Path(FIRST[0].folder(str(tmp_path)))
    train(Fake(), tmp_path, FIRST[:1])
    (folder / "flags.txt").write_text("--dataset=digits\n")
    assert [one.cells for one in listing.find(str(tmp_path))] == [("first 0",)]
    # It is done, and another study has it, too.
    attempts.train(tiny_studies.python("pass"), str(folder))
    (folder / "flags.txt").unlink()
    for _ in range(2):
        train(None, tmp_path, [dataclasses.replace(FIRST[0], title="other")])
    (folder / "flags.txt").write_text("--dataset=digits\n")
    assert [one.cells for one in listing.find(str(tmp_path))] == [("first 0", "other")]


def test_an_exception_closes_the_launcher(tmp_path, quick, capsys):
    launcher = Fake(error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(launcher, tmp_path)
    assert launcher.closed == 1
    assert "Closed." in capsys.readouterr().out


def test_a_signal_lets_the_runs_save_before_the_program_ends(tmp_path):
    with preemption.Preemption() as handled, pytest.raises(preemption.Preempted) as raised:
        handled.listen("TERM")
        launcher = launchers.Local(1)
        waiting = tiny_studies.python(tiny_studies.WAITS.format(tmp_path / "started"))

        def end():
            tiny_studies.wait_for(tmp_path / "started")
            os.kill(os.getpid(), signal.SIGTERM)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(schedule, "command", lambda *_: waiting)
            threading.Thread(target=end).start()
            train(launcher, tmp_path, FIRST, handled)
    assert "after a checkpoint was saved" in str(raised.value)
    assert attempts.read(FIRST[0].folder(str(tmp_path))).status == "interrupted"
    assert attempts.read(FIRST[1].folder(str(tmp_path))) is None
