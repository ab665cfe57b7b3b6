"""The command --mode=doctor: its process with TensorFlow, its output and its exit code."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import subprocess
import sys
import types
from typing import Any

import pytest
import tensorflow as tf

import run
from simclr_tf import config as config_lib
from simclr_tf.commands import doctor
from simclr_tf.doctor import finding, gpus, packages, probe, processor, speed, trial
from simclr_tf.runs import machine

IMPORTED = {"version": "2.15.1", "cuda_build": True, "seconds": 6.1}
NO_GPU = {"names": ["CPU"], "free": 2**33}
FACTS: dict[str, Any] = {
    "imported": IMPORTED,
    "devices": NO_GPU,
    "network": "ResNet-14",
    "float32": 400.0,
    "bfloat16": 600.0,
}
GOOD = trial.Trial(FACTS)


def script(folder, body):
    """Returns the path of a program in place of Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def examine(capsys, *flags):
    """Returns the exit code and the output of the program."""
    capsys.readouterr()
    code = run.main(["run.py", "--mode=doctor", *flags])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, captured.out


@pytest.fixture
def usual(monkeypatch):
    """A machine and packages that are as they should be."""
    monkeypatch.setattr(doctor, "_check_machine", lambda config: [finding.ok("load", "0.0")])
    monkeypatch.setattr(packages, "check", lambda *_: [finding.ok("TensorFlow", "2.15.1")])
    monkeypatch.setattr(gpus, "find", lambda: gpus.Hardware([], []))
    monkeypatch.setattr(trial, "run", lambda seconds, python: GOOD)


def test_what_the_process_writes_is_read_and_what_others_print_is_not():
    output = b'A package says hello.\n{"imported": {"version": "2.15.1"}}\n{"network": "small"}\n'
    read = trial.read(output, b"a log\xff", None)
    assert read.facts == {"imported": {"version": "2.15.1"}, "network": "small"}
    assert (read.log, read.failure) == ("a log\N{REPLACEMENT CHARACTER}", None)


@pytest.mark.parametrize(
    ("body", "timeout", "failure", "remedy"),
    [
        ("kill -ILL $$", 20, "it was ended by SIGILL", "instructions"),
        ("kill -KILL $$", 20, "it was ended by SIGKILL", "memory"),
        ("exit 3", 20, "it ended with exit code 3", "virtual environment"),
        ("exec sleep 20", 0.2, "it did not end within 0 s", "network disk"),
        (
            """echo '{"error": "ImportError: numpy failed"}'; exit 1""",
            20,
            "ImportError: numpy failed",
            "virtual environment",
        ),
    ],
)
def test_a_tensorflow_that_cannot_be_imported_is_a_problem(
    tmp_path, body, timeout, failure, remedy
):
    tried = trial.run(5.0, python=script(tmp_path, body), timeout=timeout)
    found = trial.check_import(tried)
    assert (found.state, found.value) == ("problem", failure)
    assert remedy in found.remedy
    assert trial.check_speed(tried) is None
    assert trial.seen_gpus(tried) is None


def test_the_process_runs_the_probe_with_a_detailed_log(tmp_path):
    body = """printf '{"arguments": "%s", "log": "%s"}' "$*" "$TF_CPP_VMODULE"; echo a log >&2"""
    tried = trial.run(2.5, python=script(tmp_path, body))
    assert tried.facts == {"arguments": "-m simclr_tf.doctor.probe 2.5", "log": "dso_loader=1"}
    assert (tried.log, tried.failure) == ("a log\n", None)


def test_an_import_is_timed():
    assert trial.check_import(GOOD) == finding.ok("import of TensorFlow", "6 s")


@pytest.mark.parametrize(
    ("bfloat16", "advice"),
    [(600.0, "is 1.5 times as fast here"), (400.0, "is not faster here")],
)
def test_both_speeds_are_shown_and_which_is_faster(bfloat16, advice):
    found = trial.check_speed(trial.Trial({**FACTS, "bfloat16": bfloat16}))
    assert found == finding.ok(
        "training step",
        f"ResNet-14: 400 images/s in float32, {bfloat16:.0f} images/s in bfloat16; "
        f"--mixed_precision=bfloat16 {advice}",
    )


