"""Compares training runs of two commits bit for bit, to show that a refactoring changed nothing.

    python benchmarks/loss_compare.py COMMIT_A COMMIT_B               trains small built-in cases
    python benchmarks/loss_compare.py COMMIT_A COMMIT_B -- FLAGS...   trains with `run.py FLAGS`
    python benchmarks/loss_compare.py HEAD HEAD --case supcon --steps 1   takes seconds

Each commit is checked out into a temporary git worktree, which is removed afterwards. Uncommitted
changes are not included. Each training run has its own process, with the same Python as this
program. The logged metrics (except timings) and the norm of the gradients on each replica are
compared step by step, and then all variables of the last checkpoint. The exit code is 0 if all of
them are equal bit for bit, and 1 otherwise. `--json` prints a JSON object as the last line.

FLAGS should describe a short training. Relative paths in them are relative to the checkout. Metrics
are logged at every step, whatever `--train_summary_steps` is. On a CPU, training is deterministic.
On a GPU it may not be, so compare a commit with itself first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_RECORDER = pathlib.Path(__file__).with_name("record_training.py").resolve()
_SHOWN_LINES = 30  # of the output of a training run that failed
CHECKPOINT = "checkpoint variables"


@dataclasses.dataclass(frozen=True)
class Case:
    """One training.

    Attributes:
        flags: of run.py.
        starts_from: the case whose run is the --checkpoint; None to train from scratch.
    """

    flags: tuple[str, ...] = ()
    starts_from: str | None = None


_SMALL = (
    "--dataset=digits",
    "--image_size=8",
    "--resnet_depth=8",
    "--num_proj_layers=2",
    "--proj_out_dim=8",
    "--train_batch_size=16",
    "--warmup_epochs=0",
    "--learning_rate=0.8",
    "--data_dir=data_sets",  # In the checkout, so that each commit prepares its own.
)
# Tracing the other operations takes most of the time of a short training.
_FEW_OPERATIONS = "--augmentation=crop,flip"
CASES = {
    "pretraining": Case(_SMALL),
    "supcon": Case((*_SMALL, "--objective=supcon", "--optimizer=lars", _FEW_OPERATIONS)),
    "finetuning": Case(
        (*_SMALL, "--mode=finetune", "--optimizer=rmsprop"), starts_from="pretraining"
    ),
    "replicas": Case((*_SMALL, "--num_virtual_cpus=2", _FEW_OPERATIONS)),
    "accumulation": Case((*_SMALL, "--accum_chunks=2")),
}

# What `record_training.py` writes: {"series": {name: {step: value}}, "variables": {name: array}}.
Record = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The difference between two recordings of one quantity, by step or by variable.

    Attributes:
        compared: number of steps (or variables) in both recordings.
        total: number of steps (or variables) in at least one of them.
        first_difference: the first step (or variable) that differs or is missing in one of them;
            None if there is none.
        largest_relative_difference: the largest difference between two elements, divided by the
            largest element of the two arrays. Infinite if they cannot be subtracted.
    """

    compared: int
    total: int
    first_difference: int | str | None
    largest_relative_difference: float

    @property
    def equal(self) -> bool:
        """Whether the recordings are equal bit for bit and not empty."""
        return self.total > 0 and self.first_difference is None


def compare(a: Mapping[Any, np.ndarray], b: Mapping[Any, np.ndarray]) -> Comparison:
    """Compares two recordings, whose keys are steps or names of variables."""
    keys = sorted(a.keys() | b.keys())
    common = [key for key in keys if key in a and key in b]
    equal = {key for key in common if _same_bits(a[key], b[key])}
    return Comparison(
        len(common),
        len(keys),
        next((key for key in keys if key not in equal), None),
        max(
            (_relative_difference(a[key], b[key]) for key in common if key not in equal),
            default=0.0,
        ),
    )


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    numeric = all(np.issubdtype(x.dtype, np.number) for x in (a, b))
    if a.shape != b.shape or not numeric:
        return math.inf
    a, b = a.astype(np.float64), b.astype(np.float64)
    difference, largest = np.abs(a - b).max(), max(np.abs(a).max(), np.abs(b).max())
    if not math.isfinite(difference):
        return math.inf
    return float(difference / largest) if difference else 0.0


def compare_records(a: Record, b: Record) -> dict[str, Comparison]:
    """Returns the comparison of each series and of the checkpoints' variables, by name."""
    names = dict.fromkeys([*a["series"], *b["series"]])
    compared = {
        name: compare(a["series"].get(name, {}), b["series"].get(name, {})) for name in names
    }
    return {**compared, CHECKPOINT: compare(a["variables"], b["variables"])}


