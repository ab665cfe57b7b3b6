"""The notebooks are those of their scripts, and run from the first to the last cell."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
from typing import Any
from urllib import request
import zipfile

import ipykernel_launcher
import jupytext
import nbclient
import nbformat
import pytest
import reference_r18
import tiny_runs

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
SMALL = (
    "--image_size=8 --resnet_depth=8 --width_multiplier=1 --proj_out_dim=8 --train_batch_size=8 "
    "--train_steps=2 --warmup_epochs=0 --eval_batch_size=18 --evaluations=none "
    "--nountrained_baselines --nouse_color_jitter --nouse_color_drop --nouse_blur"
)
# TensorBoard as it is, but with its own reader of files in place of TensorFlow, for the time.
TENSORBOARD = f"""#!{sys.executable}
import sys
import types

sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
from tensorboard import main

main.run_main()
"""


def test_there_are_two_notebooks():
    assert [path.stem for path in SCRIPTS] == ["coming_from_simclr", "simclr_colab"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_is_that_of_its_script_without_outputs(script):
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    assert _cells(notebook) == _cells(jupytext.read(script)), "run make notebooks"
    assert not any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_and_the_readme_open_it_in_colab_at_the_same_address(script):
    address = f"https://colab.research.google.com/github/OWNER/simclr-tf/blob/main/notebooks/{script.stem}.ipynb"
    assert f"({address})" in jupytext.read(script).cells[0].source
    assert f": {address}\n" in (ROOT / "README.md").read_text()


def test_the_notebook_installs_the_build_for_tpus_that_the_page_names():
    page = (ROOT / "docs" / "tpu.md").read_text()
    versions = '"tensorflow-tpu==2.20.*" "tf-keras==2.20.*" "libtpu==0.0.14"'
    assert versions in page
    assert versions.replace('" "', '", "') in (FOLDER / "simclr_colab.py").read_text()


def _cells(notebook: Any) -> list[tuple[str, str, list[str]]]:
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


@pytest.fixture
def execute(tmp_path, python, monkeypatch):
    """Runs a notebook with other parameters, and returns its outputs by their types.

    Its kernel, and the programs that it starts, are Python without the import of TensorFlow.
    """
    kernel = tmp_path / "jupyter" / "kernels" / "quick"
    kernel.mkdir(parents=True)
    argv = [python, ipykernel_launcher.__file__, "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "quick", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

    def run(name: str, **parameters: Any) -> dict[str, list[str]]:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        assert [key for key in parameters if f"\n{key} = " not in f"\n{cell.source}"] == []
        cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
        where = {"metadata": {"path": str(FOLDER)}}  # As if it was opened there.
        client = nbclient.NotebookClient(
            notebook, timeout=900, startup_timeout=300, kernel_name="quick", resources=where
        )
        client.execute()
        return _outputs(notebook)

    return run


def _outputs(notebook: Any) -> dict[str, list[str]]:
    """Returns what cells printed and displayed, by the type of content; "text" was printed."""
    found: dict[str, list[str]] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            printed = {"text": output["text"]} if output["output_type"] == "stream" else {}
            for kind, content in {**printed, **output.get("data", {})}.items():
                found.setdefault(kind, []).append(content)
    return found


@pytest.fixture
def tensorboard(tmp_path, monkeypatch):
    """A function that lists what servers of TensorBoard of this test say of themselves.

    They are ended. Where they say it cannot be chosen: a kernel knows its temporary folder already.
    """
    binary = tmp_path / "tensorboard"
    binary.write_text(TENSORBOARD)
    binary.chmod(0o755)
    monkeypatch.setenv("TENSORBOARD_BINARY", str(binary))
    monkeypatch.setenv("PYTHONPATH", "")

    def servers() -> list[dict[str, Any]]:
        folder = pathlib.Path(tempfile.gettempdir()) / ".tensorboard-info"
        found = [json.loads(path.read_text()) for path in folder.glob("pid-*.info")]
        return [info for info in found if str(tmp_path) in info["logdir"]]

    yield servers
    for info in servers():
        os.kill(info["pid"], signal.SIGTERM)


@pytest.fixture
def own_images(tmp_path, photos):
    """A folder with 36 images to train on, and the same to evaluate on: enough for a map."""
    for split in ("train", "test"):
        shutil.copytree(photos / "train", tmp_path / "images" / split)
    return tmp_path / "images"


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_notebook_pretrains_evaluates_draws_and_exports(
    execute, tmp_path, own_images, tensorboard
):
    run = tmp_path / "run"
    outputs = execute(
        "simclr_colab", RUNTIME="cpu", DATA=str(own_images), MODEL_DIR=str(run), MORE_FLAGS=SMALL
    )
    printed = "".join(outputs["text"])
    assert "Runtime: cpu" in printed
    assert "Preset 500_cpu, for 36 training images" in printed
    assert "linear evaluation of the encoder" in printed
    assert "features: (2, 64)" in printed
    assert len(outputs["image/png"]) == 3  # Operations, curves and views.
    assert len(outputs["image/svg+xml"]) == 1  # The map.
    with zipfile.ZipFile(run / "saved_model.zip") as archive:
        assert "saved_model/2/saved_model.pb" in archive.namelist()
    # What %tensorboard showed is a server, which has the curves of the run.
    assert any("<iframe" in html for html in outputs["text/html"])
    (info,) = tensorboard()
    with request.urlopen(f"http://localhost:{info['port']}/data/plugin/scalars/tags") as answer:
        (tags,) = json.load(answer).values()
    assert "train/contrast_loss" in tags


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_notebook_evaluates_tunes_and_exports_a_model_of_the_reference(
    execute, tmp_path, tmp_path_factory, photos
):
    outputs = execute(
        "coming_from_simclr",
        CHECKPOINT=str(reference_r18.folder(tmp_path_factory) / "saved_model"),
        DATA=f"--dataset=image_folder --data_dir={photos} --evaluations=none --eval_batch_size=18",
        IMAGE_SIZE=16,
        TUNING="--train_batch_size=8 --train_steps=2",
        RUNS=str(tmp_path / "runs"),
    )
    printed = "".join(outputs["text"])
    assert "'final_avg_pool'" in printed and "'logits_sup'" in printed
    assert "largest difference of a feature:" in printed
    for name in ("evaluated", "tuned"):
        assert f"\n{name}: " in printed
    (names,) = (text for text in outputs["text"] if text.split()[-1] in tiny_runs.CLASSES)
    assert len(names.split()) == 4 and set(names.split()) <= set(tiny_runs.CLASSES)