def test_bfloat16_is_not_measured_where_it_is_emulated(monkeypatch, capsys):
    monkeypatch.setattr(machine, "instructions", lambda: frozenset({"avx2"}))
    monkeypatch.setattr(
        speed,
        "images_per_second",
        lambda network, strategy, precisions, _: [400.0] * len(precisions),
    )
    assert probe.main(["0"]) == 0
    found = trial.check_speed(trial.read(capsys.readouterr().out.encode(), b"", None))
    assert found == finding.ok(
        "training step",
        "ResNet-14, 28 px, batch 128, on 1 replica: 400 images/s in float32; bfloat16 would be "
        "emulated, because this processor has no instructions for bfloat16",
    )


@pytest.mark.parametrize(
    ("missing", "error", "ended", "value", "remedy"),
    [
        (
            ["float32", "bfloat16"],
            "InternalError: cuDNN",
            None,
            "ResNet-14 failed: InternalError: cuDNN",
            "report",
        ),
        (
            ["float32", "bfloat16"],
            None,
            "it was ended by SIGKILL",
            "ended by SIGKILL",
            "Memory ran",
        ),
        (["float32", "bfloat16"], "ResourceExhausted: OOM", None, "OOM", "Memory ran"),
        (
            ["devices", "network", "float32", "bfloat16"],
            "InternalError: no device",
            None,
            "a small network failed: InternalError: no device",
            "report",
        ),
    ],
)
def test_a_step_that_fails_is_a_problem(missing, error, ended, value, remedy):
    facts = {key: fact for key, fact in FACTS.items() if key not in missing}
    found = trial.check_speed(trial.Trial(facts | ({"error": error} if error else {}), "", ended))
    assert found is not None
    assert found.state == "problem"
    assert value in found.value
    assert remedy in found.remedy


def test_what_tensorflow_says_of_gpus_is_read():
    devices = {"names": ["CPU", "GPU: NVIDIA L4", "GPU"], "free": 5}
    seen = trial.seen_gpus(trial.Trial({**FACTS, "devices": devices}, "a log"))
    assert seen is not None
    assert seen.devices == ["NVIDIA L4", "GPU"]
    assert (seen.cuda_build, seen.version, seen.log, seen.free) == (True, "2.15.1", "a log", 5)
    assert "not installed" in seen.unmet["nvidia-cudnn-cu12"]


@pytest.mark.exhaustive
def test_the_program_trains_measures_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speed, "ON_CPU", speed.Network(8, 8, 2))
    monkeypatch.setattr(processor, "load", lambda average, of: finding.ok("load", "0.0"))
    monkeypatch.setattr(machine, "instructions", lambda: frozenset({"avx2", "avx512_bf16"}))

    def run_here(command, **settings):
        """Runs the probe in this process."""
        written = io.StringIO()
        with contextlib.redirect_stdout(written):
            code = probe.main(command[3:])
        return types.SimpleNamespace(
            returncode=code, stdout=written.getvalue().encode(), stderr=b""
        )

    expired = subprocess.TimeoutExpired
    monkeypatch.setattr(
        trial, "subprocess", types.SimpleNamespace(run=run_here, TimeoutExpired=expired)
    )
    settings = config_lib.Config(mode="doctor", model_dir=str(tmp_path / "run"))
    assert doctor.examine(settings, seconds=0.0)
    printed = capsys.readouterr().out
    # The column before is as wide as "warning" only if there is one.
    assert f" │ TensorFlow           │ {tf.__version__} " in printed
    assert "ResNet-8, 8 px, batch 2, on 1 replica: " in printed
    assert printed.count(" images/s in ") == 2
    assert f"run directory        │ {tmp_path}/run, does not exist yet" in printed
    assert "0 problems," in printed
    assert "\x1b" not in printed  # No colours where the output is not a terminal.
    assert list(tmp_path.iterdir()) == []


