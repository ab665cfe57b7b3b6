"""The launcher of workers: it starts all, and ends all if one fails."""

import os
import signal
import sys
import threading
import time

import pytest

from simclr_tf import cluster, launch


def run(*scripts):
    commands = [[sys.executable, "-S", "-E", "-c", script] for script in scripts]
    return launch.run_all(commands, [f"variable {index}" for index in range(len(scripts))])


def test_each_worker_gets_its_variable(capfd):
    show = "import os; print(os.environ['TF_CONFIG'])"
    assert run(show, show) == 0
    assert sorted(capfd.readouterr().out.splitlines()) == ["variable 0", "variable 1"]


def test_the_failure_of_one_ends_all(monkeypatch):
    monkeypatch.setattr(launch, "_GRACE_SECONDS", 0.2)
    start = time.monotonic()
    assert run("import time; time.sleep(60)", "raise SystemExit(2)") == 2
    assert time.monotonic() - start < 20


def test_a_worker_that_ignores_sigterm_is_killed(monkeypatch):
    monkeypatch.setattr(launch, "_GRACE_SECONDS", 0.5)
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    assert run(stubborn, "import time; time.sleep(0.5); raise SystemExit(3)") == 3


def test_after_a_failure_every_other_worker_gets_sigterm(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "_GRACE_SECONDS", 1.0)
    waits = (
        "import pathlib, signal, sys, time; "
        "signal.signal(15, lambda *_: (pathlib.Path({0!r}).touch(), sys.exit(143))); time.sleep(60)"
    )
    ended = [tmp_path / "one", tmp_path / "two"]
    fails = "import time; time.sleep(0.5); raise SystemExit(3)"
    assert run(*(waits.format(str(path)) for path in ended), fails) == 3
    assert all(path.exists() for path in ended)


def test_the_code_of_a_killed_worker_is_that_of_a_shell(monkeypatch):
    monkeypatch.setattr(launch, "_GRACE_SECONDS", 0.2)
    assert run("import os; os.kill(os.getpid(), 9)") == 137


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_that_announce_the_end_are_passed_on_to_the_chief(tmp_path, number):
    ready = tmp_path / "ready"
    saves = (
        f"import os, signal, time; signal.signal({int(number)}, lambda *_: os._exit(143)); "
        f"open({str(ready)!r}, 'w').close(); time.sleep(60)"
    )

    def send_when_ready():
        while not ready.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=send_when_ready, daemon=True).start()
    assert run(saves) == 143


def test_local_workers_get_free_ports_and_the_flags(monkeypatch):
    started = []
    monkeypatch.setattr(launch, "run_all", lambda *given: started.append(given) or 0)
    assert launch.main(["launch", "--workers=3", "--", "--mode=train", "--seed=1"]) == 0
    ((commands, variables),) = started
    assert [command[-2:] for command in commands] == [["--mode=train", "--seed=1"]] * 3
    clusters = [cluster.from_environment({"TF_CONFIG": variable}) for variable in variables]
    assert [one.index for one in clusters] == [0, 1, 2]
    assert len({one.addresses for one in clusters}) == 1
    assert len(set(clusters[0].addresses)) == 3


def test_one_worker_of_several_machines(monkeypatch):
    started = []
    monkeypatch.setattr(launch, "run_all", lambda *given: started.append(given) or 0)
    launch.main(["launch", "--cluster=a:1,b:1", "--worker=1", "--", "--mode=train"])
    ((_, variables),) = started
    found = [cluster.from_environment({"TF_CONFIG": variable}) for variable in variables]
    assert found == [cluster.Cluster(("a:1", "b:1"), 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers=2"], "put them after --"),
        (["--workers=0", "--", "--mode=train"], "must be at least 1"),
        (["--cluster=a:1,b:1", "--", "--mode=train"], "belong together"),
        (["--cluster=a:1,b", "--worker=0", "--", "--mode=train"], "is not HOST:PORT"),
        (["--cluster=a:1,b:1", "--worker=2", "--", "--mode=train"], "the index 2"),
    ],
)
def test_arguments_that_cannot_work_are_refused(capsys, arguments, message):
    with pytest.raises(SystemExit) as raised:
        launch.main(["launch", *arguments])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err
