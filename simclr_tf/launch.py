"""Starts workers that train together: several on this machine, or one of several machines.

    python -m simclr_tf.launch --workers=2 -- --mode=train --model_dir=runs/two
    python -m simclr_tf.launch --cluster=host1:2222,host2:2222 --worker=0 -- --mode=train ...

What follows `--` are the flags of run.py. The second form sets TF_CONFIG, and is started on every
machine with its own --worker. The output is that of the chief, and the errors are those of all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

from simclr_tf import cluster, errors

# How long the other workers may take to end after one has failed, and again after SIGTERM.
_GRACE_SECONDS = 30.0
_POLL_SECONDS = 0.2
# SIGTERM, and those that --preemption_signal may name.
_PASSED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def main(argv: Sequence[str]) -> int:
    """Runs the workers and returns the exit code: that of the first that failed, or 0."""
    own, _, flags = _split(list(argv[1:]))
    parser = argparse.ArgumentParser(
        prog="python -m simclr_tf.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--workers", type=int, default=2, help="number of workers on this machine")
    which.add_argument("--cluster", help="HOST:PORT of every worker, separated by commas")
    parser.add_argument("--worker", type=int, help="index of this machine in --cluster")
    given = parser.parse_args(own)
    if not flags:
        parser.error("there are no flags of run.py; put them after --")
    if (given.cluster is None) != (given.worker is None):
        parser.error("--cluster and --worker belong together")
    if given.workers < 1:
        parser.error(f"--workers={given.workers} must be at least 1")
    if given.cluster is None:
        addresses = [f"127.0.0.1:{port}" for port in _free_ports(given.workers)]
        variables = [cluster.to_variable(addresses, index) for index in range(given.workers)]
    else:
        variables = [cluster.to_variable(given.cluster.split(","), given.worker)]
    try:
        for variable in variables:
            cluster.from_environment({cluster.VARIABLE: variable})
    except errors.UserError as error:
        parser.error(str(error))
    return run_all([[sys.executable, "-m", "simclr_tf", *flags]] * len(variables), variables)


def _split(arguments: list[str]) -> tuple[list[str], str, list[str]]:
    """Returns what stands before and after the first `--`."""
    if "--" not in arguments:
        return arguments, "", []
    at = arguments.index("--")
    return arguments[:at], "--", arguments[at + 1 :]


def run_all(commands: Sequence[Sequence[str]], variables: Sequence[str]) -> int:
    """Runs the processes of all workers, and ends all of them if one fails.

    Signals that announce the end of a job are passed on to the first, which lets all of them save
    and end.

    Args:
        commands: the command of each worker.
        variables: its TF_CONFIG.
    """
    processes = [
        subprocess.Popen(command, env={**os.environ, cluster.VARIABLE: variable})
        for command, variable in zip(commands, variables)
    ]

    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            processes[0].send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)  # The terminal sends it to all.
    try:
        return _wait(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGINT, interrupted)


def _wait(processes: Sequence[subprocess.Popen]) -> int:
    """Waits for all processes, and returns the exit code of the first that failed, or 0."""
    code, deadline, signals = 0, float("inf"), [signal.SIGTERM, signal.SIGKILL]
    while running := [process for process in processes if process.poll() is None]:
        failed = [process.returncode for process in processes if process.returncode]
        if failed and not code:
            code, deadline = failed[0], time.monotonic() + _GRACE_SECONDS
        if signals and time.monotonic() > deadline:
            number = signals.pop(0)
            for process in running:
                process.send_signal(number)
            deadline += _GRACE_SECONDS
        time.sleep(_POLL_SECONDS)
    code = code or next((process.returncode for process in processes if process.returncode), 0)
    return 128 - code if code < 0 else code  # As a shell reports a process that a signal ended.


def _free_ports(count: int) -> list[int]:
    """Returns different ports of this machine that no process uses at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