def test_the_exit_code_is_0_without_problems_also_with_warnings(usual, monkeypatch, capsys):
    code, printed = examine(capsys)
    assert (code, printed.splitlines()[-1]) == (0, "0 problems, 0 warnings.")
    slow = finding.Finding("load", "warning", "9", "Wait.")
    monkeypatch.setattr(doctor, "_check_machine", lambda config: [slow])
    code, printed = examine(capsys)
    assert (code, printed.splitlines()[-2:]) == (
        0,
        ["warning: load: Wait.", "0 problems, 1 warning."],
    )


def test_the_exit_code_is_1_with_a_problem(usual, monkeypatch, capsys):
    monkeypatch.setattr(gpus, "find", lambda: gpus.Hardware(["/dev/nvidia0"], []))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    code, printed = examine(capsys)
    assert code == 1
    assert "│ problem │ GPU " in printed
    assert printed.splitlines()[-2:] == [
        "problem: GPU: Run: unset CUDA_VISIBLE_DEVICES",
        "1 problem, 0 warnings.",
    ]


def test_a_step_that_fails_ends_the_program_with_1(usual, monkeypatch, capsys):
    failed = trial.Trial({"imported": IMPORTED, "error": "InternalError: cuDNN"})
    monkeypatch.setattr(trial, "run", lambda seconds, python: failed)
    code, printed = examine(capsys)
    assert code == 1
    assert "problem: training step: " in printed


def test_the_data_folder_is_not_that_of_an_image_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trial, "run", lambda seconds, python: GOOD)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    _, printed = examine(capsys, "--dataset=cifar10", f"--data_dir={tmp_path}/given")
    assert f"{tmp_path}/given" in printed
    _, printed = examine(capsys, "--dataset=image_folder", f"--data_dir={tmp_path}/given")
    assert f"{tmp_path}/tfds" in printed
    assert f"{tmp_path}/given" not in printed


# Lets a process find no package with TensorFlow, nor its module.
_WITHOUT_TENSORFLOW = """
import importlib.metadata, sys
version = importlib.metadata.version
def without(name):
    if name in ("tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tf-nightly"):
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = without
sys.modules["tensorflow"], sys.executable = None, "false"
import run
sys.exit(run.main(sys.argv))
"""


def _without_tensorflow(*flags):
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT_TENSORFLOW, *flags],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_it_works_where_tensorflow_is_not_installed(tmp_path):
    process = _without_tensorflow("--mode=doctor", f"--model_dir={tmp_path}")
    assert (process.returncode, process.stderr) == (1, "")
    assert "│ problem │ TensorFlow           │ not installed, " in process.stdout
    assert 'problem: TensorFlow: Run: pip install "tensorflow' in process.stdout
    assert "│ problem │ import of TensorFlow │ it ended with exit code 1" in process.stdout
    assert "│ ok      │ memory " in process.stdout


@pytest.mark.parametrize("flags", [["--mode=show_views"], ["--mode=train", "--model_dir=run"]])
def test_other_modes_name_it_if_tensorflow_cannot_be_imported(flags, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert run.main(["run.py", *flags]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: TensorFlow cannot be imported (ModuleNotFoundError: ")
    assert "run python run.py --mode=doctor" in message


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.delattr("simclr_tf.commands.doctor")
    monkeypatch.setitem(sys.modules, "simclr_tf.commands.doctor", None)
    assert run.main(["run.py", "--mode=doctor"]) == 2
    assert "is not installed; run pip install -r requirements.txt" in capsys.readouterr().err


def strategy(capsys, **settings):
    """Returns what the program prints when it chooses devices."""
    capsys.readouterr()
    run._strategy(config_lib.Config(**settings), tf)
    return capsys.readouterr().out


def test_training_on_the_cpu_beside_a_gpu_is_a_warning(monkeypatch, capsys):
    assert strategy(capsys) == ""
    monkeypatch.setattr(gpus, "device_files", lambda: ["/dev/nvidia0", "/dev/nvidia1"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert strategy(capsys) == (
        "warning: This machine has an NVIDIA GPU (/dev/nvidia0, /dev/nvidia1), but TensorFlow sees "
        "none and uses the CPU; python run.py --mode=doctor says why.\n"
    )
    assert strategy(capsys, num_virtual_cpus=2) == ""  # The user chose it.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert strategy(capsys) == ""
