"""The TPU's own compiler accepts the steps of the program, on a machine without a TPU.

It runs in a virtual environment of its own, see `benchmarks/tpu_compiler.py`. Every step is lowered
by the code that trains and evaluates, for one replica of several.
"""

import json
import pathlib
import statistics
import subprocess
from typing import Any

import pytest
import tensorflow as tf

from benchmarks import step_hlo, tpu_compiler, tpu_memory, tpu_strategy
from simclr_tf import config as config_lib

pytestmark = [
    pytest.mark.slow,
    pytest.mark.exhaustive,
    pytest.mark.skipif(
        tf.__version__.startswith("2.15."),
        reason="TensorFlow 2.15 cannot lower the sum over replicas (XlaAllReduce) on a CPU",
    ),
]

ROOT = pathlib.Path(__file__).parents[1]
SMALL: dict[str, Any] = {"resnet_depth": 8, "image_size": 16, "train_batch_size": 16}
# Where what the step does beside the network matters, in a fraction of a ResNet's time.
PLAIN = {**SMALL, "encoder": "tiny_encoders:plain"}
# From 2048 views of all replicas on, the loss is computed in tiles.
TILED = {**PLAIN, "image_size": 8, "train_batch_size": 1024}
# Settings, and arguments of `training_step`.
STEPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "NT-Xent": (SMALL, {}),
    "NT-Xent on 4 replicas": ({**SMALL, "mixed_precision": "bfloat16"}, {"replicas": 4}),
    "SupCon on 4 replicas": ({**PLAIN, "objective": "supcon"}, {"replicas": 4}),
    "NT-Xent in tiles on 4 replicas": (TILED, {"replicas": 4}),
    "views made on the device": ({**PLAIN, "augment_on": "device"}, {"stored_size": 24}),
    "accumulation": ({**PLAIN, "accum_chunks": 2}, {}),
    "fine-tuning with CutMix": ({**PLAIN, "train_mode": "finetune", "cutmix": 1.0}, {}),
}
EVALUATION = "evaluation on 4 replicas"
TOO_LARGE = "more than the memory of a TPU"


def _lowered():
    """Returns the functions of each step by name, and the number of replicas."""
    lowered = {}
    for name, (settings, arguments) in STEPS.items():
        functions = step_hlo.training_step(config_lib.Config(**settings), **arguments)
        lowered[name] = (functions, arguments.get("replicas", 1))
    config = config_lib.Config(**SMALL)
    lowered[EVALUATION] = (step_hlo.evaluation_step(config, 16, replicas=4), 4)
    double = tf.function(lambda x: 2.0 * x, jit_compile=True)
    spec = tf.TensorSpec([40, 2**30], tf.float32)
    lowered[TOO_LARGE] = ([tpu_strategy.Lowered("double", double, (spec,))], 1)
    return lowered


@pytest.fixture(scope="module")
def compiler():
    """The Python with the compiler."""
    try:
        return tpu_compiler.python()
    except tpu_compiler.UnavailableError as error:
        pytest.skip(f"The compiler for TPUs could not be installed ({error}).")


@pytest.fixture(scope="module")
def compiled(compiler, tmp_path_factory):
    """What the compiler says of each function of each step, by the name of the step."""
    folder = tmp_path_factory.mktemp("hlo")
    files = {1: {}, 4: {}}
    for name, (functions, replicas) in _lowered().items():
        for number, function in enumerate(functions):
            path = folder / f"{len(files[replicas])}_{replicas}.pb"
            path.write_bytes(function.hlo())
            files[replicas][path] = f"{name}: {number} {function.name}"
    results = {}
    for replicas, names in files.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("XLA_FLAGS", raising=False)  # They are of the XLA of this process.
            found = tpu_compiler.compile_files(list(names), replicas=replicas, fast=True)
        for name, result in zip(names.values(), found):
            results.setdefault(name.split(":")[0], []).append(result)
    return results


@pytest.mark.parametrize("name", [*STEPS, EVALUATION])
def test_the_compiler_accepts(compiled, name):
    for result in compiled[name]:
        assert "error" not in result
        assert result["bytes"]["peak_memory"] > 0


@pytest.mark.parametrize("name", [*STEPS, EVALUATION])
def test_only_training_on_several_replicas_communicates(compiled, name):
    communicates = sum(result["all_reduces"] for result in compiled[name]) > 0
    assert communicates == (STEPS.get(name, ({}, {}))[1].get("replicas", 1) > 1)


def test_accumulation_consists_of_several_programs(compiled):
    assert len(compiled["accumulation"]) > len(compiled["NT-Xent"]) == 1


def test_the_compiler_refuses_what_does_not_fit_into_the_memory(compiled):
    (result,) = compiled[TOO_LARGE]
    assert "RESOURCE_EXHAUSTED" in result["error"]


def test_the_step_can_be_timed_by_xla_without_tensorflow(compiler, tmp_path):
    (step,) = step_hlo.training_step(config_lib.Config(**SMALL))
    (tmp_path / "step.pb").write_bytes(step.hlo())
    program = [compiler, str(ROOT / "benchmarks" / "gpu_step.py")]
    arguments = ["step.pb", "--images=16", "--no-pytorch", "--rounds=2", "--steps=1"]
    result = subprocess.run(
        [*program, *arguments],
        cwd=tmp_path,
        env={"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    times = json.loads(result.stdout.splitlines()[-1])["this project, XLA"]
    speed = 16 / statistics.median(times)
    assert len(times) == 2
    assert f"| this project, XLA | {16e3 / speed:.1f} | {speed:.0f} | 1.00 |" in result.stdout


def test_the_table_has_what_was_measured_and_no_more(compiled):
    fits = {"flops": 96e9, "bytes": {"peak_memory": 3 * 2**29}}
    results = {"2x32 v4": fits, "1x2 v6e": compiled[TOO_LARGE][0], "1x2 v5e": {"error": "bad"}}
    rows = [
        "| 1x | 2 |  | not measured | refused | does not fit (320.00 of 15.75 GiB) |",
        "| 2x | 32 | 3 | 1.5 GiB | not measured | not measured |",
    ]
    assert tpu_memory.table(results).splitlines()[2:] == rows
    # A row is measured again; one that is not is kept.
    earlier = ["| 1x | 10 | 4 | 1.0 GiB | 1.0 GiB | 1.0 GiB |", rows[1].replace("1.5", "9.5")]
    assert tpu_memory.table(results, earlier).splitlines()[2:] == [rows[0], earlier[0], rows[1]]
