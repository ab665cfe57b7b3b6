"""Measures the speed of the signatures of a SavedModel, next to that of the network alone.

    python benchmarks/serving.py              prints a table; takes long on a CPU
    python benchmarks/serving.py --json       also prints one JSON object as the last line
    python benchmarks/serving.py --write      also writes the table into docs/serving.md
    python benchmarks/serving.py --rounds=20  measures each call 20 times
    python benchmarks/serving.py --smallest   takes seconds
    python benchmarks/serving.py --reference=SAVED_MODEL   also measures a SavedModel that
                                              google-research/simclr wrote, and our export of it

The network is a ResNet-50 with a linear head and random weights, whose speed is that of any other.
`prepared` is given what the network takes, and `serving_bytes` JPEG files: the difference of the
two is decoding, cropping and resizing. "bfloat16" is an export with --export_dtype=bfloat16, and
"XLA" the network compiled by XLA for each size of a batch. Both SavedModels of --reference have the
same weights and are given the same images, of their own size. The calls take turns, so that other
load on the machine meets all of them; latencies are percentiles over the rounds, without the first
call. Network and signatures run in this process: gRPC and HTTP are not measured. The figures are
those of a machine that does nothing else. The first answer is that of `serving_bytes` to one file,
and its time begins when the SavedModel is loaded, in a process that has imported TensorFlow.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import numpy as np

import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

import tensorflow as tf  # isort: skip

from benchmarks import pages
from simclr_tf.models import simclr
from simclr_tf.runs import initialization, machine, weights
from simclr_tf.serving import export, outputs

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "serving.md"
NETWORK = "network alone"
NETWORK_XLA = "network alone, XLA"
PREPARED_BFLOAT16 = "prepared, bfloat16"
REFERENCE = "google-research/simclr"
_PREPARED, _BYTES = "prepared", "serving_bytes"
Row = dict[str, Any]
Calls = dict[str, Callable[[tf.Tensor], Any]]


@dataclasses.dataclass(frozen=True)
class Amount:
    """What is measured: the network, the size of the JPEG files, and how often."""

    depth: int
    stem: str
    image_size: int
    height: int
    width: int
    batches: tuple[int, ...]
    rounds: int

    def architecture(self) -> simclr.Architecture:
        """Returns the architecture of the network."""
        return simclr.Architecture(
            resnet_depth=self.depth,
            width_multiplier=1,
            stem=self.stem,
            image_size=self.image_size,
            proj_head_mode="nonlinear",
            num_proj_layers=2,
            proj_out_dim=128,
            ft_proj_selector=0,
            batch_norm_decay=0.9,
            class_names=tuple(map(str, range(1000))),
        )

    def __str__(self) -> str:
        return (
            f"ResNet-{self.depth}, {self.image_size} px, JPEG files of "
            f"{self.width} x {self.height} px, {self.rounds} rounds"
        )


# Most photos of ImageNet have this size.
_FULL = Amount(50, "imagenet", 224, 375, 500, (1, 8, 32), 100)
SMALLEST = Amount(8, "small", 8, 20, 30, (1, 2), 3)


def _photo(amount: Amount) -> bytes:
    """Returns a JPEG file of smoothed noise, which has a usual number of bytes."""
    rough = np.random.default_rng(0).uniform(0, 255, (12, 16, 3))
    smooth = tf.image.resize(rough, (amount.height, amount.width), "bicubic")
    return tf.io.encode_jpeg(tf.cast(tf.clip_by_value(smooth, 0, 255), tf.uint8)).numpy()


def _first_answer(path: str, photo: bytes) -> tuple[Any, float]:
    """Loads a SavedModel, and returns its signatures and the seconds to its first answer."""
    start = time.perf_counter()
    signatures = tf.saved_model.load(path).signatures
    _signature(signatures, _BYTES)(tf.constant([photo]))["features"].numpy()
    return signatures, time.perf_counter() - start


def _signature(signatures: Any, name: str) -> Callable[[tf.Tensor], Any]:
    """Returns a function of one tensor that calls a signature."""
    call = signatures[name]
    (argument,) = call.structured_input_signature[1]
    # By name: without it, TensorFlow first writes the values into an error that it does not raise.
    return lambda values: call(**{argument: values})


def _calls(model: simclr.SimCLR, signatures: Any, bfloat16: Any) -> Calls:
    """Returns what is measured, by name: functions of a batch that return features.

    Args:
        model: the network.
        signatures: those of its export.
        bfloat16: those of its export in bfloat16.
    """
    size = model.architecture.image_size

    def network(**settings: Any) -> Callable[[tf.Tensor], Any]:
        return tf.function(
            lambda images: outputs.compute(model, images, ("features", "logits")),
            input_signature=[tf.TensorSpec([None, size, size, 3])],
            autograph=model.needs_autograph,
            **settings,
        )

    return {
        NETWORK: network(),
        NETWORK_XLA: network(jit_compile=True),
        _PREPARED: _signature(signatures, _PREPARED),
        PREPARED_BFLOAT16: _signature(bfloat16, _PREPARED),
        _BYTES: _signature(signatures, _BYTES),
    }


def measure(amount: Amount) -> tuple[list[Row], float]:
    """Measures each function with each batch size.

    Returns:
        Rows of "name", "batch", "images_per_second", and of "p50_ms" and "p99_ms", the latencies of
        a batch in milliseconds; and the seconds to the first answer.
    """
    model = simclr.SimCLR(amount.architecture(), seed=0)
    photo, rows = _photo(amount), []
    with tempfile.TemporaryDirectory() as folder:
        signatures, seconds_to_first = _first_answer(export.export(model, folder, 1), photo)
        print(_first_line(seconds_to_first), flush=True)
        bfloat16 = tf.saved_model.load(export.export(model, folder, 1, dtype="bfloat16")).signatures
        calls = _calls(model, signatures, bfloat16)
        for count in amount.batches:
            given = dict.fromkeys(calls, _images(count, amount.image_size))
            given[_BYTES] = tf.constant(count * [photo])
            rows += _in_turns(calls, given, count, amount.rounds)
    return rows, seconds_to_first


def measure_reference(
    path: str, batches: tuple[int, ...], rounds: int
) -> tuple[list[Row], simclr.Architecture]:
    """Measures a SavedModel of google-research/simclr, and the export of its weights.

    Args:
        path: its folder.
        batches: numbers of images.
        rounds: calls of each function.

    Returns:
        Rows as of `measure`, and the architecture of the network.
    """
    model, _ = initialization.build(weights.open_weights(path))
    rows, size = [], model.architecture.image_size
    theirs = tf.saved_model.load(path)
    with tempfile.TemporaryDirectory() as folder:
        signatures = tf.saved_model.load(export.export(model, folder, 1)).signatures
        calls: Calls = {
            # As its Colab calls it.
            REFERENCE: lambda images: {"features": theirs(images, False)["final_avg_pool"]},
            _PREPARED: _signature(signatures, _PREPARED),
        }
        for count in batches:
            images = _images(count, size)
            found = [call(images)["features"].numpy() for call in calls.values()]
            np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-3)
            rows += _in_turns(calls, dict.fromkeys(calls, images), count, rounds)
    return rows, model.architecture


def _images(count: int, side: int) -> tf.Tensor:
    return tf.random.stateless_uniform([count, side, side, 3], [0, 1])


def _in_turns(calls: Calls, given: dict[str, tf.Tensor], count: int, rounds: int) -> list[Row]:
    """Calls functions in turns, prints what each took, and returns it."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call(given[name])["features"].numpy()
            seconds[name].append(time.perf_counter() - start)
    rows = [_row(name, count, np.array(found[1:])) for name, found in seconds.items()]
    print("\n".join(map(_line, rows)), flush=True)
    return rows


