"""Only one training at a time writes into a run directory."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import subprocess
import sys
import threading
import time

import psutil
import pytest
import tensorflow as tf
import tiny_runs

import run
from simclr_tf import errors
from simclr_tf.runs import holder as holder_lib
from simclr_tf.runs import lock
from simclr_tf.serving import export
from simclr_tf.training import loop


def write_lock(folder: pathlib.Path, **changes: object) -> pathlib.Path:
    """Writes the lock file of this process, with some values changed; None omits one."""
    process = psutil.Process()
    content = {
        "host": platform.node(),
        "pid": process.pid,
        "created": process.create_time(),
        "started": "2026-01-02T03:04:05+00:00",
        "since_boot": process.create_time() - psutil.boot_time(),
        "beats": 3,
        **changes,
    }
    content = {name: value for name, value in content.items() if value is not None}
    path = folder / lock.LOCK
    path.write_text(json.dumps(content))
    return path


def ended_process() -> int:
    """Returns the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def refusal(folder: pathlib.Path) -> str:
    """Returns the sentence with which a second training is refused."""
    with pytest.raises(errors.UserError) as raised, lock.hold(str(folder)):
        pass
    message = str(raised.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_a_lock_names_host_process_and_time_and_is_removed_at_the_end(tmp_path):
    with lock.hold(str(tmp_path)):
        content = json.loads((tmp_path / lock.LOCK).read_text())
        assert (content["host"], content["pid"]) == (platform.node(), os.getpid())
        assert content["created"] == psutil.Process().create_time()
        assert content["started"].startswith("20")
        assert content["started"].endswith("+00:00")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, errors.UserError, SystemExit])
def test_a_lock_is_removed_after_an_error_and_ctrl_c(tmp_path, error):
    def fail() -> None:
        assert (tmp_path / lock.LOCK).exists()
        raise error

    with pytest.raises(error), lock.hold(str(tmp_path)):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_a_running_process_is_refused_and_left(tmp_path):
    path = write_lock(tmp_path)
    before = tiny_runs.snapshot(tmp_path)
    message = refusal(tmp_path)
    assert (
        f"{path} is held by another training (process {os.getpid()} on {platform.node()},"
        in message
    )
    assert "started at 2026-01-02T03:04:05+00:00), which is running" in message
    assert "use another --model_dir" in message
    assert tiny_runs.snapshot(tmp_path) == before


def test_a_lock_of_a_process_that_has_ended_is_taken_over_and_reported(tmp_path, capsys):
    pid = ended_process()
    path = write_lock(tmp_path, pid=pid)
    with lock.hold(str(tmp_path)):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        assert [file.name for file in tmp_path.iterdir()] == [lock.LOCK]
    assert f"{path} was left by process {pid} of this host" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_process_id_that_was_used_again_is_recognised(tmp_path, capsys):
    before = psutil.Process().create_time() - 3600
    write_lock(tmp_path, created=before, since_boot=before - psutil.boot_time())
    with lock.hold(str(tmp_path)):
        pass
    assert "this training takes over" in capsys.readouterr().out


def test_a_process_that_started_before_the_clock_was_set_back_is_running(tmp_path, monkeypatch):
    write_lock(tmp_path)
    times = psutil.Process().create_time(), psutil.boot_time()
    # The system computes both from the clock as it is now.
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: times[0] - 3600)
    monkeypatch.setattr(psutil, "boot_time", lambda: times[1] - 3600)
    assert "which is running" in refusal(tmp_path)


def test_a_lock_by_an_earlier_version_is_judged_by_the_time_of_creation(tmp_path, capsys):
    write_lock(tmp_path, since_boot=None, beats=None)
    assert "which is running" in refusal(tmp_path)
    write_lock(tmp_path, since_boot=None, beats=None, created=5.0)
    with lock.hold(str(tmp_path)):
        pass
    assert "this training takes over" in capsys.readouterr().out