def record(commit: str, cases: Mapping[str, Case]) -> dict[str, Record]:
    """Trains the cases with the code of a commit.

    Args:
        commit: its hash.
        cases: the training runs by name; one that starts from another comes after it.

    Returns:
        The record of each case.
    """
    records = {}
    with tempfile.TemporaryDirectory() as name, _checkout(commit, pathlib.Path(name)) as checkout:
        for case_name, case in cases.items():
            start = time.monotonic()
            flags = list(case.flags)
            if case.starts_from is not None:
                flags.append(f"--checkpoint={checkout.with_name(case.starts_from)}")
            records[case_name] = _train(checkout, checkout.with_name(case_name), flags)
            seconds = time.monotonic() - start
            print(f"{commit[:7]}: trained {case_name} in {seconds:.0f} s", flush=True)
    return records


@contextlib.contextmanager
def _checkout(commit: str, folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Checks out a commit into a worktree inside a folder, and removes the worktree at the end."""
    worktree = folder / "checkout"
    _git("worktree", "add", "--quiet", "--detach", str(worktree), commit)
    try:
        yield worktree
    finally:
        _git("worktree", "remove", "--force", str(worktree))


def _git(*arguments: str) -> str:
    """Runs git and returns its output, stripped.

    Raises:
        SystemExit: if git fails.
    """
    ran = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"git {arguments[0]} failed: {ran.stderr.strip()}")
    return ran.stdout.strip()


def _train(checkout: pathlib.Path, model_dir: pathlib.Path, flags: Sequence[str]) -> Record:
    """Trains in a new process, which imports the code of the checkout."""
    output = model_dir.with_suffix(".pickle")
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1", **os.environ}
    ran = subprocess.run(
        [sys.executable, str(_RECORDER), str(output), str(model_dir), *flags],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if ran.returncode:
        shown = "\n".join(ran.stdout.splitlines()[-_SHOWN_LINES:])
        raise SystemExit(f"{shown}\nThe training with {' '.join(flags)} failed; see above.")
    return pickle.loads(output.read_bytes())


def show(results: Mapping[str, Mapping[str, Comparison]]) -> None:
    """Prints a table of the comparisons for each case."""
    for case, comparisons in results.items():
        table = Table(title=f"{case}: equal bit for bit?")
        table.add_column("quantity", no_wrap=True)
        for heading in ("compared", "equal", "first difference", "largest (relative)"):
            table.add_column(heading, justify="right", overflow="fold")
        for name, one in comparisons.items():
            missing = "" if one.compared == one.total else f" of {one.total}"
            table.add_row(
                name,
                f"{one.compared}{missing}",
                "yes" if one.equal else "NO",
                "" if one.first_difference is None else str(one.first_difference),
                "" if one.equal else f"{one.largest_relative_difference:.2g}",
            )
        Console().print(table)


def as_json(results: Mapping[str, Mapping[str, Comparison]], hashes: Sequence[str]) -> str:
    """Returns the comparisons as a JSON object; an infinite difference is null."""
    cases = {
        case: {name: {"equal": one.equal, **dataclasses.asdict(one)} for name, one in found.items()}
        for case, found in results.items()
    }
    for one in (one for found in cases.values() for one in found.values()):
        if math.isinf(one["largest_relative_difference"]):
            one["largest_relative_difference"] = None
    equal = all(one["equal"] for found in cases.values() for one in found.values())
    return json.dumps({"commits": list(hashes), "equal": equal, "cases": cases})


def _chosen(names: Sequence[str], steps: int) -> dict[str, Case]:
    """Returns built-in cases, and those that they start from, with a number of steps."""
    needed = {*names, *(CASES[name].starts_from for name in names)}
    return {
        name: dataclasses.replace(case, flags=(*case.flags, f"--train_steps={steps}"))
        for name, case in CASES.items()
        if name in needed
    }


def main() -> int:
    """Trains both commits, prints the comparison, and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commits", nargs=2, metavar="COMMIT", help="a hash, branch or tag")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument(
        "--case", action="append", choices=CASES, help="train only this; may be repeated"
    )
    parser.add_argument("--steps", type=int, help="steps of each built-in case (default: 6)")
    own, flags = _split(sys.argv[1:])
    arguments = parser.parse_args(own)
    if flags and (arguments.case or arguments.steps):
        parser.error("--case and --steps are for the built-in cases; leave them out with -- FLAGS")
    if flags:
        cases = {"given_flags": Case(tuple(flags))}
    else:
        cases = _chosen(arguments.case or list(CASES), arguments.steps or 6)
    hashes = [_git("rev-parse", "--verify", f"{name}^{{commit}}") for name in arguments.commits]
    a, b = (record(commit, cases) for commit in hashes)
    results = {name: compare_records(a[name], b[name]) for name in cases}
    show(results)
    if arguments.json:
        print(as_json(results, hashes))
    return 0 if all(one.equal for found in results.values() for one in found.values()) else 1


def _split(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Returns the arguments before the first `--` and those after it."""
    end = argv.index("--") if "--" in argv else len(argv)
    return argv[:end], argv[end + 1 :]


if __name__ == "__main__":
    sys.exit(main())
