"""Measures the images per second of one CPU core in bulk extraction, next to --mode=embed.

    python benchmarks/bulk.py              prints a table
    python benchmarks/bulk.py --json       also prints one JSON object as the last line
    python benchmarks/bulk.py --write      also writes the table into docs/bulk.md
    python benchmarks/bulk.py --smallest   takes a minute

It needs Apache Beam in this Python (pip install 'apache-beam>=2.77'). Every program embeds a few
images and then many. The difference in the time that the CPU has spent on its processes, per
additional image, does not contain the start of the program, and other load on the machine hardly
affects it. The time of the start is printed, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import numpy as np
from PIL import Image

from benchmarks import pages

ROOT = pathlib.Path(__file__).resolve().parents[1]
_PAGE = ROOT / "docs" / "bulk.md"
_SIDE = 96  # Pixels of the JPEG files.


@dataclasses.dataclass(frozen=True)
class Amount:
    """How much is measured: the network, and the numbers of images."""

    depth: int
    image_size: int
    few: int
    many: int


_FULL = Amount(depth=18, image_size=64, few=64, many=8256)
SMALLEST = Amount(depth=8, image_size=8, few=8, many=40)


def write_images(folder: pathlib.Path, count: int) -> None:
    """Writes JPEG files of smoothed noise to two classes of a folder."""
    rng = np.random.default_rng(0)
    for number in range(count):
        rough = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        path = folder / "train" / f"class{number % 2}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        rough.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(path, quality=90)


def cpu_seconds(command: Sequence[str]) -> float:
    """Runs a program and returns the time of the CPU that it and its processes have used."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def make_run(folder: pathlib.Path, images: pathlib.Path, amount: Amount) -> pathlib.Path:
    """Makes a run of one step, whose speed is that of any other, and returns its folder."""
    flags = {
        "mode": "train_then_eval",
        "model_dir": folder,
        "dataset": "image_folder",
        "data_dir": images,
        "labels": "none",
        "resnet_depth": amount.depth,
        "image_size": amount.image_size,
        "train_batch_size": 8,
        "train_steps": 1,
        "warmup_epochs": 0,
        "optimizer": "momentum",
        "evaluations": "none",
    }
    cpu_seconds([*_python("simclr_tf"), *(f"--{name}={value}" for name, value in flags.items())])
    return folder


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def commands(run: pathlib.Path, images: pathlib.Path, output: pathlib.Path) -> dict[str, list[str]]:
    """Returns the programs to measure, by name."""
    (saved_model,) = (run / "saved_model").iterdir()
    embed = [
        *_python("simclr_tf"),
        "--mode=embed",
        f"--checkpoint={run}",
        "--dataset=image_folder",
        f"--data_dir={images}",
        "--labels=none",
        f"--embeddings={output}/embed",
        "--eval_batch_size=32",
    ]
    bulk = [
        *_python("simclr_tf.bulk"),
        f"--saved_model={saved_model}",
        f"--input={images}/**/*.jpg",
        "--shard_size=64",
    ]
    two = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    return {
        "embed": embed,
        "bulk, 1 process": [*bulk, f"--output={output}/one"],
        "bulk, 2 processes": [*bulk, f"--output={output}/two", *two],
    }


def measure(folder: pathlib.Path, amount: Amount) -> dict[str, dict[str, float]]:
    """Returns the images per second of a core, and the seconds of the start, of each program."""
    few, many = folder / "few", folder / "many"
    write_images(few, amount.few)
    write_images(many, amount.many)
    run = make_run(folder / "run", few, amount)
    results = {}
    small = commands(run, few, folder / "few_out")
    large = commands(run, many, folder / "many_out")
    for name in small:
        first, second = cpu_seconds(small[name]), cpu_seconds(large[name])
        each = (second - first) / (amount.many - amount.few)
        results[name] = {
            "images_per_cpu_second": round(1 / max(each, 1e-6), 1),
            "start_cpu_seconds": round(first - amount.few * each, 1),
        }
    return results


def table(results: dict[str, dict[str, float]]) -> str:
    """Returns a table in Markdown."""
    lines = ["| | images per second of a core | start, seconds of a core |", "|---|--:|--:|"]
    lines += [
        f"| {name} | {found['images_per_cpu_second']:,} | {found['start_cpu_seconds']} |"
        for name, found in results.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures the programs and prints the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--write", action="store_true", help="update docs/bulk.md")
    parser.add_argument("--smallest", action="store_true", help="measure little, as a check")
    arguments = parser.parse_args()
    if arguments.smallest and arguments.write:
        parser.error("--smallest measures too little for docs/bulk.md; leave out --write")
    amount = SMALLEST if arguments.smallest else _FULL
    with tempfile.TemporaryDirectory() as folder:
        results = measure(pathlib.Path(folder), amount)
    print(table(results))
    if arguments.write:
        pages.replace_table(str(_PAGE), "bulk.py", table(results) + "\n")
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