def _row(name: str, count: int, seconds: np.ndarray) -> Row:
    p50, p99 = np.percentile(1000 * seconds, (50, 99))
    return {
        "name": name,
        "batch": count,
        "images_per_second": float(count * len(seconds) / seconds.sum()),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
    }


def _line(row: Row) -> str:
    speed, p50, p99 = (row[key] for key in ("images_per_second", "p50_ms", "p99_ms"))
    return f"| {row['name']} | {row['batch']} | {speed:.1f} | {p50:.1f} | {p99:.1f} |"


def _first_line(seconds: float) -> str:
    return f"From loading the SavedModel to its first answer: {seconds:.1f} s."


def table(rows: list[Row], heading: str, *lines: str) -> str:
    """Returns results as a table in Markdown, between what was measured and further lines."""
    where = f"{os.cpu_count()} cores ({machine.processor()}), TensorFlow {tf.__version__}"
    head = ["| | images in a batch | images/s | p50 (ms) | p99 (ms) |", "|---|--:|--:|--:|--:|"]
    below = ["", *lines] if lines else []
    return "\n".join([f"{heading}; {where}:", "", *head, *map(_line, rows), *below, ""])


def main() -> None:
    """Measures the signatures and prints the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    parser.add_argument("--rounds", type=int, default=_FULL.rounds, help="calls of each function")
    parser.add_argument("--smallest", action="store_true", help="measure little, as a check")
    parser.add_argument("--reference", metavar="SAVED_MODEL", help="folder of a SavedModel")
    arguments = parser.parse_args()
    if arguments.smallest and arguments.write:
        parser.error("--smallest measures too little for docs/serving.md; leave out --write")
    amount = dataclasses.replace(_FULL, rounds=arguments.rounds)
    if arguments.smallest:
        amount = SMALLEST
    rows, seconds_to_first = measure(amount)
    tables = [table(rows, str(amount), _first_line(seconds_to_first))]
    results: dict[str, Any] = {"rows": rows, "seconds_to_first_answer": seconds_to_first}
    if arguments.reference:
        # Their network is small, so its calls are short: more of them are measured.
        found, network = measure_reference(arguments.reference, amount.batches, 5 * amount.rounds)
        heading = (
            f"The same weights as a SavedModel of google-research/simclr and as ours, "
            f"ResNet-{network.resnet_depth}, {network.image_size} px, {5 * amount.rounds} rounds"
        )
        tables.append(table(found, heading))
        results["reference"] = found
    if arguments.write:
        pages.replace_table(str(PAGE), pathlib.Path(__file__).name, "\n".join(tables))
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
