"""Measures where the time goes from the command to the second step of training.

    python benchmarks/startup.py              prints a table
    python benchmarks/startup.py --json       also prints one JSON object as the last line
    python benchmarks/startup.py --smallest   trains a tiny network, which takes seconds
    python benchmarks/startup.py --quick      only the commands that need no TensorFlow

Each command runs in a process of its own. Seconds of processor time, of all threads, depend least
on what else the machine does; those of the clock are beside them. The training is that of
`make demo`; other flags of run.py may follow `--`. It ends after its second step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import functools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

_ROOT = pathlib.Path(__file__).resolve().parents[1]
# Commands that need no TensorFlow.
_QUICK = {
    "--help": ["--help"],
    "a wrong flag": ["--learning_rat=1"],
    "--mode=runs": ["--mode=runs", "--under=."],
}
_SMALLEST = (
    *("--train_split=train[:16]", "--train_batch_size=4", "--image_size=8", "--resnet_depth=8"),
    *("--nouse_color_jitter", "--nouse_color_drop", "--nouse_blur", "--warmup_epochs=0"),
)
_SETTINGS = "settings read"
_FIRST, _SECOND = "first step, with optimizing its graph", "second step"


class Seconds(NamedTuple):
    """Seconds of processor time and of the clock."""

    processor: float
    clock: float

    def since(self, earlier: Seconds) -> Seconds:
        """Returns the seconds that passed since another time."""
        return Seconds(self.processor - earlier.processor, self.clock - earlier.clock)


def _now(who: int = resource.RUSAGE_SELF) -> Seconds:
    used = resource.getrusage(who)
    return Seconds(used.ru_utime + used.ru_stime, time.monotonic())


class _Laps:
    """Times the parts of a program, one after another.

    Attributes:
        seconds: name of a part -> what it took.
    """

    def __init__(self) -> None:
        self.seconds = {"Python started": _now()._replace(clock=0.0)}
        self._last = _now()

    def end(self, name: str) -> None:
        """Ends the part of this name, or another piece of it; the next one begins."""
        now, before = _now(), self.seconds.get(name, Seconds(0.0, 0.0))
        passed = now.since(self._last)
        self.seconds[name] = Seconds(
            before.processor + passed.processor, before.clock + passed.clock
        )
        self._last = now

    def ending(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that also ends a part."""

        def call(*args: Any, **named: Any) -> Any:
            result = function(*args, **named)
            self.end(name)
            return result

        return call


def _run_with_laps(path: str, flags: Sequence[str]) -> None:
    """Runs run.py in this process up to the second step, and writes what its parts took."""
    laps = _Laps()
    sys.path.insert(0, str(_ROOT))
    import run
    from simclr_tf import tensorflow_import

    laps.end("run.py imported")
    run.command_line.parse = laps.ending(_SETTINGS, run.command_line.parse)
    import_tensorflow = laps.ending("TensorFlow imported", tensorflow_import.tensorflow)

    @functools.cache  # The settings of --checkpoint and --model_dir import TensorFlow, too.
    def imported() -> Any:
        laps.end(_SETTINGS)
        tensorflow = import_tensorflow()
        from simclr_tf.commands import several_workers, train  # noqa: F401

        laps.end("own modules imported")
        _time_training(laps, path)
        return tensorflow

    tensorflow_import.tensorflow = imported
    sys.exit(run.main(["run.py", *flags]))


def _time_training(laps: _Laps, path: str) -> None:
    """Makes the parts of training end laps, and the second step end the process."""
    from simclr_tf.commands import train
    from simclr_tf.runs import opening
    from simclr_tf.training import loop

    for module, function, name in (
        (opening, "open_run", "devices found, data opened"),
        (train, "_prepare", "network built"),
        (train, "_estimate_memory", "memory of a step estimated"),
        (train, "_make_trainer", "first views made, step traced"),
    ):
        setattr(module, function, laps.ending(name, getattr(module, function)))
    compile_steps = loop.compile_steps

    def timed_steps(*steps: Any, **settings: Any) -> Callable[..., Any]:
        call = compile_steps(*steps, **settings)
        calls: list[Any] = []

        def timed(*args: Any) -> Any:
            result = call(*args)
            calls.append(result)
            laps.end(_FIRST if len(calls) == 1 else _SECOND)
            if len(calls) == 2:
                pathlib.Path(path).write_text(json.dumps(laps.seconds), encoding="utf-8")
                os._exit(0)
            return result

        return timed

    loop.compile_steps = timed_steps


def measure_quick(arguments: Sequence[str]) -> Seconds:
    """Returns what a command takes that prints something and ends."""
    start = _now(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(_ROOT / "run.py"), *arguments]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command, capture_output=True, cwd=folder, check=False)
    return _now(resource.RUSAGE_CHILDREN).since(start)


def measure_training(flags: Sequence[str]) -> dict[str, Seconds]:
    """Returns what each part of the way to the second step takes.

    Raises:
        SystemExit: if the training fails, with what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "laps.json")
        always = ["--mode=train", f"--model_dir={folder}/run", "--train_summary_steps=1"]
        command = [sys.executable, __file__, "--laps", path, "--", *always, *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not os.path.exists(path):
            raise SystemExit(done.stdout + done.stderr)
        laps = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    return {name: Seconds(*seconds) for name, seconds in laps.items()}


def main() -> None:
    """Measures the commands and prints the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="only commands without TensorFlow")
    parser.add_argument("--smallest", action="store_true", help="train a tiny network")
    parser.add_argument("--laps", help=argparse.SUPPRESS)
    parser.add_argument("flags", nargs="*", help="flags of run.py for the training")
    arguments = parser.parse_args()
    if arguments.laps:
        _run_with_laps(arguments.laps, arguments.flags)
    results = {name: measure_quick(flags) for name, flags in _QUICK.items()}
    if not arguments.quick:
        flags = _SMALLEST if arguments.smallest else ()
        parts = measure_training([*flags, *arguments.flags])
        total = Seconds(*map(sum, zip(*parts.values(), strict=True)))
        results |= {**parts, "all, up to the second step": total}
    print(f"{'':40} {'processor':>10} {'clock':>10}")
    for name, (processor, clock) in results.items():
        print(f"{name:40} {processor:8.2f} s {clock:8.2f} s")
    if arguments.json:
        print(json.dumps({name: round(one.processor, 3) for name, one in results.items()}))


if __name__ == "__main__":
    main()
