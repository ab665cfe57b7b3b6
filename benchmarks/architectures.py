"""Measures sizes, speed and memory of encoders, and the memory that --recompute saves.

    python benchmarks/architectures.py              prints the tables of a few small encoders
    python benchmarks/architectures.py --full       measures every depth and width
    python benchmarks/architectures.py --json       also prints one JSON object as the last line
    python benchmarks/architectures.py --write      also writes docs/architectures.md
    python benchmarks/architectures.py --smallest   takes seconds

Parameters and multiply-adds are counted in a traced graph (`benchmarks.sizes`), at 224 px. Images
per second are those of a training step: a forward and a backward pass. The results are medians.
Peak memory is that of the process. Encoders are measured one after another, each in its own
process.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
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
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

import tensorflow as tf  # isort: skip

from benchmarks import sizes
from simclr_tf import config as config_lib
from simclr_tf.models import simclr
from simclr_tf.runs import builders

ROOT = pathlib.Path(__file__).resolve().parents[1]
Row = dict[str, Any]
DEPTHS, WIDTHS = (18, 34, 50, 101, 152, 200), (1, 2, 3, 4)
APPLICATIONS = ("MobileNetV3Small", "EfficientNetV2B0", "ConvNeXtTiny")
SIDE, BATCH, SK = 64, 16, 0.0625
LARGE_BATCH = 64  # Makes activations dominate the memory, where memory is compared.


@dataclasses.dataclass(frozen=True)
class Setting:
    """An encoder, named by flags of run.py, and the batch size."""

    encoder: str = "resnet"
    resnet_depth: int = 50
    width_multiplier: int = 1
    sk_ratio: float = 0.0
    recompute: bool = False
    batch: int = BATCH

    @property
    def name(self) -> str:
        """Name in the tables, such as ResNet-50 2x SK."""
        if self.encoder != "resnet":
            return self.encoder
        sk = " SK" if self.sk_ratio else ""
        return f"ResNet-{self.resnet_depth} {self.width_multiplier}x{sk}"

    def architecture(self, side: int) -> simclr.Architecture:
        """Returns the architecture, for images of `side` px."""
        config = config_lib.Config(
            image_size=side,
            encoder=self.encoder,
            resnet_depth=self.resnet_depth,
            width_multiplier=self.width_multiplier,
            stem="imagenet" if self.encoder == "resnet" else "auto",
            sk_ratio=self.sk_ratio,
        )
        return builders.architecture_of(config, None)


def _full() -> list[Setting]:
    """Returns the encoders of --full, in the order of the table."""
    resnets = [
        Setting(resnet_depth=depth, width_multiplier=width) for depth in DEPTHS for width in WIDTHS
    ]
    resnets += [
        Setting(resnet_depth=depth, width_multiplier=width, sk_ratio=SK)
        for depth, width in ((50, 1), (50, 2), (101, 1), (101, 2), (152, 1), (152, 2), (152, 3))
    ]
    return [*resnets, *(Setting(encoder=f"keras:{name}") for name in APPLICATIONS)]


FULL = _full()
FULL_RECOMPUTE = [
    Setting(resnet_depth=18, batch=LARGE_BATCH),
    Setting(batch=LARGE_BATCH),
    Setting(sk_ratio=SK, batch=LARGE_BATCH),
]
FEW = [
    Setting(resnet_depth=18),
    Setting(),
    Setting(sk_ratio=SK),
    Setting(resnet_depth=18, width_multiplier=2),
    Setting(encoder=f"keras:{APPLICATIONS[0]}"),
]
FEW_RECOMPUTE = FULL_RECOMPUTE[:2]
SMALLEST = [Setting(resnet_depth=8, batch=4)]


def measure(setting: Setting, rounds: int) -> Row:
    """Trains an encoder for some rounds; must be the only call in its process.

    Returns:
        "images_per_second"; "peak_gib" of the process; and "step_gib", the growth of that peak
        since the variables were created.
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
    # Works on Linux only. The peak of getrusage is at least the size of the parent process.
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


@functools.cache
def measure_in_new_process(setting: Setting, rounds: int, limit: int) -> Row:
    """Measures in a new process.

    Args:
        setting: what to measure.
        rounds: number of measurements.
        limit: seconds after which the process is ended.

    Returns:
        The result of `measure`; empty if the process fails or takes too long.
    """
    encoded = json.dumps(dataclasses.asdict(setting))
    command = [sys.executable, __file__, "--measure", encoded, "--rounds", str(rounds)]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=True)
    except subprocess.TimeoutExpired:
        print(f"{setting.name}: not measured; it takes more than {limit} s", file=sys.stderr)
        return {}
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        print(f"{setting.name}: not measured; {last}", file=sys.stderr)
        return {}
    return json.loads(process.stdout.splitlines()[-1])


