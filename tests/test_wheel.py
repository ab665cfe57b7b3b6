"""The wheel: its content, and the command that it installs."""

from __future__ import annotations

import email
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

from packaging import requirements
import pytest

import simclr_tf

pytestmark = pytest.mark.exhaustive

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE", "run.py")
PROGRAM = "simclr_tf/program"
INFO = f"simclr_tf-{simclr_tf.__version__}.dist-info"


def _run(*command, returncode=0, **settings):
    """Returns what a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
    assert done.returncode == returncode, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources, since a build leaves files beside them."""
    copy, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    for name in ("simclr_tf", "flags"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index")
    _run(*pip, f"--wheel-dir={built}", str(copy))
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A directory where the wheel is installed, and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet")
    _run(*pip, f"--target={target}", str(wheel))
    return target


def _command(installed, *arguments, **settings):
    """Returns what the installed command prints, where the checkout is not on the path."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return _run(str(installed / "bin" / "simclr-tf"), *arguments, env=environment, **settings)


def test_the_wheel_holds_every_module_template_recipe_and_study_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith(INFO)}
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "simclr_tf").rglob("*.py")}
    package |= {str(path.relative_to(ROOT)) for path in (ROOT / "simclr_tf").glob("*/templates/*")}
    flags = [*(ROOT / "flags").glob("*.py"), *(ROOT / "flags").glob("*/*.flags")]
    flags += (ROOT / "flags").glob("*/*.toml")
    program = {f"{PROGRAM}/{path.relative_to(ROOT)}" for path in (ROOT / "run.py", *flags)}
    assert names == package | program


def test_the_wheel_requires_what_requirements_txt_lists(wheel):
    metadata = email.message_from_bytes(zipfile.ZipFile(wheel).read(f"{INFO}/METADATA"))
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = {line.partition(" #")[0].partition("#")[0].strip() for line in lines} - {""}
    required = list(map(requirements.Requirement, metadata.get_all("Requires-Dist")))
    extras = {one.name for one in required if "extra ==" in str(one.marker)}
    of_all = {one for one in required if one.name not in extras}
    assert of_all == set(map(requirements.Requirement, listed))
    # The tests need what only some users do; those of Beam and of ONNX install it themselves.
    development = (ROOT / "requirements-dev.txt").read_text()
    assert {name for name in extras if f"\n{name}" not in development} == {
        *("apache-beam", "onnx", "onnxruntime", "tf2onnx")
    }
    assert metadata["Version"] == simclr_tf.__version__


def test_the_command_prints_the_help_in_any_directory(installed, tmp_path):
    expected = _run(sys.executable, str(ROOT / "run.py"), "--help", cwd=tmp_path)
    assert "--train_batch_size" in expected
    assert _command(installed, "--help", cwd=tmp_path) == expected


def test_the_command_reads_the_recipe_of_the_digits_in_any_directory(installed, tmp_path):
    flags = ("--mode=train", "--train_split=nothing", "--model_dir=run")  # Refused at once.
    printed = _command(installed, *flags, cwd=tmp_path, returncode=2)
    assert "flags/recipes/digits.flags" in printed


def test_a_checkout_runs_as_a_module(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    printed = _run(sys.executable, "-m", "simclr_tf", "--help", cwd=tmp_path, env=environment)
    assert "--train_batch_size" in printed
