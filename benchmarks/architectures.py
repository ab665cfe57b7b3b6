"""Sizes and speeds of encoders, and what --recompute saves.

    python benchmarks/architectures.py            the tables of a few small encoders
    python benchmarks/architectures.py --full     every depth and width that fits the time
    python benchmarks/architectures.py --json     the same, and one JSON object as the last line
    python benchmarks/architectures.py --write    the same, and docs/architectures.md

Parameters and multiply-adds are counted from a traced graph (`benchmarks.sizes`), at 224 px.
Images per second are those of one training pass, forward and back, at the side and batch of the
table, an image counting once; peak memory is that of the process. Each encoder is measured in a
process of its own, one after another; the median of the rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import tensorflow as tf

from benchmarks import sizes
from simclr_tf import config as config_lib
from simclr_tf.models import simclr
from simclr_tf.runs import builders

ROOT = pathlib.Path(__file__).resolve().parents[1]
Row = dict[str, Any]
DEPTHS, WIDTHS = (18, 34, 50, 101, 152, 200), (1, 2, 3, 4)
APPLICATIONS = ("MobileNetV3Small", "EfficientNetV2B0", "ConvNeXtTiny")
SIDE, BATCH, SK = 64, 16, 0.0625
LARGE_BATCH = 64  # So that activations outweigh all else where memory is compared.


@dataclasses.dataclass(frozen=True)
class Setting:
    """One encoder: its settings as flags of the program, by name."""

    encoder: str = "resnet"
    resnet_depth: int = 50
    width_multiplier: int = 1
    sk_ratio: float = 0.0
    recompute: bool = False
    batch: int = BATCH

    @property
    def name(self) -> str:
        """What the tables call it, such as ResNet-50 2x SK."""
        if self.encoder != "resnet":
            return self.encoder
        sk = " SK" if self.sk_ratio else ""
        return f"ResNet-{self.resnet_depth} {self.width_multiplier}x{sk}"

    def architecture(self, side: int) -> simclr.Architecture:
        """Returns the architecture, for images of this side."""
        config = config_lib.Config(
            image_size=side,
            encoder=self.encoder,
            resnet_depth=self.resnet_depth,
            width_multiplier=self.width_multiplier,
            stem="imagenet" if self.encoder == "resnet" else "auto",
            sk_ratio=self.sk_ratio,
        )
        return builders.architecture_of(config, None)


def chosen(*, full: bool) -> list[Setting]:
    """Returns the encoders of the table, small ones first."""
    if not full:
        nets = [Setting(resnet_depth=depth) for depth in (18, 50)]
        nets += [Setting(sk_ratio=SK), Setting(resnet_depth=18, width_multiplier=2)]
        return [*nets, Setting(encoder=f"keras:{APPLICATIONS[0]}")]
    nets = [
        Setting(resnet_depth=depth, width_multiplier=width) for depth in DEPTHS for width in WIDTHS
    ]
    nets += [
        Setting(resnet_depth=depth, width_multiplier=width, sk_ratio=SK)
        for depth, width in ((50, 1), (50, 2), (101, 1), (101, 2), (152, 1), (152, 2), (152, 3))
    ]
    return [*nets, *(Setting(encoder=f"keras:{name}") for name in APPLICATIONS)]


def measure(setting: Setting, rounds: int) -> Row:
    """Trains an encoder for some rounds; run it in a process of its own.

    Returns:
        "images_per_second", "peak_gib" of the process, and "step_gib", how much of that came
        after its variables were made.
    """
    architecture = setting.architecture(SIDE)
    encoder = simclr.make_encoder(architecture, recompute=setting.recompute)
    images = tf.random.stateless_uniform([setting.batch, SIDE, SIDE, 3], [0, 1])
    encoder(images[:1])

    @tf.function
    def step(images: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(encoder(images, training=True)["features"] ** 2)
        gradients = tape.gradient(loss, encoder.trainable_variables)
        for variable, gradient in zip(encoder.trainable_variables, gradients):
            variable.assign_sub(1e-6 * gradient)
        return loss

    before = _peak_gib()
    step(images)  # Compiles.
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        float(step(images))
        seconds.append(time.perf_counter() - start)
    peak = _peak_gib()
    return {
        "images_per_second": setting.batch / statistics.median(seconds),
        "peak_gib": peak,
        "step_gib": peak - before,
    }


def _peak_gib() -> float:
    # Of Linux; getrusage's would begin at what the process held that started this one.
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def measured_apart(setting: Setting, rounds: int, limit: int) -> Row:
    """Measures in a new process; empty if it takes longer than `limit` seconds or dies."""
    told = json.dumps(dataclasses.asdict(setting))
    command = [sys.executable, __file__, "--measure", told, "--rounds", str(rounds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return {}
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def rows_of(settings: list[Setting], *, rounds: int, limit: int, most: float) -> list[Row]:
    """Returns a row per encoder; those of over `most` million parameters are only counted."""
    rows = []
    for setting in settings:
        size = sizes.of_encoder(setting.architecture(224))
        row: Row = {
            "name": setting.name,
            "features": size.features,
            "parameters": size.parameters,
            "giga_multiply_adds": size.multiply_adds / 1e9,
        }
        if size.parameters <= most * 1e6:
            row.update(measured_apart(setting, rounds, limit))
        rows.append(row)
        print(_line(row), flush=True)
    return rows


def recompute_rows(settings: list[Setting], *, rounds: int, limit: int) -> list[Row]:
    """Returns time and memory of encoders without and with --recompute."""
    rows = []
    for small in settings:
        setting = dataclasses.replace(small, batch=LARGE_BATCH)
        plain = measured_apart(setting, rounds, limit)
        again = measured_apart(dataclasses.replace(setting, recompute=True), rounds, limit)
        if plain and again:
            row = {
                "name": setting.name,
                "plain_gib": plain["step_gib"],
                "recompute_gib": again["step_gib"],
                "time": plain["images_per_second"] / again["images_per_second"],
            }
            rows.append(row)
            print(_recompute_line(row), flush=True)
    return rows


def _line(row: Row) -> str:
    speed, peak = row.get("images_per_second"), row.get("peak_gib")
    cells = [
        row["name"],
        f"{row['features']:,}",
        f"{row['parameters'] / 1e6:.1f}",
        f"{2 * row['giga_multiply_adds']:.2f}",
        "-" if speed is None else f"{speed:.1f}",
        "-" if peak is None else f"{peak:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _recompute_line(row: Row) -> str:
    cells = [f"{row['plain_gib']:.2f}", f"{row['recompute_gib']:.2f}", f"{row['time']:.2f}"]
    return f"| {row['name']} | {' | '.join(cells)} |"


def page(rows: list[Row], recomputed: list[Row], *, rounds: int, limit: int, most: float) -> str:
    """Returns docs/architectures.md."""
    versions = f"Python {platform.python_version()}, TensorFlow {tf.__version__}"
    return "\n".join(
        [
            "# Encoders: size, arithmetic, speed, memory",
            "",
            "Written by `python benchmarks/architectures.py --write` (`--full` for every row).",
            f"{os.cpu_count()} CPU cores, {versions}; median of {rounds} rounds.",
            "",
            "Parameters are those that train, without heads. GFLOPs are billions of floating-point",
            "operations in one forward pass of a 224 px image: twice its multiply-adds, which",
            "papers often count in their place.",
            f"Images/s and peak memory are of passes forward and back with {BATCH} images of",
            f"{SIDE} px in float32, each encoder in a process of its own; `-` where that does not",
            f"fit (over {most:.0f} million parameters, or {limit} seconds).",
            "",
            "| encoder | features | parameters (M) | GFLOPs | images/s | peak memory (GiB) |",
            "|---|--:|--:|--:|--:|--:|",
            *map(_line, rows),
            "",
            "## --recompute",
            "",
            f"What a step of {LARGE_BATCH} images of {SIDE} px adds to the memory of the process.",
            "",
            "| encoder | without (GiB) | with (GiB) | time with / without |",
            "|---|--:|--:|--:|",
            *map(_recompute_line, recomputed),
            "",
        ]
    )


def main() -> None:
    """Counts and measures, prints tables, and with --write or --json keeps them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="every depth and width")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--write", action="store_true", help="write docs/architectures.md")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each encoder")
    parser.add_argument("--limit", type=int, default=300, help="seconds for one encoder")
    parser.add_argument("--most", type=float, default=1200, help="million parameters to measure")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rounds, limit = arguments.rounds, arguments.limit
    if arguments.measure:
        print(json.dumps(measure(Setting(**json.loads(arguments.measure)), rounds)))
        return
    rows = rows_of(chosen(full=arguments.full), rounds=rounds, limit=limit, most=arguments.most)
    deep = [Setting(), *([Setting(sk_ratio=SK)] if arguments.full else [])]
    recomputed = recompute_rows([Setting(resnet_depth=18), *deep], rounds=rounds, limit=limit)
    if arguments.write:
        path = ROOT / "docs" / "architectures.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(page(rows, recomputed, rounds=rounds, limit=limit, most=arguments.most))
    if arguments.json:
        print(json.dumps({"encoders": rows, "recompute": recomputed}))


if __name__ == "__main__":
    main()
