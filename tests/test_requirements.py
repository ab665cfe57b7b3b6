"""The files that name packages and their versions agree."""

import pathlib
import re

from packaging import requirements, utils
import pytest

ROOT = pathlib.Path(__file__).parents[1]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))


def _required(name):
    """Yields the requirements in a file."""
    for line in (ROOT / name).read_text().splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if line:
            yield requirements.Requirement(line)


def _pins(lock):
    """Returns name -> version of every package in a lock file."""
    pins = re.findall(r"^(\S+)==(\S+) \\$", lock.read_text(), re.MULTILINE)
    return {utils.canonicalize_name(name): version for name, version in pins}


def test_each_stack_has_a_lock_file():
    assert [path.name for path in LOCKS] == [
        f"linux-x86_64-python{version}.txt" for version in ("3.11", "3.12", "3.13")
    ]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_file_pins_every_requirement(lock):
    python = lock.stem.partition("python")[2]
    pins = _pins(lock)
    wrong = []
    for required in (*_required("requirements.txt"), *_required("requirements-dev.txt")):
        if required.marker and not required.marker.evaluate({"python_version": python}):
            continue
        pin = pins.get(utils.canonicalize_name(required.name))
        if pin is None or not required.specifier.contains(pin, prereleases=True):
            wrong.append(f"{required}, but {pin} is pinned")
    assert wrong == [], "run `make lock`"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_file_has_a_hash_for_every_package_and_no_address(lock):
    text = lock.read_text()
    packages = re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []
    assert (
        re.findall(
            r"^.*(?:https?:|file:|--index|--extra-index|--find-links).*$", text, re.MULTILINE
        )
        == []
    )


def test_pre_commit_runs_the_ruff_that_make_lint_runs():
    (pinned,) = (one.specifier for one in _required("requirements-dev.txt") if one.name == "ruff")
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    revision = re.search(r"ruff-pre-commit\s+rev: v(\S+)", hooks)[1]
    assert str(pinned) == f"=={revision}"
