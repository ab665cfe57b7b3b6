"""Runs Python programs without the seconds that the import of TensorFlow takes.

A server imports TensorFlow once and is forked for every program. `start` writes an executable that
is called like Python; whoever runs it gets the program's output and exit code, and SIGTERM is
passed on to the program. A program that sees this executable as `sys.executable` starts its own
processes in the same way.

The server imports libraries only, so that programs find this project in the way that they would
without it. In its programs, TensorFlow leaves out the same as in the tests; see `quick_tensorflow`.
A module that the environment names in `SETUP` is imported before each program.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import select
import signal
import socket
import sys
from typing import Any

SETUP = "PROGRAM_SERVER_SETUP"
# For one message: the command line and the environment.
_MOST_BYTES = 200_000
_CLIENT = """#!{python} -S
import sys
sys.path.insert(0, {tests!r})
import program_server
program_server.run_elsewhere({address!r})
"""


@contextlib.contextmanager
def start() -> Iterator[str]:
    """Starts a server, which ends with the context, and yields the path of the executable."""
    import subprocess
    import tempfile

    if sys.platform != "linux":
        yield sys.executable
        return
    with tempfile.TemporaryDirectory() as folder:
        address, client = os.path.join(folder, "server"), pathlib.Path(folder, "python")
        tests = str(pathlib.Path(__file__).parent)
        client.write_text(_CLIENT.format(python=sys.executable, tests=tests, address=address))
        client.chmod(0o755)
        command = [sys.executable, __file__, address, str(client)]
        environment = {**os.environ, "PYTHONPATH": ""}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as server:
            try:
                assert server.stdout is not None and server.stdout.readline() == b"ready\n"
                yield str(client)
            finally:
                server.kill()


def run_elsewhere(address: str) -> None:
    """Lets the server run the program of this command line, and exits as the program does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(address)
        message = {"argv": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}
        socket.send_fds(connection, [json.dumps(message).encode()], [0, 1, 2])
        program = int(connection.recv(_MOST_BYTES))
        signal.signal(signal.SIGTERM, lambda number, _: os.kill(program, number))
        status = int(connection.recv(_MOST_BYTES))
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler.
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _serve(address: str, client: str) -> None:
    """Answers until this process is killed."""
    import matplotlib.figure
    import pynvml
    import quick_tensorflow
    import sklearn.linear_model
    import tensorflow as tf

    # Keras is imported when it is used.
    _ = tf.keras.Model, sklearn.linear_model, matplotlib.figure, pynvml
    quick_tensorflow.apply()
    quick_tensorflow.spare_collector()
    sys.executable = client
    signal.signal(signal.SIGCHLD, _reap)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                _supervise(connection)
            connection.close()


def _reap(*_: object) -> None:
    """Waits for supervisors that have ended, so that their time counts as that of this process."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _supervise(connection: socket.socket) -> None:
    """Runs a program in a process of its own, which is killed if its client is."""
    content, descriptors, _, _ = socket.recv_fds(connection, _MOST_BYTES, 3)
    program = os.fork()
    if not program:
        connection.close()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os._exit(_run(**json.loads(content)))
    with contextlib.suppress(OSError):  # The client may have been killed by now.
        connection.send(str(program).encode())
    for descriptor in descriptors:
        os.close(descriptor)
    ended = os.pidfd_open(program)
    readable, _, _ = select.select([connection.fileno(), ended], [], [])
    if ended not in readable:
        os.kill(program, signal.SIGKILL)
    _, status = os.waitpid(program, 0)
    with contextlib.suppress(OSError):
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _run(argv: list[str], cwd: str, env: dict[str, str]) -> int:
    """Runs a program, and returns its exit code.

    Args:
        argv: the command line, which begins with the path of the program, or with -m and a module.
        cwd: the working directory.
        env: the environment.
    """
    import atexit
    import runpy
    import threading
    import traceback

    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[1:1] = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    code: Any = 0
    try:
        if argv[0] == "-m":
            sys.path[0], sys.argv = cwd, argv[1:]
            _set_up(env)
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        else:
            sys.path[0], sys.argv = os.path.dirname(os.path.abspath(argv[0])), argv
            _set_up(env)
            runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code or 0


def _set_up(env: dict[str, str]) -> None:
    """Imports the module that the environment names, if it names one."""
    import importlib

    if SETUP in env:
        importlib.import_module(env[SETUP])


if __name__ == "__main__":
    _serve(*sys.argv[1:])
