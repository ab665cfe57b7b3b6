r"""Times an exported training step on a GPU through JAX's XLA, beside the same step in PyTorch.

    python benchmarks/step_hlo.py --output=step --num_classes=1000 --mode=train --image_size=224 \
        --resnet_depth=50 --train_batch_size=128 --mixed_precision=bfloat16
    python benchmarks/gpu_step.py step/0_train_on_replica.pb --images=128 --write

The first command needs TensorFlow and no GPU. The second runs on a machine with a GPU, with JAX,
PyTorch and torchvision, and without TensorFlow: a step that XLA compiled is timed, not TensorFlow,
whose own XLA makes the same program where its version is the same. The rounds of the two sides
alternate. Views are random numbers that lie on the GPU, so reading and augmenting images is not
measured. `--write` puts the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import json
import pathlib
import statistics
import sys
import time
from typing import Any, NamedTuple

import jax
from jax._src.interpreters import mlir as jax_mlir
from jax._src.lib import xla_client
from jaxlib import _jax
from jaxlib.mlir import ir
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import pages, stablehlo

_PAGE = pathlib.Path(__file__).parents[1] / "docs" / "performance.md"
_WARM_UP = 3
jax.config.update("jax_enable_x64", True)  # Steps have counters of 64 bits.


class _Argument(NamedTuple):
    """An argument of a step: its shape, its element type, and the result that takes its place."""

    shape: tuple[int, ...]
    kind: str
    result: int | None


def step_arguments(module: Any) -> list[_Argument]:
    """Returns the arguments of the function main of a module."""
    names = {ir.StringAttr(one.attributes["sym_name"]).value: one for one in module.body.operations}
    results = {}
    for attribute in ir.ArrayAttr(module.operation.attributes["mhlo.input_output_alias"]):
        entry = ir.DictAttr(attribute)
        number = ir.IntegerAttr(ir.DictAttr(entry["alias"])["parameter_number"]).value
        (results[number],) = ir.DenseI64ArrayAttr(entry["output_index"])
    types = [ir.RankedTensorType(value.type) for value in names["main"].arguments]
    return [
        _Argument(tuple(one.shape), str(one.element_type), results.get(number))
        for number, one in enumerate(types)
    ]


def compiled_step(serialized_hlo: bytes) -> Callable[[], list[jax.Array]]:
    """Returns the step, compiled for the first device of JAX, with arguments of its own.

    Floats are between 0 and 0.05, as views and weights may be, and integers are 0.

    Args:
        serialized_hlo: the step of one replica, as step_hlo.py writes it.
    """
    device = jax.devices()[0]
    options = xla_client.CompileOptions()
    with jax_mlir.make_ir_context():
        module = stablehlo.parse(serialized_hlo)
        arguments = step_arguments(module)
        executable = device.client.compile_and_load(module, _jax.DeviceList((device,)), options)
    generator = np.random.default_rng(0)
    values = [jax.device_put(_values(generator, one), device) for one in arguments]

    def step() -> list[jax.Array]:
        shards = executable.execute_sharded(values).disassemble_into_single_device_arrays()
        results = [shard[0] for shard in shards]
        for index, one in enumerate(arguments):  # Weights, slots and statistics change in place.
            if one.result is not None:
                values[index] = results[one.result]
        return results

    return step


def _values(generator: np.random.Generator, argument: _Argument) -> Any:
    # MLIR's names, as f32, i64 and ui64.
    names = {"f": "float", "bf": "bfloat", "i": "int", "ui": "uint"}
    letters = argument.kind.rstrip("0123456789")
    name = "bool" if argument.kind == "i1" else names[letters] + argument.kind[len(letters) :]
    if "float" in name:
        values = generator.uniform(0, 0.05, argument.shape).astype(np.float32)
        return jax.numpy.asarray(values, name)
    return np.zeros(argument.shape, name)


def _seconds(steps: int, step: Callable[[], Any], wait: Callable[[Any], Any]) -> float:
    """Returns the time of a step, of several that are queued one after the other."""
    start = time.perf_counter()
    for _ in range(steps):
        result = step()
    wait(result)
    return (time.perf_counter() - start) / steps


def _sides(arguments: argparse.Namespace) -> dict[str, tuple[Callable[[], Any], Callable]]:
    """Returns the step of each side, and what waits for its result."""
    step = compiled_step(pathlib.Path(arguments.file).read_bytes())
    sides: dict[str, tuple[Callable[[], Any], Callable]] = {
        "this project, XLA": (step, jax.block_until_ready)
    }
    if arguments.pytorch:
        import torch

        from benchmarks import torch_step

        on_gpu = torch.cuda.is_available()
        other = torch_step.Step(
            arguments.images,
            side=arguments.side,
            depth=arguments.depth,
            num_classes=arguments.num_classes,
            bfloat16=arguments.bfloat16,
            compiled=arguments.torch_compile,
            device="cuda" if on_gpu else "cpu",
        )
        name = f"PyTorch{', torch.compile' if arguments.torch_compile else ''}"
        sides[name] = (other, lambda loss: loss.item())
    return sides


def measure(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Returns the seconds of a step in each round, by side."""
    sides = _sides(arguments)
    for step, wait in sides.values():
        _seconds(_WARM_UP, step, wait)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(arguments.rounds):
        for name, (step, wait) in sides.items():
            times[name].append(_seconds(arguments.steps, step, wait))
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    return times


def table(times: dict[str, list[float]], images: int, device: str) -> str:
    """Returns the medians of each side in Markdown."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    first = next(iter(medians.values()))
    lines = [
        f"| step of {images} images on {device} | ms | images/s | time of the first |",
        "|---|--:|--:|--:|",
    ]
    for name, median in medians.items():
        lines.append(
            f"| {name} | {median * 1e3:.1f} | {images / median:.0f} | {median / first:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    switch = argparse.BooleanOptionalAction
    parser.add_argument("file", help="the step, as step_hlo.py writes it")
    parser.add_argument("--images", type=int, required=True, help="images of a step")
    parser.add_argument("--side", type=int, default=224, help="side of a view, for PyTorch")
    parser.add_argument("--depth", type=int, default=50, help="depth of PyTorch's ResNet")
    parser.add_argument("--num_classes", type=int, default=1000, help="classes, for PyTorch")
    parser.add_argument("--pytorch", action=switch, default=True, help="also time PyTorch")
    parser.add_argument("--bfloat16", action=switch, default=True, help="bfloat16 in PyTorch")
    parser.add_argument("--torch_compile", action=switch, default=True, help="use torch.compile")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, of which medians are taken")
    parser.add_argument("--steps", type=int, default=10, help="steps of a round")
    parser.add_argument("--write", action="store_true", help="write into docs/performance.md")
    return parser.parse_args()


def main() -> None:
    """Measures, prints, and writes the table."""
    arguments = _arguments()
    times = measure(arguments)
    text = table(times, arguments.images, jax.devices()[0].device_kind)
    print(text)
    print(json.dumps({name: sorted(values) for name, values in times.items()}))
    if arguments.write:
        pages.replace_table(str(_PAGE), "gpu_step.py", text)


if __name__ == "__main__":
    main()
