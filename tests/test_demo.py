"""A short demo, run as users run it: in its own process and without naming a data set."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_default_run_reduces_the_loss_and_prints_accuracies(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "run.py"),
            "--mode=train_then_eval",
            "--train_split=train[:256]",
            "--eval_split=test[:100]",
            "--train_batch_size=32",
            "--learning_rate=0.4",
            "--train_steps=20",
            "--warmup_epochs=0.5",
            f"--model_dir={tmp_path / 'run'}",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # With the optimizations of XLA that other tests leave out.
        env={**os.environ, "PYTHONPATH": "", "XLA_FLAGS": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("No --dataset: using the built-in handwritten digits")
    assert "with the recipe flags/recipes/digits.flags" in lines[0]
    assert any("top-1" in line for line in lines)
    assert "kept in memory decoded, at most 0.00 GiB of " in done.stdout
    assert "Traceback" not in done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["global_step"] == 20
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["train/contrast_loss"] for line in metrics]
    assert losses[-1] < losses[0]
