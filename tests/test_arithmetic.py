"""What --mixed_precision=auto means on each kind of device, which are made up here."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf import config as config_lib
from simclr_tf import distribute
from simclr_tf.commands import embedded
from simclr_tf.embeddings import manifest
from simclr_tf.runs import arithmetic, environment, machine

AVX2, AVX512_BF16 = frozenset({"sse2", "avx2"}), frozenset({"sse2", "avx2", "avx512_bf16"})


@pytest.fixture
def cpu():
    return tf.distribute.OneDeviceStrategy("/cpu:0")


@pytest.fixture
def sets(monkeypatch):
    """Sets the instructions of this processor, with oneDNN as run.py has it."""
    monkeypatch.delenv(machine.ONEDNN, raising=False)

    def use(names):
        monkeypatch.setattr(machine, "instructions", lambda: frozenset(names))

    return use


@pytest.fixture
def gpus(monkeypatch):
    """Makes GPUs of a list of compute capabilities, and returns the strategy for them."""

    def use(*capabilities) -> Any:
        details = [
            {"device_name": "a GPU", **({} if one is None else {"compute_capability": one})}
            for one in capabilities
        ]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: range(len(details)))
        monkeypatch.setattr(tf.config.experimental, "get_device_details", details.__getitem__)
        names = [f"/job:localhost/replica:0/task:0/device:GPU:{i}" for i in range(len(details))]
        return SimpleNamespace(extended=SimpleNamespace(worker_devices=tuple(names)))

    return use


@pytest.mark.parametrize(
    ("names", "onednn", "fast", "why"),
    [
        ("sse2 avx2 avx512_bf16", None, True, "this processor has AVX512-BF16"),
        ("sse2 avx512_bf16 amx_bf16", "1", True, "this processor has AVX512-BF16 and AMX"),
        ("asimd bf16", None, True, "this processor has BF16"),
        ("sse2 avx2 avx512f", None, False, "this processor has no instructions for bfloat16"),
        ("", None, None, "the instructions of this processor are unknown"),
        ("avx512_bf16", "0", False, "TF_ENABLE_ONEDNN_OPTS=0 switches oneDNN off"),
        ("avx512_bf16", "False", False, "TF_ENABLE_ONEDNN_OPTS=False switches oneDNN off"),
    ],
)
def test_a_processor_multiplies_in_bfloat16_by_its_instructions(names, onednn, fast, why):
    variables = {} if onednn is None else {machine.ONEDNN: onednn}
    assert machine.bfloat16_of_processor(set(names.split()), variables) == (fast, why)


@pytest.mark.parametrize(
    ("capabilities", "meant", "why"),
    [
        ([(8, 0)], "bfloat16", "compute capability 8.0"),
        ([(9, 0), (8, 6)], "bfloat16", "compute capability 8.6"),
        ([(7, 5)], "none", "a GPU has compute capability 7.5, below 8.0"),
        ([(8, 0), (7, 0)], "none", "a GPU has compute capability 7.0, below 8.0"),
        ([(8, 0), None], "none", "what a GPU multiplies in is unknown"),
    ],
)
def test_all_gpus_must_multiply_in_bfloat16(gpus, sets, capabilities, meant, why):
    sets(AVX512_BF16)  # The processor does not matter.
    chosen = arithmetic.choose("auto", gpus(*capabilities))
    assert chosen == arithmetic.Arithmetic(meant, why)


def test_a_processor_decides_where_it_trains_although_there_are_gpus(gpus, sets, cpu):
    strategies = (cpu, distribute.virtual_cpu_strategy(2))
    gpus((8, 0))
    for strategy in strategies:
        sets(AVX2)
        assert arithmetic.choose("auto", strategy).mixed_precision == "none"
        sets(AVX512_BF16)
        assert arithmetic.choose("auto", strategy).mixed_precision == "bfloat16"


def test_tpus_multiply_in_bfloat16(monkeypatch):
    monkeypatch.setattr(tf.distribute, "TPUStrategy", SimpleNamespace)
    chosen = arithmetic.choose("auto", SimpleNamespace())
    assert str(chosen) == "mixed bfloat16 (auto: TPUs multiply in it)"


def test_what_is_given_is_used_as_it_is(sets, cpu):
    sets(AVX2)
    for given, shown in (("none", "float32"), ("bfloat16", "mixed bfloat16")):
        chosen = arithmetic.choose(given, cpu)
        assert (chosen.mixed_precision, str(chosen)) == (given, shown)


@pytest.mark.parametrize(
    ("given", "names", "warns"),
    [
        ("bfloat16", AVX2, True),
        ("bfloat16", AVX512_BF16, False),
        ("bfloat16", "", False),  # Not Linux, so it is unknown.
        ("auto", AVX2, False),
        ("none", AVX2, False),
    ],
)
def test_bfloat16_that_is_emulated_is_a_warning_with_the_remedy(
    sets, cpu, capsys, given, names, warns
):
    sets(names)
    arithmetic.warn_if_emulated(given, cpu)
    want = (
        "warning: --mixed_precision=bfloat16 is emulated here and many times slower than float32, "
        "because this processor has no instructions for bfloat16; use --mixed_precision=auto or "
        "none.\n"
    )
    assert capsys.readouterr().out == (want if warns else "")


@pytest.mark.usefixtures("no_export")
def test_a_run_of_auto_resumes_in_the_arithmetic_of_another_machine(
    pretrained, photos, sets, capsys
):
    def resume(**changes):
        capsys.readouterr()
        settings = {**tiny_runs.NO_COLOR, "mixed_precision": "auto", **changes}
        assert tiny_runs.main("pretrain", pretrained, photos, **settings) == 0
        return capsys.readouterr().out

    assert tiny_runs.json_of(pretrained / "environment.json")["mixed_precision"] == "none"
    flags = (pretrained / "flags.txt").read_text()
    started_with_auto = flags.replace("--mixed_precision=none", "--mixed_precision=auto")
    assert started_with_auto != flags
    (pretrained / "flags.txt").write_text(started_with_auto)
    (pretrained / "ckpt-4.index").write_bytes(b"")  # Step 2 is resumed.
    sets(AVX512_BF16)
    printed = resume()
    assert "mixed bfloat16 (auto: this processor has AVX512-BF16), OneDevice" in printed
    history = pretrained / "flags_history.jsonl"
    assert (
        "Resuming at step 2 with changes (what --mixed_precision=auto is: float32 stored, "
        f"bfloat16 given), which are recorded in {history}."
    ) in printed
    (entry,) = tiny_runs.lines_of(history)
    assert entry["step"] == 2
    assert entry["changes"] == {
        "what --mixed_precision=auto is": {"stored": "float32", "given": "bfloat16"}
    }
    assert "--mixed_precision=auto\n" in (pretrained / "flags.txt").read_text()
    described = tiny_runs.json_of(pretrained / "environment.json")
    assert described["mixed_precision"] == "bfloat16"
    assert described["mixed_precision_reason"] == "auto: this processor has AVX512-BF16"
    # Once it is finished, it stays what it was trained in.
    sets(AVX2)
    assert "nothing to train" in (printed := resume())
    assert "float32 (auto: this processor has no instructions for bfloat16)" in printed
    assert len(tiny_runs.lines_of(history)) == 1
    assert tiny_runs.json_of(pretrained / "environment.json") == described


def test_another_setting_than_that_of_the_run_is_refused(pretrained, photos, capsys):
    settings = {**tiny_runs.NO_COLOR, "mixed_precision": "auto"}
    assert tiny_runs.main("pretrain", pretrained, photos, **settings) == 2
    message = capsys.readouterr().err
    assert "(--mixed_precision: none stored, auto given)" in message
    assert "or --resume_with_changes to train it further with these" in message


@pytest.mark.parametrize("content", [None, "{", "[]", json.dumps({"host": "a"})])
def test_the_arithmetic_of_an_older_or_damaged_run_is_unknown(tmp_path, content):
    if content is not None:
        (tmp_path / "environment.json").write_text(content)
    assert environment.arithmetic_of(str(tmp_path)) is None


def test_embeddings_keep_the_arithmetic_that_their_folder_was_begun_in(
    sets, cpu, monkeypatch, capsys
):
    def embeds_in(given):
        settings = config_lib.Config(embeddings="/e", mixed_precision=given)
        return embedded.with_arithmetic(settings, cpu).mixed_precision

    sets(AVX2)
    monkeypatch.setattr(manifest, "read", lambda folder: None)
    assert embeds_in("auto") == "none"
    begun: Any = SimpleNamespace(mixed_precision="bfloat16")
    monkeypatch.setattr(manifest, "read", lambda folder: begun)
    assert embeds_in("none") == "none"  # Which is then refused.
    assert capsys.readouterr().out == ""
    assert embeds_in("auto") == "bfloat16"
    assert capsys.readouterr().out == (
        "/e was begun in mixed bfloat16, which is kept; here: float32 (auto: this processor has no "
        "instructions for bfloat16).\n"
    )


@pytest.mark.parametrize("given", [None, "0"])
def test_the_program_switches_onednn_on_before_tensorflow_is_imported(given):
    variables = {name: value for name, value in os.environ.items() if name != machine.ONEDNN}
    if given is not None:
        variables[machine.ONEDNN] = given
    code = "import os, sys, run; print('tensorflow' in sys.modules, os.environ[sys.argv[1]])"
    done = subprocess.run(
        [sys.executable, "-c", code, machine.ONEDNN],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[1],
        env=variables,
        check=False,
    )
    assert done.stdout == f"False {given or 1}\n", done.stderr
