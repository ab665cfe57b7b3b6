"""Bulk extraction by Beam: killed, resumed, in one process and in two.

Beam's requirements do not fit beside the newest NumPy and protobuf that this project is tested
with, so it is installed in a virtual environment of its own; see `benchmarks/side_environment.py`.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import time

import numpy as np
import psutil
import pytest
import tensorflow as tf
import tiny_runs

from benchmarks import side_environment
from simclr_tf.models import simclr
from simclr_tf.serving import export

ROOT = pathlib.Path(__file__).parents[1]
# TensorFlow 2.15 does not import beside protobuf 5.
PACKAGES = (
    "apache-beam==2.77.0",
    "protobuf<5" if tf.__version__.startswith("2.15.") else "protobuf<7",
)
TWO = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]
# Finished one after another, they take a second, in which a process can be killed.
SHARDS = 76


@pytest.fixture(scope="module")
def beam():
    """The Python that has Beam."""
    try:
        return side_environment.python(PACKAGES, name="apache-beam2.77.0", over=True)
    except side_environment.UnavailableError as error:
        pytest.skip(f"Apache Beam could not be installed ({error}).")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images and one that cannot be decoded."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for index in range(2 * SHARDS - 1):
        tiny_runs.write_image(root / f"{index:03d}.png", channel=index % 3, rng=rng)
    (root / "006b.png").write_text("hello")
    return root


@pytest.fixture(scope="module")
def command(beam, images, tmp_path_factory):
    """The command that extracts them, without --output."""
    network = simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=3)
    folder = export.export(network, str(tmp_path_factory.mktemp("bulk")), 1)
    return [
        beam,
        "-m",
        "simclr_tf.bulk",
        f"--saved_model={folder}",
        f"--input={images}/*.png",
        "--shard_size=2",
        "--batch_size=3",
    ]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(command, *more, code=0):
    """Runs a command and returns what it prints."""
    done = subprocess.run(
        [*command, *more], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def files_of(folder):
    return tiny_runs.snapshot(folder, ["part-*", "unreadable-*", "inputs.jsonl"])


@pytest.fixture(scope="module")
def killed(command, tmp_path_factory):
    """What a run of two workers printed of which one was killed, its folder, and its shards."""
    output = tmp_path_factory.mktemp("killed")
    process = subprocess.Popen(
        [*command, f"--output={output}", *TWO],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(output.glob("part-*.parquet")):
        time.sleep(0.01)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "python" in child.name()
    ]
    workers[0].kill()
    try:
        printed = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 2
    psutil.wait_procs(workers, timeout=60)
    assert not any(worker.is_running() for worker in workers)
    times = {path: path.stat().st_mtime_ns for path in output.glob("part-*.parquet")}
    return printed, output, times


@pytest.fixture(scope="module")
def resumed(killed, command):
    """The folder after the same command was run again, and what it printed."""
    _, output, _ = killed
    return output, run(command, f"--output={output}")


@pytest.fixture(scope="module")
def two(command, tmp_path_factory):
    """A folder that two processes have written, and what was printed."""
    output = tmp_path_factory.mktemp("two")
    return output, run(command, f"--output={output}", *TWO)


def test_a_killed_worker_ends_the_run_and_loses_no_finished_shard(killed, resumed):
    ending, _, times = killed
    assert "A worker has ended" in ending and "run the same command again" in ending
    output, printed = resumed
    assert 0 < len(times) < SHARDS
    assert f"has {len(times)} of {SHARDS} shards, which are kept" in printed
    assert {path: path.stat().st_mtime_ns for path in times} == times
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert (manifest["rows"], manifest["unreadable"], manifest["images"]) == (151, 1, 152)


def test_two_processes_write_what_one_writes_bit_for_bit(resumed, two):
    assert files_of(two[0]) == files_of(resumed[0])
    assert len(files_of(two[0])) == SHARDS + 1 + 1
    assert "1 image could not be used" in two[1]
    assert "features (64) of 151 images in 76 shards, 1 unreadable" in two[1]


def test_a_pipeline_that_fails_says_why_and_what_to_do(command, tmp_path):
    printed = run(command, f"--output={tmp_path}/out", "--runner=NoRunner", code=2)
    assert "The pipeline stopped" in printed and "NoRunner" in printed
    assert "run the same command again" in printed
