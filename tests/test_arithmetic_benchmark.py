"""benchmarks/arithmetic.py measures in turns, and keeps what it has measured."""

import json
import sys
from typing import Any

import pytest

from benchmarks import arithmetic
from simclr_tf.runs import machine

STUDIES, RESNET_18 = arithmetic.SETTINGS[0], arithmetic.SETTINGS[2]


@pytest.fixture
def measured(monkeypatch):
    """Replaces the processes; a step takes 1, 2 or 4 seconds by its arithmetic."""
    order: list[Any] = []
    seconds = dict(zip(arithmetic._COLUMNS, (2.0, 1.0, 4.0)))

    class Process:
        def __init__(self, column, core):
            self.column = column

        def ask(self, setting):
            order.append((arithmetic.Setting(**json.loads(setting)), self.column))
            return f"{seconds[self.column]}\n"

        def kill(self):
            order.append("closed")

    monkeypatch.setattr(arithmetic, "_start", Process)
    monkeypatch.setattr(machine, "instructions", lambda: frozenset({"avx2"}))
    return order


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["arithmetic.py", "--rounds=2", "--core=0", *arguments])
    arithmetic.main()
    return capsys.readouterr().out.splitlines()


def test_steps_are_measured_in_turns_and_kept(measured, monkeypatch, capsys, tmp_path):
    arguments = (f"--results={tmp_path}/r.json", "--only=px, batch 256", "--json")
    printed = run(monkeypatch, capsys, *arguments)
    off, on, bfloat16 = arithmetic._COLUMNS
    # bfloat16 is emulated, so it is measured once.
    assert measured == [
        *((STUDIES, column) for column in (off, on, bfloat16, off, on)),
        *(3 * ["closed"]),
    ]
    row = f"| {STUDIES.name} | 2.00 s | 1.00 s | 4.00 s | 2.0 times as fast |"
    assert printed.count(row) == 2
    assert json.loads(printed[-1]) == {STUDIES.name: {off: 2.0, on: 1.0, bfloat16: 4.0}}
    # The next call measures only what is missing.
    measured.clear()
    printed = run(monkeypatch, capsys, arguments[0], "--only=px, batch 64")
    assert {one for one, _ in measured[:-3]} == {RESNET_18}
    assert f"| {RESNET_18.name} | 2.00 s | 1.00 s | - | 2.0 times as fast |" in printed
    assert row in printed


def test_bfloat16_is_measured_everywhere_where_it_is_fast(measured, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(machine, "instructions", lambda: frozenset({"avx512_bf16"}))
    run(monkeypatch, capsys, f"--results={tmp_path}/r.json", "--only=px, batch 64")
    bfloat16 = list(arithmetic._COLUMNS)[2]
    assert measured.count((RESNET_18, bfloat16)) == 2