def make_rows(
    settings: list[Setting], *, rounds: int, limit: int, max_parameters: float
) -> list[Row]:
    """Returns a row per encoder.

    Args:
        settings: the encoders.
        rounds: number of measurements of each.
        limit: seconds for the process of each.
        max_parameters: in millions; larger encoders are counted, but not measured.
    """
    rows = []
    for setting in settings:
        size = sizes.of_encoder(setting.architecture(224))
        row: Row = {
            "name": setting.name,
            "features": size.features,
            "parameters": size.parameters,
            "giga_multiply_adds": size.multiply_adds / 1e9,
        }
        if size.parameters <= max_parameters * 1e6:
            row.update(measure_in_new_process(setting, rounds, limit))
        rows.append(row)
        print(_line(row), flush=True)
    return rows


def make_recompute_rows(settings: list[Setting], *, rounds: int, limit: int) -> list[Row]:
    """Returns time and memory of encoders without and with --recompute."""
    rows = []
    for setting in settings:
        plain = measure_in_new_process(setting, rounds, limit)
        with_recompute = dataclasses.replace(setting, recompute=True)
        recomputed = measure_in_new_process(with_recompute, rounds, limit)
        if plain and recomputed:
            row = {
                "name": setting.name,
                "plain_gib": plain["step_gib"],
                "recompute_gib": recomputed["step_gib"],
                "time": plain["images_per_second"] / recomputed["images_per_second"],
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


def page(
    rows: list[Row], recompute_rows: list[Row], *, rounds: int, limit: int, max_parameters: float
) -> str:
    """Returns the content of docs/architectures.md."""
    versions = f"Python {platform.python_version()}, TensorFlow {tf.__version__}"
    return "\n".join(
        [
            "# Encoders: size, arithmetic, speed and memory",
            "",
            "This page was written by `python benchmarks/architectures.py --write` (with `--full`",
            f"for all rows), on {os.cpu_count()} CPU cores with {versions}.",
            f"All numbers are medians of {rounds} rounds.",
            "",
            "Parameters are the trainable parameters of the encoder, without heads. GFLOPs are",
            "billions of floating-point operations in the forward pass of one image of 224 px: two",
            "for each multiply-add. Many papers count multiply-adds instead.",
            "",
            "Images/s and peak memory are those of a forward and a backward pass in float32 with",
            f"{BATCH} images of {SIDE} px. Each encoder was measured in its own process. A `-`",
            "means that an encoder was not measured, because it has more than",
            f"{max_parameters:.0f} million parameters or took more than {limit} seconds.",
            "",
            "| encoder | features | parameters (M) | GFLOPs | images/s | peak memory (GiB) |",
            "|---|--:|--:|--:|--:|--:|",
            *map(_line, rows),
            "",
            "## --recompute",
            "",
            "The memory that the process gains in its first training step, with",
            f"{LARGE_BATCH} images of {SIDE} px.",
            "",
            "| encoder | without (GiB) | with (GiB) | time with / without |",
            "|---|--:|--:|--:|",
            *map(_recompute_line, recompute_rows),
            "",
        ]
    )


def main() -> None:
    """Counts and measures the encoders, and prints the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="measure every depth and width")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--write", action="store_true", help="write docs/architectures.md")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each encoder")
    parser.add_argument("--limit", type=int, default=300, help="seconds for each encoder")
    parser.add_argument(
        "--max_parameters",
        type=float,
        default=1200,
        help="in millions; larger encoders are counted, but not measured",
    )
    parser.add_argument(
        "--smallest",
        action="store_true",
        help="measure only a ResNet-8, in seconds, to check that this program works",
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rounds, limit = arguments.rounds, arguments.limit
    if arguments.measure:
        print(json.dumps(measure(Setting(**json.loads(arguments.measure)), rounds)))
        return
    if arguments.smallest and (arguments.full or arguments.write):
        parser.error("--smallest measures too little for --full or --write; leave them out")
    settings, with_recompute = (FULL, FULL_RECOMPUTE) if arguments.full else (FEW, FEW_RECOMPUTE)
    if arguments.smallest:
        settings = with_recompute = SMALLEST
    limits = {"rounds": rounds, "limit": limit}
    rows = make_rows(settings, **limits, max_parameters=arguments.max_parameters)
    recompute_rows = make_recompute_rows(with_recompute, **limits)
    if arguments.write:
        text = page(rows, recompute_rows, **limits, max_parameters=arguments.max_parameters)
        (ROOT / "docs" / "architectures.md").write_text(text)
    if arguments.json:
        print(json.dumps({"encoders": rows, "recompute": recompute_rows}))


if __name__ == "__main__":
    main()
