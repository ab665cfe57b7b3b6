"""The doctor command: checks the installation and the machine."""

from __future__ import annotations

from collections.abc import Iterator
import os
import pathlib
import sys

import simclr_tf
from simclr_tf import cgroup, console, host_memory, text
from simclr_tf import config as config_lib
from simclr_tf.data import label_origin
from simclr_tf.doctor import finding, folders, gpus, memory, packages, processor, trial
from simclr_tf.runs import machine
from simclr_tf.studies import attempts

_ROOT = pathlib.Path(__file__).parents[2]
_SECONDS = 5.0


def examine(
    config: config_lib.Config, *, seconds: float = _SECONDS, python: str = sys.executable
) -> bool:
    """Prints what it finds out about this machine, and what to do about each problem.

    It writes no files. TensorFlow is imported in another process only.

    Args:
        config: the settings, with the folders to look at.
        seconds: how long to train.
        python: the Python that imports TensorFlow.

    Returns:
        Whether there is no problem; warnings are none.
    """
    of_machine = list(_check_machine(config))  # Its load is that of other programs.
    with console.working(f"Importing TensorFlow and training for {seconds:.0f} s"):
        tried = trial.run(seconds, python=python)
    found = [*_check_packages(), *_check_tensorflow(tried), *of_machine]
    speed = trial.check_speed(tried)
    if speed is not None:
        found.append(speed)
    _print(found)
    return all(one.state != finding.PROBLEM for one in found)


def _check_packages() -> list[finding.Finding]:
    builds = simclr_tf.installed_tensorflow()
    required = packages.declared(_ROOT)
    for name in builds:
        required += packages.required_by(name)
    return [packages.this_python(), *packages.check(required, builds)]


def _check_tensorflow(tried: trial.Trial) -> list[finding.Finding]:
    gpu = gpus.check(gpus.find(), trial.seen_gpus(tried), os.environ)
    return [trial.check_import(tried), gpu]


def _check_machine(config: config_lib.Config) -> Iterator[finding.Finding]:
    yield processor.instructions(machine.processor(), machine.instructions())
    yield processor.onednn(os.environ)
    usable, of = len(attempts.processors()), os.cpu_count() or 1
    yield processor.cores(usable, of, cgroup.cpu_quota())
    if hasattr(os, "getloadavg"):  # Not on every system.
        yield processor.load(os.getloadavg()[0], of)
    yield memory.memory(host_memory.free(), host_memory.total(), cgroup.memory_limit())
    if sys.platform == "linux":
        yield memory.shared()
    yield folders.model_dir(config.model_dir)
    data_dir = folders.default_data_dir(os.environ)
    if config.data_dir is not None and config.resolved_dataset != label_origin.IMAGE_FOLDER:
        data_dir = config.data_dir
    yield folders.data_dir(data_dir)
    yield folders.prepared(data_dir)


def _print(found: list[finding.Finding]) -> None:
    """Prints a table of everything, and then what to do."""
    version = simclr_tf.__version__
    commit = machine.commit()
    title = f"simclr-tf {version}" + (f", commit {commit}" if commit else "")
    rows = [[one.state, one.what, one.value] for one in found]
    console.table(title, ["state", "checked", "found"], rows)
    for one in found:
        if one.state == finding.WARNING:
            console.warn(f"{one.what}: {one.remedy}")
        elif one.state == finding.PROBLEM:
            console.problem(f"{one.what}: {one.remedy}")
    problems, warnings = (
        sum(one.state == state for one in found) for state in (finding.PROBLEM, finding.WARNING)
    )
    console.say(f"{text.count(problems, 'problem')}, {text.count(warnings, 'warning')}.")
