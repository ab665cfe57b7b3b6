"""Compares Keras 2 and 3 on the same TensorFlow: the start-up and the training step.

    python benchmarks/keras_versions.py              prints a table
    python benchmarks/keras_versions.py --json       also prints one JSON object as the last line
    python benchmarks/keras_versions.py --smallest   takes seconds

Each Keras runs in a process of its own. They take turns, so that other load on the machine affects
both alike, and are compared by the median of the ratios of neighbouring measurements. The start-up
is the processor time of a process from its start, with the imports of run.py, to the end of its
first step; it is measured once per round, in new processes. It needs both packages, keras and
tf-keras.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from benchmarks import children

ROOT = pathlib.Path(__file__).parents[1]
KERAS = ("2", "3")


def start(keras: str, setting: dict[str, int]) -> children.Child:
    """Starts a process with one Keras that prints its start-up, and a step each time."""
    hidden = ("TF_USE_LEGACY_KERAS", "KERAS_BACKEND")
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    environ |= {"SIMCLR_KERAS": keras, "PYTHONPATH": str(ROOT)}
    return children.Child([sys.executable, __file__, "--child", json.dumps(setting)], environ)


def child(setting: dict[str, int]) -> None:
    """Trains one step for each line of the input, and prints its seconds."""
    import simclr_tf  # noqa: F401  (before TensorFlow)

    # isort: split
    # What run.py imports before it trains. Keras 3 itself imports some of it, which costs the
    # program nothing.
    from benchmarks import train_step
    from simclr_tf.commands import evaluate, replay, report, train, transfer  # noqa: F401

    step = train_step.make_step(
        train_step.Setting(setting["depth"], setting["batch"], "none"), jit_compile=False
    )
    step()
    print(time.process_time(), flush=True)
    for _ in sys.stdin:
        print(step(), flush=True)


def measure(setting: dict[str, int], rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Returns medians for each Keras, and of the ratios of 3 to 2, of start-ups and steps."""
    startups: dict[str, list[float]] = {keras: [] for keras in KERAS}
    seconds: dict[str, list[float]] = {keras: [] for keras in KERAS}
    for index in range(rounds):
        processes: dict[str, children.Child] = {}
        for keras in KERAS:
            processes[keras] = start(keras, setting)
            startups[keras].append(float(processes[keras].read()))
        for number in range(steps):
            # Whoever is first in a pair may have it easier.
            for keras in KERAS if (index + number) % 2 else reversed(KERAS):
                seconds[keras].append(float(processes[keras].ask()))
        for one in processes.values():
            one.end()
    return {
        name: {
            **{keras: statistics.median(found[keras]) for keras in KERAS},
            "ratio": statistics.median(b / a for a, b in zip(found["2"], found["3"])),
        }
        for name, found in (("startup", startups), ("step", seconds))
    }


def main() -> None:
    """Measures and prints the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each Keras")
    parser.add_argument("--steps", type=int, default=20, help="steps of each process")
    parser.add_argument("--depth", type=int, default=18, help="layers of the ResNet")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--smallest", action="store_true", help="check that this program works")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(json.loads(arguments.child))
        return
    setting = {"depth": arguments.depth, "batch": arguments.batch}
    rounds, steps = arguments.rounds, arguments.steps
    if arguments.smallest:
        setting, rounds, steps = {"depth": 8, "batch": 4}, 1, 1
    results = measure(setting, rounds, steps)
    print(f"{'':8} {'Keras 2':>9} {'Keras 3':>9} {'3 / 2':>7}")
    for name, found in results.items():
        print(f"{name:8} {found['2']:7.3f} s {found['3']:7.3f} s {found['ratio']:7.3f}")
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
