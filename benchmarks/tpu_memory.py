"""Writes how much memory of a TPU a training step of ResNet-50 at 224 px takes into docs/tpu.md.

    python benchmarks/tpu_memory.py                    adds all cells that are missing: an hour
    python benchmarks/tpu_memory.py --cells=1x128      adds those of one width and batch
    python benchmarks/tpu_memory.py --tpus=v5e         adds those of one kind of TPU

The numbers are those of the TPU's own compiler, which needs no TPU; see `tpu_compiler.py`. It
optimizes less than for training (`--fast`), because that takes a sixth of the time. What was
measured is also kept in a file, so that the program can be interrupted. Rows of the page that are
not in the file stay as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import re
import sys
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from benchmarks import pages, tpu_compiler

_ROOT = pathlib.Path(__file__).parents[1]
_PAGE = _ROOT / "docs" / "tpu.md"
_NAME = "tpu_memory.py"
# Widths and batches of a replica, in the order in which they are measured.
_CELLS = ("1x128", "2x64", "4x32", "1x256", "2x128", "4x64", "1x64")
_TOPOLOGIES = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v6e": "v6e:2x2"}
_CLASSES, _SIDE = 1000, 224

Result = dict[str, Any]


def table(results: dict[str, Result], earlier: Sequence[str] = ()) -> str:
    """Returns the table of results, in Markdown.

    Args:
        results: by "CELL TPU".
        earlier: rows of other cells, as this function has written them.
    """
    rows = {_cell_of(row): row for row in earlier}
    for cell in {name.split()[0] for name in results}:
        width, batch = _width_and_batch(cell)
        of_cell = {tpu: results.get(f"{cell} {tpu}") for tpu in _TOPOLOGIES}
        flops = [result["flops"] for result in of_cell.values() if result and "flops" in result]
        per_image = f"{max(flops) / batch / 1e9:.0f}" if flops else ""
        memory = " | ".join(_memory(result) for result in of_cell.values())
        rows[cell] = f"| {width}x | {batch} | {per_image} | {memory} |"
    lines = [
        f"| width | images of a replica | GFLOP per image | {' | '.join(_TOPOLOGIES)} |",
        f"|--:|--:|--:|{'--:|' * len(_TOPOLOGIES)}",
        *(rows[cell] for cell in sorted(rows, key=_width_and_batch)),
    ]
    return "\n".join(lines) + "\n"


def _cell_of(row: str) -> str:
    """Returns the cell of a row, such as 1x128."""
    width, batch = (part.strip() for part in row.split("|")[1:3])
    return width + batch


def _width_and_batch(cell: str) -> tuple[int, int]:
    width, batch = cell.split("x")
    return int(width), int(batch)


def _memory(result: Result | None) -> str:
    """Returns the peak of a cell, that it does not fit, or that it was not measured."""
    if result is None:
        return "not measured"
    if "error" not in result:
        return f"{result['bytes']['peak_memory'] / 2**30:.1f} GiB"
    sizes = re.findall(r"([\d.]+)G\b", result["error"])  # What is needed, and what there is.
    if "RESOURCE_EXHAUSTED" in result["error"] and len(sizes) >= 2:
        return f"does not fit ({sizes[0]} of {sizes[1]} GiB)"
    return "refused"


def _export(cell: str, path: str) -> None:
    """Writes the step of a width and batch as HLO."""
    from benchmarks import step_hlo  # Imports TensorFlow, which writing the table does not need.
    from simclr_tf import config as config_lib

    width, batch = _width_and_batch(cell)
    config = config_lib.Config(
        image_size=_SIDE,
        resnet_depth=50,
        width_multiplier=width,
        train_batch_size=batch,
        mixed_precision="bfloat16",
    )
    (step,) = step_hlo.training_step(config, num_classes=_CLASSES)
    with open(path, "wb") as file:
        file.write(step.hlo())


def _measure(cell: str, tpus: list[str], results: dict[str, Result], file: pathlib.Path) -> None:
    """Adds the missing results of a cell to `results` and to the file."""
    missing = [tpu for tpu in tpus if f"{cell} {tpu}" not in results]
    if not missing:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "step.pb")
        _export(cell, path)
        for tpu in missing:
            (result,) = tpu_compiler.compile_files([path], topology=_TOPOLOGIES[tpu], fast=True)
            results[f"{cell} {tpu}"] = result
            file.write_text(json.dumps(results, indent=1), encoding="utf-8")
            print(f"{cell} on {tpu}: {_memory(result)}, {result['cpu_seconds']:.0f} s", flush=True)


def main() -> None:
    """Measures the missing cells and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", default=",".join(_CELLS), help="widths and batches, as 1x128")
    parser.add_argument("--tpus", default=",".join(_TOPOLOGIES), help="kinds of TPUs")
    parser.add_argument(
        "--results", default=_ROOT / "runs" / "tpu_memory.json", type=pathlib.Path, help="the file"
    )
    arguments = parser.parse_args()
    results: dict[str, Result] = {}
    if arguments.results.exists():
        results = json.loads(arguments.results.read_text(encoding="utf-8"))
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    for cell in filter(None, arguments.cells.split(",")):
        _measure(cell, arguments.tpus.split(","), results, arguments.results)
    earlier = pages.rows_of_table(str(_PAGE), _NAME)
    pages.replace_table(str(_PAGE), _NAME, table(results, earlier))


if __name__ == "__main__":
    main()
