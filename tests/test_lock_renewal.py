"""The lock is renewed by its holder, and taken over on another host if it is not."""

from __future__ import annotations

from collections.abc import Callable
import json
import pathlib
import subprocess
import sys
import time

import pytest
import test_lock
import tiny_runs

from simclr_tf import errors, storage
from simclr_tf.runs import lock
from simclr_tf.training import averages, loop


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the intervals of renewals and of watching."""
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lock, "_SILENT_SECONDS", 0.5)
    monkeypatch.setattr(lock, "_LOOK_SECONDS", 0.05)


def beats(folder: pathlib.Path) -> int:
    return json.loads((folder / lock.LOCK).read_text())["beats"]


def wait_for(condition: Callable[[], bool]) -> bool:
    """Returns whether something becomes true within ten seconds."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_lock_is_renewed_while_the_training_is_busy(tmp_path, quick):
    with lock.hold(str(tmp_path)) as held:
        before = beats(tmp_path)
        assert wait_for(lambda: beats(tmp_path) > before + 2)
    time.sleep(0.1)
    assert list(tmp_path.iterdir()) == []  # The thread has ended, or it would write it again.
    held.check(now=True)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_host_that_is_not_renewed_is_taken_over_after_waiting(
    tmp_path, quick, capsys
):
    path = test_lock.write_lock(tmp_path, host="elsewhere")
    start = time.monotonic()
    with lock.hold(str(tmp_path)):
        assert time.monotonic() - start >= 0.5
        assert json.loads(path.read_text())["host"] != "elsewhere"
    printed = capsys.readouterr().out
    assert "on elsewhere" in printed
    assert f"waiting up to {lock._SILENT_SECONDS:.0f} s to see whether it is running" in printed
    assert "waited, seconds" in printed
    assert "which did not renew it for" in printed
    assert "this training takes over" in printed


def test_the_clocks_of_the_hosts_do_not_matter(tmp_path, quick, monkeypatch):
    """A file whose times are far in the past or the future is judged by its changes alone."""
    for offset in (-1e6, 1e6):
        test_lock.write_lock(
            tmp_path, host="elsewhere", created=time.time() + offset, since_boot=offset
        )
        with lock.hold(str(tmp_path)):
            pass


# Renews a lock as the holder on another host does.
RENEWING = """
import json, os, sys, time
path = sys.argv[1]
for _ in range(300):
    with open(path) as file:
        content = json.load(file)
    content["beats"] += 1
    with open(path + ".other", "w") as file:
        json.dump(content, file)
    os.rename(path + ".other", path)
    time.sleep(0.1)
"""


def test_a_lock_of_another_host_that_is_renewed_is_refused(tmp_path, quick, monkeypatch):
    path = test_lock.write_lock(tmp_path, host="elsewhere")
    monkeypatch.setattr(lock, "_SILENT_SECONDS", 20.0)
    process = subprocess.Popen([sys.executable, "-c", RENEWING, str(path)])
    try:
        message = test_lock.refusal(tmp_path)
    finally:
        process.kill()
        process.wait()
    assert "on elsewhere" in message
    assert "which is running: it renewed the file" in message
    assert json.loads(path.read_text())["host"] == "elsewhere"


