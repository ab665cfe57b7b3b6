"""Measures training steps with TensorFlow's oneDNN off and on, in float32 and in bfloat16.

    python benchmarks/arithmetic.py              measures what is missing: five minutes of a core
    python benchmarks/arithmetic.py --only 50    measures steps whose name contains this text
    python benchmarks/arithmetic.py --write      also updates docs/performance.md
    python benchmarks/arithmetic.py --json       also prints a JSON object as the last line
    python benchmarks/arithmetic.py --smallest   takes a minute

The step is that of pretraining, on random images. TF_ENABLE_ONEDNN_OPTS is read when TensorFlow is
imported, so each arithmetic has a process of its own. They train in turns, a step at a time, on one
core. The results are medians of the time of the core, which other programs hardly affect. bfloat16
takes long where the processor emulates it, so only the smallest network is measured in it there.
Steps that were measured before are kept in a file, so the program can be interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from benchmarks import children, pages
from simclr_tf.runs import machine

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PAGE = _ROOT / "docs" / "performance.md"
# Columns: their titles, and the values of TF_ENABLE_ONEDNN_OPTS and --mixed_precision.
_COLUMNS = {
    "float32, without oneDNN": ("0", "none"),
    "float32, with oneDNN": ("1", "none"),
    "bfloat16, with oneDNN": ("1", "bfloat16"),
}
_WITHOUT, _WITH, _BFLOAT16 = _COLUMNS


@dataclasses.dataclass(frozen=True)
class Setting:
    """A network, its images, and whether it is small enough for an arithmetic that is emulated."""

    depth: int
    side: int
    batch: int
    note: str = ""
    small: bool = False

    @property
    def name(self) -> str:
        """Name in the table, such as ResNet-18, 32 px, batch 64."""
        note = f" ({self.note})" if self.note else ""
        return f"ResNet-{self.depth}, {self.side} px, batch {self.batch}{note}"


SETTINGS = [
    Setting(14, 16, 256, "the studies", small=True),
    Setting(14, 28, 128, "the digits"),
    Setting(18, 32, 64),
    Setting(50, 32, 16),
    Setting(50, 64, 16),
]
_SMALLEST = [Setting(8, 8, 4, small=True)]
Results = dict[str, dict[str, float]]


def _serve(precision: str) -> None:
    """Trains steps in a precision.

    Every line of stdin is a setting in JSON; the answer is a line with the seconds that the core
    took for a step. The step of another setting than before is first made and trained once.
    """
    made = None
    for line in sys.stdin:
        if line != made:
            step = _make_step(Setting(**json.loads(line)), precision)
            step()
            made = line
        start = time.process_time()
        step()
        print(time.process_time() - start, flush=True)


def _make_step(setting: Setting, precision: str) -> Callable[[], float]:
    """Returns a function that trains a step."""
    import tensorflow as tf  # Not before there is something to train: it takes seconds.

    from simclr_tf.doctor import speed

    network = speed.Network(setting.depth, setting.side, setting.batch)
    return speed.make_step(network, tf.distribute.OneDeviceStrategy("/cpu:0"), precision)


def _start(column: str, core: int) -> children.Child:
    """Starts a process that trains steps in one arithmetic, on one core; see `_serve`."""
    onednn, precision = _COLUMNS[column]
    command = ["taskset", "-c", str(core), sys.executable, __file__, "--serve", precision]
    return children.Child(command, {**os.environ, machine.ONEDNN: onednn})


def measure(
    processes: dict[str, children.Child], setting: Setting, rounds: int
) -> dict[str, float]:
    """Returns the median seconds of a step by column.

    Args:
        processes: a process for each column.
        setting: what is trained.
        rounds: measurements of each arithmetic; one of bfloat16 where it is emulated.
    """
    fast = bool(machine.bfloat16_instructions(machine.instructions()))
    asked = json.dumps(dataclasses.asdict(setting))
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for number in range(rounds):
        for name, process in processes.items():
            if name != _BFLOAT16 or fast or (setting.small and number == 0):
                seconds[name].append(float(process.ask(asked)))
    return {name: statistics.median(measured) for name, measured in seconds.items() if measured}


def markdown(results: Results) -> str:
    """Returns the table of docs/performance.md."""
    lines = [
        f"| step | {' | '.join(_COLUMNS)} | oneDNN in float32 |",
        f"|---|{'--:|' * len(_COLUMNS)}--:|",
    ]
    for name, seconds in results.items():
        cells = [f"{seconds[column]:.2f} s" if column in seconds else "-" for column in _COLUMNS]
        gain = seconds[_WITHOUT] / seconds[_WITH]
        lines.append(f"| {name} | {' | '.join(cells)} | {gain:.1f} times as fast |")
    return "\n".join(lines) + "\n"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="measure steps whose name contains this text")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each arithmetic")
    parser.add_argument(
        "--core", type=int, default=max(os.sched_getaffinity(0)), help="number of the core"
    )
    parser.add_argument(
        "--results", default=_ROOT / "runs" / "arithmetic.json", type=pathlib.Path, help="the file"
    )
    parser.add_argument("--write", action="store_true", help="update docs/performance.md")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--smallest", action="store_true", help="a tiny network, in a minute")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write and arguments.smallest:
        parser.error("--smallest is too small for docs/performance.md; leave out --write")
    return arguments


def _measure_missing(arguments: argparse.Namespace) -> Results:
    """Measures the settings that are not in the file, and returns those and the others."""
    results: Results = {}
    if arguments.results.exists() and not arguments.smallest:
        results = json.loads(arguments.results.read_text(encoding="utf-8"))
    chosen = _SMALLEST if arguments.smallest else SETTINGS
    missing = [one for one in chosen if arguments.only in one.name and one.name not in results]
    with contextlib.ExitStack() as stack:
        processes = {name: _start(name, arguments.core) for name in _COLUMNS if missing}
        for process in processes.values():
            stack.callback(process.kill)
        for setting in missing:
            results[setting.name] = measure(processes, setting, arguments.rounds)
            print(markdown(results).splitlines()[-1], flush=True)
            if not arguments.smallest:
                arguments.results.parent.mkdir(parents=True, exist_ok=True)
                arguments.results.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return {one.name: results[one.name] for one in chosen if one.name in results}


def main() -> None:
    """Measures the steps and prints the results."""
    arguments = _parse()
    if arguments.serve:
        _serve(arguments.serve)
        return
    results = _measure_missing(arguments)
    print(markdown(results))
    if arguments.write:
        pages.replace_table(str(_PAGE), "arithmetic.py", markdown(results))
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
