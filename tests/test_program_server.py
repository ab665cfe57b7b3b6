"""Programs that the server of the tests runs behave as those that Python runs."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import os, signal, subprocess, sys, threading, time

what = sys.argv[1]
if what == "output":
    print(*sys.argv[2:], os.getcwd(), os.environ["OF_THE_CALLER"])
    print("to stderr", file=sys.stderr)
    threading.Thread(target=lambda: (time.sleep(0.1), print("late"))).start()
elif what == "modules":
    print(*("tensorflow" in sys.modules, "simclr_tf" in sys.modules, sys.path[:2]))
elif what == "child":
    done = subprocess.run([sys.executable, __file__, "exit", "5"], check=False)
    print("tensorflow" in sys.modules, done.returncode)
elif what == "exit":
    sys.exit(int(sys.argv[2]))
elif what == "message":
    sys.exit("why it ended")
elif what == "error":
    raise ValueError("a bug")
elif what == "signal":
    os.kill(os.getpid(), signal.SIGTERM)
elif what == "signalled":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
    print("ready", flush=True)
    time.sleep(100)
elif what == "sleep":
    print(os.getpid(), flush=True)
    time.sleep(100)
"""

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(sys.platform != "linux", reason="Python itself is used there"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(PROGRAM)
    return path


def run(python: str, program: pathlib.Path, *arguments: str, as_module=False, **environment: str):
    named = ["-m", program.stem] if as_module else [program.name]
    return subprocess.run(
        [python, *named, *arguments],
        cwd=program.parent,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("through_server", [False, True])
def test_output_and_exit_codes_are_those_of_the_program(python, program, through_server):
    def outcome(*arguments: str) -> tuple[int, str, list[str]]:
        executable = python if through_server else sys.executable
        done = run(executable, program, *arguments, OF_THE_CALLER="x")
        return done.returncode, done.stdout, done.stderr.strip().splitlines()[-1:]

    printed = f"a b {program.parent} x\nlate\n"
    assert outcome("output", "a", "b") == (0, printed, ["to stderr"])
    assert outcome("exit", "0") == (0, "", [])
    assert outcome("exit", "7") == (7, "", [])
    assert outcome("message") == (1, "", ["why it ended"])
    assert outcome("error") == (1, "", ["ValueError: a bug"])
    assert outcome("signal") == (-signal.SIGTERM, "", [])
    assert outcome("child")[1].endswith(" 5\n")


def test_a_module_is_run_as_a_program_is(python, program):
    done = run(python, program, "output", "a", as_module=True, OF_THE_CALLER="x")
    assert (done.returncode, done.stdout) == (0, f"a {program.parent} x\nlate\n")
    paths = f"['{program.parent}', '/somewhere']"
    done = run(python, program, "modules", as_module=True, PYTHONPATH="/somewhere")
    assert done.stdout == f"True False {paths}\n"


def test_tensorflow_is_imported_and_this_project_is_not_found(python, program):
    printed = run(python, program, "modules", PYTHONPATH="/somewhere").stdout
    assert printed == f"True False ['{program.parent}', '/somewhere']\n"
    assert run(python, program, "child").stdout == "True 5\n"


def test_a_program_gets_sigterm_from_its_client(python, program):
    command = [python, str(program), "signalled"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None and client.stdout.readline() == "ready\n"
        client.terminate()
    assert client.returncode == 9


def test_a_program_ends_with_its_client(python, program):
    command = [python, str(program), "sleep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        pid = int(client.stdout.readline())
        os.kill(pid, 0)  # It is there.
        client.kill()
    deadline = time.monotonic() + 30
    while pathlib.Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
