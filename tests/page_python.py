"""Stands for `python` in the commands of a page: the same programs, with smaller sizes.

The environment names a file with the tables of test_tutorials.py, PAGE_RULES, and a file that lists
what was done, PAGE_LOG.
"""

from __future__ import annotations

from collections.abc import Sequence
import importlib
import json
import os
import pathlib
import runpy
import shlex
import sys
from typing import Any

from flags import command_line
import run
from simclr_tf import cluster, launch
from simclr_tf import config as config_lib


def main(arguments: Sequence[str]) -> int:
    """Runs or checks one command, notes it in the log, and returns its exit code."""
    rules = json.loads(pathlib.Path(os.environ["PAGE_RULES"]).read_text())
    log = pathlib.Path(os.environ["PAGE_LOG"])
    line = shlex.join(arguments)
    used = [text for text in rules["checked"] if text in line]
    small = _smaller(arguments, rules, trains=not used)
    earlier = [json.loads(text)["small"] for text in log.read_text().splitlines()]
    if used or small not in earlier:  # Pages share runs.
        code = _check(small) if used else _run(small)
        if code:
            return code
    with log.open("a") as file:
        file.write(json.dumps({"line": line, "small": small, "checked": used}) + "\n")
    return 0


def _smaller(arguments: Sequence[str], rules: dict[str, Any], *, trains: bool) -> list[str]:
    """Returns the arguments of a small run, or of one that is only checked, by the rules."""
    small, named = [], set()
    for argument in arguments:
        new = rules["replaced"].get(argument)
        small += [argument] if new is None else new
        named |= {one.partition("=")[0] for one in new or ()}
    training = tuple(rules["training"])
    if trains and any(argument.startswith(training) for argument in arguments):
        small += [f"{name}={value}" for name, value in rules["sizes"].items() if name not in named]
    return small


def _run(arguments: Sequence[str]) -> int:
    program, *flags = arguments
    if program.startswith("examples/"):
        return _run_example(pathlib.Path(__file__).parents[1] / program, flags)
    assert program == "run.py", f"this is not known: python {shlex.join(arguments)}"
    # Nothing is done with the SavedModels of recipes.
    importlib.import_module(
        "only_training"
        if any(flag.startswith("--flagfile=") for flag in flags)
        else "quick_program"
    )
    return run.main(["run.py", *flags])


def _run_example(program: pathlib.Path, arguments: Sequence[str]) -> int:
    """Runs a program of its own, which finds the modules beside it."""
    sys.path.insert(0, str(program.parent))
    sys.argv = [str(program), *arguments]
    try:
        runpy.run_path(str(program), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _check(arguments: Sequence[str]) -> int:
    """Checks the flags of a command, and where workers are named, their addresses."""
    if arguments[0] != "-m":
        return _check_flags(arguments)
    module, *of_launcher = arguments[1:]
    assert module == "simclr_tf.launch"

    def check_workers(commands: Sequence[Sequence[str]], variables: Sequence[str]) -> int:
        for command, variable in zip(commands, variables):
            assert list(command[:3]) == [sys.executable, "-m", "simclr_tf"]
            os.environ[cluster.VARIABLE] = variable
            _check_flags(["run.py", *command[3:]])
        return 0

    launch.run_all = check_workers
    return launch.main(["launch", *of_launcher])


def _check_flags(arguments: Sequence[str]) -> int:
    assert arguments[0] == "run.py"
    cluster.from_environment(os.environ)
    config_lib.validate(command_line.parse(arguments).config)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