def test_a_lock_of_another_host_by_an_earlier_version_is_refused_with_the_remedy(tmp_path):
    write_lock(tmp_path, host="elsewhere", pid=ended_process(), since_boot=None, beats=None)
    message = refusal(tmp_path)
    assert "on elsewhere" in message
    assert "delete the file if that process has ended" in message
    assert (tmp_path / lock.LOCK).exists()


def test_a_lock_that_names_no_process_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_READING_SECONDS", 0.0)
    (tmp_path / lock.LOCK).write_text("")
    message = refusal(tmp_path)
    assert f"{tmp_path / lock.LOCK} does not say which process holds it; delete" in message


def test_a_lock_that_another_process_took_meanwhile_is_not_removed(tmp_path):
    with lock.hold(str(tmp_path)):
        write_lock(tmp_path, host="elsewhere")
    assert json.loads((tmp_path / lock.LOCK).read_text())["host"] == "elsewhere"


@pytest.mark.exhaustive
@pytest.mark.parametrize("stale", [False, True])
def test_of_several_starts_at_the_same_moment_one_succeeds(tmp_path, monkeypatch, stale):
    check, seen = lock._check_ended, threading.Barrier(6)

    def check_together(holder: holder_lib.Holder, path: str) -> None:
        check(holder, path)
        seen.wait(timeout=30)  # All have seen the lock of the process that has ended.

    monkeypatch.setattr(lock, "_check_ended", check_together)
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        if stale:
            write_lock(folder, created=0.0, since_boot=0.0)
        outcomes = _start_together(folder, 6)
        assert outcomes.count("held") == 1, outcomes
        assert outcomes.count("refused") == 5
        assert list(folder.iterdir()) == []


def _start_together(folder: pathlib.Path, count: int) -> list[str]:
    """Starts some threads together that hold the lock of a folder until all have tried."""
    outcomes: list[str] = []
    begin, tried = threading.Barrier(count), threading.Barrier(count)

    def start() -> None:
        begin.wait()
        try:
            with lock.hold(str(folder)):
                outcomes.append("held")
                tried.wait(timeout=30)
        except errors.UserError:
            outcomes.append("refused")
            tried.wait(timeout=30)

    threads = [threading.Thread(target=start) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_a_file_system_that_is_not_of_the_operating_system_is_locked_too():
    folder = f"ram://locks-{time.time_ns()}"
    tf.io.gfile.makedirs(folder)
    with lock.hold(folder) as held:
        held.check(now=True)  # Renews it.
        assert tf.io.gfile.exists(f"{folder}/{lock.LOCK}")
        with pytest.raises(errors.UserError, match="held by another training"), lock.hold(folder):
            pass
    assert not tf.io.gfile.exists(f"{folder}/{lock.LOCK}")


def test_a_second_training_is_refused_while_the_first_one_runs_and_an_evaluation_is_not(
    pretrained, photos, capsys, monkeypatch
):
    monkeypatch.setattr(export, "export", lambda *_, **__: "")
    for path in pretrained.glob("ckpt-4*"):
        path.unlink()
    codes, files = [], []

    def start_others(*_: object, **__: object) -> None:
        if files:
            return  # A second one that was not refused.
        files.append((pretrained / lock.LOCK).exists())
        before = tiny_runs.snapshot(pretrained)
        codes.append(tiny_runs.main("pretrain", pretrained, photos, **tiny_runs.NO_COLOR))
        assert tiny_runs.snapshot(pretrained) == before
        evaluate = ["run.py", "--mode=eval", f"--model_dir={pretrained}", "--nolinear_eval"]
        codes.append(run.main(evaluate))

    monkeypatch.setattr(loop, "fit", start_others)
    assert tiny_runs.main("pretrain", pretrained, photos, **tiny_runs.NO_COLOR) == 0
    assert (files, codes) == ([True], [2, 0])
    assert f"error: {pretrained / lock.LOCK} is held by another" in capsys.readouterr().err
    assert not (pretrained / lock.LOCK).exists()
