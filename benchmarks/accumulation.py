"""Memory and loss of --accum_chunks on the embedded task, beside the same batch taken at once.

    python benchmarks/accumulation.py            a table
    python benchmarks/accumulation.py --json     the same, and one JSON object as the last line

Three runs of `run.py` on the digits, each a process of its own: batch 256 at once; batch 2,048 in
8 chunks, which are 256 images each; and batch 2,048 at once. All see the same images: the small
batch takes 8 times the steps. Memory is the most that a process held, less what it held before
training began, and beside it the estimate that run.py prints. The losses are those that the runs
logged; they differ only because batch norm sees a chunk at a time.

The images are kept in memory (`--cache_dataset`). Reading them anew in every epoch makes all three
processes grow, in steps of up to 20 MiB and to 100 at most, since glibc keeps what threads free in
arenas of their own; --uncached shows it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

_IMAGES, _LARGEST = 6000, 2048
_SETTINGS = {"256": (256, 1), "2048_in_8": (_LARGEST, 8), "2048": (_LARGEST, 1)}


def run_one(batch: int, chunks: int, steps: int, cache: bool) -> dict[str, Any]:
    """Trains in this process; returns its peak MiB, the estimate, and the logged losses."""
    import run as program
    from simclr_tf.commands import train
    from simclr_tf.training import memory

    found: dict[str, Any] = {}
    fit, estimate = train._fit, memory.estimate

    def watched_fit(*arguments: Any) -> None:
        with _peak_of_process(found):
            fit(*arguments)

    def watched_estimate(*arguments: Any, **named: Any) -> memory.Estimate:
        estimated = estimate(*arguments, **named)
        found["estimated_mib"] = estimated.step(batch, chunks=chunks) / 2**20
        return estimated

    train._fit, memory.estimate = watched_fit, watched_estimate
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        code = program.main(
            [
                "run.py",
                "--mode=train",
                f"--model_dir={folder}",
                f"--train_batch_size={batch}",
                f"--accum_chunks={chunks}",
                f"--train_steps={steps * _LARGEST // batch}",
                f"--cache_dataset={cache}",
                f"--warmup_epochs={min(3, steps * _LARGEST / _IMAGES / 2)}",
                "--learning_rate=0.0125",
                "--train_summary_steps=1",
            ]
        )
        assert code == 0
        with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
            found["losses"] = [json.loads(line)["train/contrast_loss"] for line in file]
    return found


@contextlib.contextmanager
def _peak_of_process(found: dict[str, Any]):  # type: ignore[no-untyped-def]
    """Writes the growth of this process at its largest, and its seconds, into `found`."""
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss
    start = time.monotonic()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        found["peak_mib"] = (peak - before) / 2**20
        found["seconds"] = time.monotonic() - start


def _in_own_process(name: str, steps: int, cache: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, f"--one={name}", f"--steps={steps}"]
    command += [] if cache else ["--uncached"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def main() -> None:
    """Measures, prints a table, and with --json the object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--steps", type=int, default=30, help="of batch 2,048")
    parser.add_argument("--uncached", action="store_true", help="read the images every epoch")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cache = not arguments.uncached
    if arguments.one:
        print(json.dumps(run_one(*_SETTINGS[arguments.one], arguments.steps, cache)))
        return
    results = {name: _in_own_process(name, arguments.steps, cache) for name in _SETTINGS}
    table = Table(title="memory and loss")
    for heading in ("batch", "peak MiB", "estimated MiB", "seconds", "first loss", "last loss"):
        table.add_column(heading, justify="right")
    for name, one in results.items():
        figures = [f"{one[key]:,.0f}" for key in ("peak_mib", "estimated_mib", "seconds")]
        losses = [f"{one['losses'][place]:.3f}" for place in (0, -1)]
        table.add_row(name.replace("_", " "), *figures, *losses)
    Console().print(table)
    apart = max(
        abs(one - other) / other
        for one, other in zip(results["2048_in_8"]["losses"], results["2048"]["losses"])
    )
    ratio = results["2048_in_8"]["peak_mib"] / results["256"]["peak_mib"]
    print(f"2,048 in 8 chunks took {ratio:.2f} times the memory of 256.")
    print(f"The two losses of batch 2,048 are never more than {apart:.2%} apart.")
    if arguments.json:
        figures = {name: {**one, "losses": one["losses"][-1]} for name, one in results.items()}
        more = {"memory_ratio": ratio, "largest_relative_difference": apart}
        print(json.dumps({**figures, **more}))


if __name__ == "__main__":
    main()
