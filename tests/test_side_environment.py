"""Virtual environments for packages that do not fit beside those of this project."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import absl
import pytest

from benchmarks import side_environment

# Every environment has it, so that nothing is downloaded.
PACKAGES = ["pip"]


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """A folder that stands for the environment of this Python."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "venv"


def test_one_over_this_python_has_its_packages_and_lies_in_it(prefix):
    first = side_environment.python(PACKAGES, name="over", over=True)
    # It is not among what the environments of other checkouts share, which outlive this one.
    assert prefix in pathlib.Path(first).parents
    code = "import absl; print(absl.__file__)"
    found = subprocess.run([first, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert pathlib.Path(found.stdout.strip()).samefile(absl.__file__)
    assert side_environment.python(PACKAGES, name="over", over=True) == first


def test_one_of_its_own_does_not_have_them_and_is_kept_in_the_cache(prefix, tmp_path):
    own = side_environment.python(PACKAGES, name="own")
    assert tmp_path / "cache" in pathlib.Path(own).parents
    found = subprocess.run(
        [own, "-I", "-c", "import absl"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert "No module named 'absl'" in found.stderr
