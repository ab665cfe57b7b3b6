"""The shell commands of the README and of the tutorials are run, in a small form.

They run in a folder of their own, as a user would copy them from top to bottom. What differs from
the pages is in the tables below, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import json
import pathlib
import re
import runpy
from typing import Any

import page_commands
import pytest
import reference_forms
import serving_server
import tensorflow as tf
import test_channels_program
import tiny_runs
import tiny_several

from simclr_tf.runs import directory

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
# In this order, because pages use the runs of earlier ones.
PAGES = {
    path.name: path
    for path in (
        ROOT / "README.md",
        *(
            DOCS / f"{name}.md"
            for name in (
                *("your_images", "channels", "several_labels", "imagenet", "serving"),
                *("cluster", "tpu"),
            )
        ),
    )
}

# Commands with one of these train, and have the sizes below added.
TRAINING = ("--mode=train", "--mode=finetune", "--flagfile=")
SIZES = {
    "--image_size": 8,
    "--resnet_depth": 8,
    "--width_multiplier": 1,
    "--proj_out_dim": 8,
    "--train_batch_size": 8,
    "--train_steps": 2,
    "--warmup_epochs": 0,
    "--eval_batch_size": 16,
    "--evaluations": "none",
    "--untrained_baselines": False,
    "--use_color_jitter": False,
    "--use_color_drop": False,
    "--use_blur": False,
}
# Arguments that are replaced: places that exist on other machines only, and sizes of the pages.
OWN_IMAGES = ["--dataset=image_folder", "--data_dir=PATH"]
REPLACED = {
    "...": OWN_IMAGES,
    "--data_dir=/data/tfds": OWN_IMAGES,
    "--data_dir=gs://BUCKET/tfds": OWN_IMAGES,
    "--model_dir=gs://BUCKET/runs/first": ["--model_dir=runs/tpu"],
    "--train_steps=20": ["--train_steps=1"],  # The trial.
    "--train_steps=2500": ["--train_steps=3"],  # Longer than the run that it continues.
    "--train_batch_size=512": ["--train_batch_size=12"],
    "--jobs=2": ["--dry_run"],
    "--study=my_study.toml": ["--study=my_study.toml", "--dry_run"],
}
# Text of the shell that is replaced.
SHELL = {
    "PHOTOS=~/photos": "PHOTOS=PATH",
    "SCENES=~/scenes": "SCENES=scenes",
    "CELLS=~/cells": "CELLS=cells",
    "SCANS=~/scans": "SCANS=scans",
}
# Commands of which only the flags are checked, by a part of them, and why they do not run here.
CHECKED = {
    "--use_tpu": "there is no TPU; test_tpu_strategy.py and test_tpu_compile.py do without",
    "simclr_tf.launch": "test_two_workers.py trains with workers",
    "--model_dir=/shared/": "other machines; TF_CONFIG is checked, too",
    "--dataset=tfrecord:": "test_tfrecords.py reads such files",
    "--checkpoint=WEIGHTS --model_dir=runs/adapted": "test_reference_files.py starts from weights",
    "--mode=doctor": "test_doctor_program.py runs it",
    "--mode=transfer": "its data sets would be downloaded; test_transfer.py runs it",
}
# Programs that are not run at all, what they print instead, and what must be true of the arguments.
NOT_RUN: dict[str, tuple[str, Callable[[list[str], pathlib.Path], bool]]] = {
    "make": ("", lambda given, _: f"\n{given[0]}: " in (ROOT / "Makefile").read_text()),
    "tfds": ("", lambda given, _: given[0] == "build" and "--manual_dir=/data/archives" in given),
    "python3.12": ("", lambda given, _: given == ["-m", "venv", ".venv"]),
    ".venv/bin/pip": ("", lambda given, _: given[0] in ("install", "uninstall")),
    "docker": ("", lambda given, folder: _is_served(given[-2].split(":")[0], folder)),
    "tensorflow_model_server": (
        "",
        lambda given, folder: _is_served(given[-1].removeprefix("--model_base_path="), folder),
    ),
    "scontrol": (
        "host1\nhost2",
        lambda given, _: given == ["show", "hostnames", "host[1-2]"],
    ),
}
# As in a job of SLURM.
ENVIRONMENT = {"SLURM_JOB_NODELIST": "host[1-2]", "SLURM_PROCID": "1"}


def _is_served(path: str, folder: pathlib.Path) -> bool:
    """Returns whether TensorFlow Serving finds an export in a folder."""
    return bool(list((folder / path).glob("[0-9]*/saved_model.pb")))


class Workspace:
    """A folder with what the commands of the pages need, and the pages that were run in it."""

    def __init__(self, folder: pathlib.Path, python: str) -> None:
        self.folder = folder
        self._ran: set[str] = set()
        (folder / "log").touch()
        rules = {"sizes": SIZES, "training": TRAINING, "replaced": REPLACED, "checked": [*CHECKED]}
        (folder / "rules.json").write_text(json.dumps(rules))
        self._write_program("bin/python", f'exec {python} {ROOT}/tests/page_python.py "$@"')
        self._write_program("bin/srun", 'exec "$@"')
        for name, (printed, _) in NOT_RUN.items():
            path = name if "/" in name else f"bin/{name}"
            note = f"printf '%s\\n' \"$(printf '%s\\t' {name} \"$@\")\" >> {folder}/not_run"
            self._write_program(path, f"{note}\nprintf '%s\\n' '{printed}'")

    def _write_program(self, path: str, script: str) -> None:
        program = self.folder / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def run(self, page: str, server: dict[str, str] | None = None) -> str:
        """Runs the commands of a page, the first time, and returns what they print.

        Args:
            page: its name.
            server: the addresses of a server, by those on the page.
        """
        if page in self._ran:
            return ""
        script = "\n".join(page_commands.blocks(PAGES[page], "sh"))
        script = page_commands.replaced(script, {**SHELL, **(server or {})})
        own = {"PAGE_RULES": f"{self.folder}/rules.json", "PAGE_LOG": f"{self.folder}/log"}
        environment = {**ENVIRONMENT, **own, "PYTHONPATH": str(ROOT)}
        printed = page_commands.run(script, self.folder, environment)
        self._ran.add(page)
        return printed

    def not_run(self) -> list[list[str]]:
        """Returns the commands that were not run: name and arguments of each."""
        lines = (self.folder / "not_run").read_text().splitlines()
        return [line.split("\t")[:-1] for line in lines]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, python: str) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("tutorials")
    (folder / "PATH").symlink_to(tiny_runs.photos(tmp_path_factory))
    (folder / "animals").symlink_to(tiny_several.folder(tmp_path_factory))
    small_model = reference_forms.random_model(reference_forms.architecture())
    reference_forms.write_saved_model(small_model, folder / "WEIGHTS")
    (folder / "runs").mkdir()
    (folder / "runs" / "demo").symlink_to("mine")  # `make demo` does not run.
    test_channels_program.write_for_pages(folder)
    image = tf.io.encode_jpeg(
        tf.cast(tf.random.stateless_uniform([30, 40, 3], [1, 2]) * 255, "uint8")
    )
    for name in ("photo.jpg", "a.jpg", "b.jpg"):
        (folder / name).write_bytes(image.numpy())
    (study,) = re.findall(r"```toml\n(.*?)```", (DOCS / "studies.md").read_text(), re.DOTALL)
    (folder / "my_study.toml").write_text(study)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    yield Workspace(folder, python)


def test_the_commands_of_the_readme_run(workspace):
    printed = workspace.run("README.md")
    assert "linear evaluation of the encoder" in printed
    files = {path.name for path in (workspace.folder / "runs" / "mine").iterdir()}
    assert {"report.html", "result.json", "saved_model", "views.png"} <= files
    assert (workspace.folder / "emb/search/neighbours.png").exists()


def test_the_commands_for_your_own_images_run_one_after_another(workspace):
    workspace.run("README.md")
    printed = workspace.run("your_images.md")
    runs = workspace.folder / "runs"
    assert (runs / "views" / "operations.png").exists()
    assert tiny_runs.json_of(runs / "trial" / "result.json")["global_step"] == 1
    assert tiny_runs.json_of(runs / "mine" / "result.json")["global_step"] == 3  # Continued.
    assert "train_steps" in (runs / "mine" / "flags_history.jsonl").read_text()
    assert "Preset 500_cpu, for 36 training images" in printed


def test_the_commands_for_other_channels_and_depths_run(workspace):
    workspace.run("channels.md")
    runs = workspace.folder / "runs"
    found = {
        name: directory.read_architecture(str(runs / name)).pixels
        for name in ("scenes", "four", "cells", "scans")
    }
    assert {name: pixels.channels for name, pixels in found.items()} == {
        "scenes": 13,
        "four": 4,
        "cells": 13,
        "scans": 1,
    }
    assert found["four"].names == ("B2", "B3", "B4", "B8")
    assert (runs / "bands" / "operations.png").exists()


def test_the_commands_for_several_labels_run(workspace):
    printed = workspace.run("several_labels.md")
    assert "mean average precision" in printed and "Not measured, because" in printed
    runs = workspace.folder / "runs"
    for name in ("animals", "animals_tuned", "supcon", "balanced"):
        assert "eval/left_out" in tiny_runs.json_of(runs / name / "result.json")
    (described,) = (workspace.folder / "animals_model").glob(
        "saved_model/*/assets.extra/model.json"
    )
    outputs = tiny_runs.json_of(described)["outputs"]
    assert "sigmoid" in outputs["probabilities"] and "valid" in outputs


def test_the_commands_for_imagenet_train_with_the_settings_of_the_recipes(workspace):
    workspace.run("imagenet.md")
    settings = {
        name: (workspace.folder / "runs" / name / "flags.txt").read_text()
        for name in ("imagenet", "imagenet_512", "imagenet_linear", "imagenet_1pct")
    }
    assert "--num_proj_layers=3" in settings["imagenet"]
    assert "--learning_rate_scaling=sqrt" in settings["imagenet_512"]
    assert "--fine_tune_after_block=4" in settings["imagenet_linear"]
    assert "--ft_proj_selector=1" in settings["imagenet_1pct"]


@pytest.mark.parametrize("page", ["cluster.md", "tpu.md"])
def test_the_commands_for_more_hardware_have_valid_flags(workspace, page):
    workspace.run(page)


def test_requests_to_a_server_have_the_form_that_the_saved_model_takes(
    workspace, python, monkeypatch, capsys
):
    workspace.run("README.md")
    exports = workspace.folder / "runs" / "mine" / "saved_model"
    with serving_server.start(python, exports) as addresses:
        server = {"localhost:8501": addresses.rest, "localhost:8500": addresses.grpc}
        printed = workspace.run("serving.md", server)
        client, in_process = page_commands.blocks(PAGES["serving.md"], "python")
        monkeypatch.chdir(workspace.folder)
        run_python(client, workspace, server)
    assert '"serving_bytes"' in printed
    answer = printed[printed.rindex('{\n "predictions"') :]
    (row,) = json.JSONDecoder().raw_decode(answer)[0]["predictions"]
    assert row.pop("valid") is True
    assert {name: len(values) for name, values in row.items()} == {"features": 64, "logits": 3}
    assert printed.count("features 54 x 64") == 2  # By gRPC and by REST.
    assert capsys.readouterr().out == "1 image, 64 features\n"
    features = run_python(in_process, workspace, {})["features"]
    assert features.numpy()[0] == pytest.approx(row["features"], abs=1e-4)


def run_python(block: str, workspace: Workspace, replacements: dict[str, str]) -> dict[str, Any]:
    """Runs the Python of a page and returns its variables."""
    path = workspace.folder / "block.py"
    path.write_text(page_commands.replaced(block, replacements))
    return runpy.run_path(str(path))


@pytest.mark.parametrize("page", ["README.md", "your_images.md", "channels.md"])
def test_the_python_of_the_pages_runs(workspace, page, monkeypatch):
    workspace.run("README.md")
    if page == "channels.md":
        workspace.run(page)
    monkeypatch.chdir(workspace.folder)
    (step,) = (path.name for path in (workspace.folder / "runs/mine/saved_model").iterdir())
    for block in page_commands.blocks(PAGES[page], "python"):
        found = run_python(block, workspace, {"610": step})
        assert found["features"].shape[1] == 64


def test_every_row_of_the_tables_is_used_and_programs_that_do_not_run_have_valid_arguments(
    workspace,
):
    for page in PAGES:
        workspace.run(page)
    log = [json.loads(line) for line in (workspace.folder / "log").read_text().splitlines()]
    text = "\n".join(line["line"] for line in log).replace("'", "")
    assert {row for line in log for row in line["checked"]} == CHECKED.keys()
    assert [row for row in REPLACED if row not in text] == []
    shell = "".join(path.read_text() for path in PAGES.values())
    assert [row for row in SHELL if row not in shell] == []
    not_run = workspace.not_run()
    assert {name for name, *_ in not_run} == NOT_RUN.keys()
    for name, *given in not_run:
        assert NOT_RUN[name][1](given, workspace.folder), (name, given)


def test_pages_name_only_files_that_exist():
    for page in PAGES.values():
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
            assert (page.parent / target).exists(), (page.name, target)
