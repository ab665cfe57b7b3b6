"""ONNX files, written and run by packages in a virtual environment of their own.

Only users who want them need these packages; see `benchmarks/side_environment.py`.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

from benchmarks import side_environment
from simclr_tf.models import simclr
from simclr_tf.runs import weights as weights_lib

ROOT = pathlib.Path(__file__).parents[1]
# TensorFlow 2.15 does not import beside protobuf 5, NumPy 2 and the newest ml-dtypes.
PACKAGES = (
    ("tf2onnx==1.17.0", "onnxruntime==1.32.0", "onnx<1.19", "protobuf<5", "numpy<2")
    if tf.__version__.startswith("2.15.")
    else ("tf2onnx==1.17.0", "onnxruntime==1.32.0", "onnx==1.23.2")
)
pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]
# A program that has nothing of this project.
USE = """
import json, sys
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
names = [one.name for one in session.get_outputs()]
images = np.load(sys.argv[2])
found = session.run(names, {"images": images})
print(json.dumps({name: values.tolist() for name, values in zip(names, found)}))
"""


@pytest.fixture(scope="module")
def onnx():
    """The Python that has them."""
    try:
        return side_environment.python(PACKAGES, name="tf2onnx1.17.0", over=True)
    except side_environment.UnavailableError as error:
        pytest.skip(f"tf2onnx could not be installed ({error}).")


def test_onnx_runtime_gives_the_outputs_of_the_network(onnx, tmp_path_factory, tmp_path):
    finished = tiny_runs.pretrained(tmp_path_factory)
    model_dir = pathlib.Path(shutil.copytree(finished, tmp_path / "run"))
    done = subprocess.run(
        [onnx, str(ROOT / "run.py"), "--mode=export", f"--model_dir={model_dir}", "--format=onnx"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = model_dir / "onnx" / "4"
    assert "ONNX model in float32, on 18 images of test" in done.stdout
    assert json.loads((folder / "model.json").read_text())["conversion"]["cosine"] > 0.999999
    batch = np.random.default_rng(0).uniform(size=(5, 8, 8, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", batch)
    used = subprocess.run(
        [onnx, "-I", "-c", USE, str(folder / "model.onnx"), str(tmp_path / "images.npy")],
        capture_output=True,
        text=True,
        check=True,
    )
    got = json.loads(used.stdout.splitlines()[-1])
    weights = weights_lib.open_weights(str(model_dir))
    model = simclr.SimCLR(weights.architecture, seed=0)
    for part in weights_lib.PARTS:
        assert weights.load(model, part) is None
    want = model(batch)
    assert set(got) == {"features", "logits"}
    for name, values in got.items():
        np.testing.assert_allclose(values, want[name], rtol=1e-4, atol=1e-4)
