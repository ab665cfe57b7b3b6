"""What needs no TensorFlow ends before that is imported, which takes seconds."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
_CODE = """
import sys, run
run.main(["run.py", *sys.argv[1:]])
print(sorted({"numpy", "tensorflow"} & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--learning_rat=1"], ["--mode=runs", "--under=."]]
)
def test_quick_commands_import_neither_tensorflow_nor_numpy(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