def test_a_lock_of_another_host_that_is_removed_meanwhile_is_free(tmp_path, quick, monkeypatch):
    path = test_lock.write_lock(tmp_path, host="elsewhere")
    sleep, looks = time.sleep, []

    def remove_later(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:  # While it is watched.
            path.unlink()
        sleep(seconds)

    monkeypatch.setattr(lock, "_SILENT_SECONDS", 20.0)
    monkeypatch.setattr(lock.time, "sleep", remove_later)
    with lock.hold(str(tmp_path)):
        assert len(looks) == 3
        assert json.loads(path.read_text())["host"] != "elsewhere"


def test_a_holder_whose_lock_was_taken_over_ends_with_a_sentence(tmp_path, quick):
    with lock.hold(str(tmp_path)) as held:
        held.check()
        test_lock.write_lock(tmp_path, host="elsewhere")
        with pytest.raises(errors.UserError) as raised:
            held.check(now=True)
    message = str(raised.value)
    assert f"{tmp_path}/{lock.LOCK} was taken over by another training (process" in message
    assert "on elsewhere" in message
    assert json.loads((tmp_path / lock.LOCK).read_text())["host"] == "elsewhere"


def test_a_holder_that_was_suspended_looks_before_it_writes(tmp_path, monkeypatch):
    """The thread that renews the lock has not run yet when training continues."""
    with lock.hold(str(tmp_path)) as held:
        test_lock.write_lock(tmp_path, host="elsewhere")
        held.check()  # The lock was read a moment ago.
        now = lock._clock()
        monkeypatch.setattr(lock, "_clock", lambda: now + 300)
        with pytest.raises(errors.UserError, match="was taken over"):
            held.check()


def test_a_lock_file_that_was_deleted_by_mistake_is_written_again(tmp_path):
    with lock.hold(str(tmp_path)) as held:
        (tmp_path / lock.LOCK).unlink()
        held.check(now=True)
        assert (tmp_path / lock.LOCK).exists()


def test_a_disk_that_is_full_for_a_moment_does_not_end_training(tmp_path, quick, monkeypatch):
    def fail(*_: object) -> None:
        raise errors.UserError("No space left on device")

    with lock.hold(str(tmp_path)) as held:
        with monkeypatch.context() as patch:
            patch.setattr(storage, "replace", fail)
            held.check(now=True)
        before = beats(tmp_path)
        assert wait_for(lambda: beats(tmp_path) > before)


def test_a_process_that_was_killed_while_it_took_the_lock_blocks_nobody(tmp_path):
    (tmp_path / f"{lock.LOCK}.guard").write_text("")
    (tmp_path / f"{lock.LOCK}.partial").write_text("half")
    test_lock.write_lock(tmp_path, pid=test_lock.ended_process())
    with lock.hold(str(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("moment", ["training", "saving", "export"])
def test_a_run_directory_that_vanishes_during_training_ends_it_with_a_sentence(
    photos, tmp_path, capsys, monkeypatch, no_export, moment
):
    model_dir = tmp_path / "run"

    def compile_steps(_, **__):
        def train_steps(*_: object) -> averages.Sums:
            delete()
            return averages.Sums(1, 0.0, True, {"train/total_loss": 1.0})

        return train_steps

    def delete() -> None:
        model_dir.rename(tmp_path / "elsewhere")  # At once, also while the lock is renewed.

    changes = {**tiny_runs.NO_COLOR}
    if moment == "export":
        monkeypatch.setattr(loop, "fit", lambda *_, **__: delete())
        monkeypatch.setattr(loop, "compile_steps", lambda *_, **__: delete)
    else:
        monkeypatch.setattr(loop, "compile_steps", compile_steps)
        if moment == "saving":
            changes |= {"train_summary_steps": 4, "checkpoint_steps": 1}
    assert tiny_runs.main("pretrain", model_dir, photos, **changes) == 2
    message = capsys.readouterr().err
    assert message.startswith(
        f"error: --model_dir={model_dir} was deleted or moved during training"
    )
    assert message.count("\n") == 1
    assert not model_dir.exists()


def test_training_ends_before_it_writes_if_another_host_took_over(
    photos, tmp_path, capsys, monkeypatch, no_export
):
    model_dir = tmp_path / "run"
    monkeypatch.setattr(lock, "_BEAT_SECONDS", -1.0)  # Every check reads the file.
    monkeypatch.setattr(lock.Held, "_keep_renewing", lambda _: None)

    def compile_steps(_, **__):
        def train_steps(*_: object) -> averages.Sums:
            test_lock.write_lock(model_dir, host="elsewhere")
            return averages.Sums(1, 0.0, True, {"train/total_loss": 1.0})

        return train_steps

    monkeypatch.setattr(loop, "compile_steps", compile_steps)
    assert tiny_runs.main("pretrain", model_dir, photos, **tiny_runs.NO_COLOR) == 2
    assert "was taken over by another training (process" in capsys.readouterr().err
    assert not (model_dir / "metrics.jsonl").exists()
    assert not list(model_dir.glob("ckpt*"))
