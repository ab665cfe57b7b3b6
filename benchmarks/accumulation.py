"""Measures memory and loss of --accum_chunks, and compares them with those of the whole batch.

    python benchmarks/accumulation.py              prints a table
    python benchmarks/accumulation.py --json       also prints one JSON object as the last line
    python benchmarks/accumulation.py --smallest   takes seconds

Three processes train on the built-in digits: with batch 256, with batch 2,048 in 8 chunks of 256
images, and with batch 2,048 at once. All process the same number of images, so the small batch
takes 8 times as many steps. Memory is the growth of a process to its peak since training began. The
table shows it beside the estimate that run.py prints. The losses are those that the runs logged.
They differ only because batch norm sees one chunk at a time.

The images are cached in memory (`--cache_dataset`). With --uncached they are read again in every
epoch. All three processes then grow by up to 100 MiB, in steps of up to 20 MiB, because glibc keeps
the memory that threads free in separate arenas.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
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

_ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, _ROOT)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of the three training runs.

    Attributes:
        images: number of training images.
        small: batch size of the first run, and images in a chunk of the second.
        large: batch size of the second and third run.
        flags: further flags of run.py.
    """

    images: int
    small: int
    large: int
    flags: tuple[str, ...] = ()

    @property
    def runs(self) -> dict[str, tuple[int, int]]:
        """Name of a training run -> (batch size, chunks)."""
        chunks = self.large // self.small
        return {
            f"{self.small}": (self.small, 1),
            f"{self.large}_in_{chunks}": (self.large, chunks),
            f"{self.large}": (self.large, 1),
        }


_FULL = Sizes(images=6000, small=256, large=2048)
_SMALLEST = Sizes(
    images=64,
    small=8,
    large=16,
    flags=(
        "--train_split=train[:64]",
        "--image_size=8",
        "--resnet_depth=8",
        "--proj_out_dim=8",
        "--augmentation=crop,flip",
    ),
)


def train_here(sizes: Sizes, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains in this process.

    Args:
        sizes: the sizes of the training runs.
        name: of one of them.
        arguments: of this program.

    Returns:
        "peak_mib", "estimated_mib", "seconds", and the logged "losses".
    """
    import run as program
    from simclr_tf.commands import train
    from simclr_tf.serving import export
    from simclr_tf.training import memory

    batch, chunks = sizes.runs[name]
    measured: dict[str, Any] = {}
    fit, estimate = train._fit, memory.estimate

    def watched_fit(*args: Any) -> None:
        with _peak_of_process(measured):
            fit(*args)

    def watched_estimate(*args: Any, **kwargs: Any) -> memory.Estimate:
        estimated = estimate(*args, **kwargs)
        measured["estimated_mib"] = estimated.step(batch, chunks=chunks) / 2**20
        return estimated

    train._fit = watched_fit  # type: ignore[assignment]
    memory.estimate = watched_estimate
    # What is not measured.
    train._show_views = lambda *_: None
    export.export = lambda *_, **__: ""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        flags = _flags(sizes, batch, chunks, arguments)
        code = program.main(["run.py", *flags, f"--model_dir={folder}"])
        if code:
            sys.exit(code)
        with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
            measured["losses"] = [json.loads(line)["train/contrast_loss"] for line in file]
    return measured


def _flags(sizes: Sizes, batch: int, chunks: int, arguments: argparse.Namespace) -> list[str]:
    images = arguments.steps * sizes.large
    flags = [
        "--mode=train",
        f"--train_batch_size={batch}",
        f"--accum_chunks={chunks}",
        f"--train_steps={images // batch}",
        f"--cache_dataset={not arguments.uncached}",
        f"--warmup_epochs={min(3, images / sizes.images / 2)}",
        "--learning_rate=0.0125",
        "--train_summary_steps=1",
        *sizes.flags,
    ]
    if not arguments.data_dir:
        return flags
    recipe = f"--flagfile={os.path.join(_ROOT, 'flags', 'recipes', 'digits.flags')}"
    return [recipe, *flags, f"--data_dir={arguments.data_dir}"]


@contextlib.contextmanager
def _peak_of_process(measured: dict[str, Any]):  # type: ignore[no-untyped-def]
    """Adds the growth of this process to its peak, and the seconds, to `measured`."""
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
        measured["peak_mib"] = (peak - before) / 2**20
        measured["seconds"] = time.monotonic() - start


def _train_in_new_process(name: str) -> dict[str, Any]:
    """Starts this program again with the same arguments, for one of the training runs."""
    command = [sys.executable, __file__, *sys.argv[1:], f"--train={name}"]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def _show(results: dict[str, dict[str, Any]]) -> None:
    table = Table(title="memory and loss")
    for heading in ("batch", "peak MiB", "estimated MiB", "seconds", "first loss", "last loss"):
        table.add_column(heading, justify="right")
    for name, one in results.items():
        figures = [f"{one[key]:,.0f}" for key in ("peak_mib", "estimated_mib", "seconds")]
        losses = [f"{one['losses'][index]:.3f}" for index in (0, -1)]
        table.add_row(name.replace("_", " "), *figures, *losses)
    Console().print(table)


def main() -> None:
    """Does the three training runs and prints the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument(
        "--steps", type=int, help="steps of the large batch (default: 30, with --smallest 1)"
    )
    parser.add_argument("--uncached", action="store_true", help="read the images in every epoch")
    parser.add_argument(
        "--data_dir", help="of run.py; by default the data directory of tensorflow-datasets"
    )
    parser.add_argument(
        "--smallest",
        action="store_true",
        help="train a tiny network with batches of 8 and 16, in seconds, to check that this "
        "program works",
    )
    parser.add_argument("--train", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = _SMALLEST if arguments.smallest else _FULL
    arguments.steps = arguments.steps or (1 if arguments.smallest else 30)
    if arguments.train:
        print(json.dumps(train_here(sizes, arguments.train, arguments)))
        return
    results = {name: _train_in_new_process(name) for name in sizes.runs}
    _show(results)
    small, chunked, large = results.values()
    difference = max(
        abs(one - other) / other for one, other in zip(chunked["losses"], large["losses"])
    )
    ratio = chunked["peak_mib"] / small["peak_mib"]
    print(f"The large batch in chunks took {ratio:.2f} times the memory of the small batch.")
    print(
        f"The losses of the large batch, in chunks and at once, differ by at most {difference:.2%}."
    )
    if arguments.json:
        last = {name: {**one, "losses": one["losses"][-1]} for name, one in results.items()}
        more = {"memory_ratio": ratio, "largest_relative_difference": difference}
        print(json.dumps({**last, **more}))


if __name__ == "__main__":
    main()
