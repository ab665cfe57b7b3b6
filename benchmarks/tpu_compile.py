"""Compiles HLO for a TPU by its own compiler, on a machine without a TPU.

    python benchmarks/tpu_compile.py --topology=v5e:2x2 --replicas=1 STEP.pb ...

It runs in a virtual environment of its own, without TensorFlow; see `tpu_compiler.py`. For each
file it prints a JSON object with what the compiler says of the program, or with its error.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import time
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
# Otherwise the library looks for a TPU and for its server of metadata, for minutes.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
# Two processes cannot use one TPU, but they can compile.
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

from jax._src.interpreters import mlir as jax_mlir
from jax._src.lib import xla_client
from jax.experimental import topologies
from jaxlib import _jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import stablehlo


def _options(devices: list[Any], *, fast: bool) -> Any:
    """Returns the options to compile for a program per device."""
    ids = np.array([[device.id] for device in devices])
    options = xla_client.CompileOptions()
    options.num_replicas, options.num_partitions = len(devices), 1
    options.device_assignment = xla_client.DeviceAssignment.create(ids)
    build = options.executable_build_options
    build.num_replicas, build.num_partitions = len(devices), 1
    build.device_assignment = options.device_assignment
    if fast:
        build.exec_time_optimization_effort = -1.0
        build.memory_fitting_effort = -1.0
    return options


def compile_file(path: str, devices: list[Any], *, fast: bool) -> dict[str, Any]:
    """Returns what the compiler says of a program.

    Args:
        path: the serialized HLO.
        devices: the devices of its replicas.
        fast: whether to optimize less, which takes less time.

    Returns:
        Seconds, bytes by kind, FLOPs and numbers of all-reduces; or the error.
    """
    wall, cpu = time.monotonic(), time.process_time()
    with open(path, "rb") as file:
        serialized = file.read()
    result: dict[str, Any] = {}
    try:
        with jax_mlir.make_ir_context():
            program = stablehlo.parse(serialized)
            options = _options(devices, fast=fast)
            executable = devices[0].client.compile(
                program, _jax.DeviceList(tuple(devices)), options
            )
        stats = executable.get_compiled_memory_stats()
        names = [n for n in dir(stats) if n.endswith("in_bytes") and not n.startswith("host")]
        result["bytes"] = {name.removesuffix("_in_bytes"): getattr(stats, name) for name in names}
        costs = executable.cost_analysis()
        costs = costs[0] if isinstance(costs, list) else costs
        result["flops"] = costs.get("flops")
        text = executable.hlo_modules()[0].to_string()
        result["all_reduces"] = text.count(" all-reduce(") + text.count(" all-reduce-start(")
    except Exception as error:  # Whatever the compiler refuses is a result.
        result["error"] = f"{type(error).__name__}: {error}"
    result["seconds"] = round(time.monotonic() - wall, 1)
    result["cpu_seconds"] = round(time.process_time() - cpu, 1)
    return result


def main() -> None:
    """Compiles files and prints a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", help="serialized HLO, as step_hlo.py writes it")
    parser.add_argument("--topology", default="v5e:2x2", help="such as v4:2x2x1 or v6e:2x2")
    parser.add_argument("--replicas", type=int, default=1, help="replicas of the program")
    parser.add_argument("--fast", action="store_true", help="optimize less")
    arguments = parser.parse_args()
    topology = topologies.get_topology_desc(platform="tpu", topology_name=arguments.topology)
    devices = list(topology.devices)[: arguments.replicas]
    for path in arguments.files:
        result = compile_file(path, devices, fast=arguments.fast)
        print(json.dumps({"file": path, "device": devices[0].device_kind, **result}), flush=True)


if __name__ == "__main__":
    main()
