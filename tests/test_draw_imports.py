"""The drawing of the package's imports, on a small package made for the purpose."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.exhaustive

SCRIPT = pathlib.Path(__file__).parents[1] / "docs" / "draw_imports.py"
# In layers, from the top: commands; data and models; errors. Each module and what it holds.
MODULES = {
    "__init__": "import sys",
    "errors": "",
    "commands/__init__": "",
    "commands/train": "from fake import errors\nfrom fake.data import digits, views\nimport numpy",
    "commands/export": "import fake.models.resnet\nfrom fake.commands import train",
    "data/__init__": "",
    "data/digits": "from ..models import resnet\nfrom . import views",
    "data/views": "def later():\n    from .. import errors",
    "models/__init__": "",
    "models/resnet": "from collections import errors",
}
ARROWS = [
    "commands --> data",
    "commands --> models",
    "commands --> errors",
    "data --> models",
    "data --> errors",
]


@pytest.fixture
def package(tmp_path: pathlib.Path) -> pathlib.Path:
    """The package `fake`, whose imports all point down."""
    for name, text in MODULES.items():
        write_module(tmp_path / "fake", name, text)
    return tmp_path / "fake"


@pytest.fixture
def page(tmp_path: pathlib.Path) -> pathlib.Path:
    """A page with an outdated drawing between the two markers."""
    path = tmp_path / "page.md"
    path.write_text(
        "# Layers\n\n<!-- imports: docs/draw_imports.py -->\nold\n<!-- end of imports -->\n\nEnd.\n"
    )
    return path


def write_module(package: pathlib.Path, name: str, text: str) -> None:
    path = package / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def run(package: pathlib.Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, f"--package={package}", *arguments]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


def drawing(package: pathlib.Path) -> list[str]:
    """Returns the lines of the printed drawing, without their indentation."""
    ran = run(package)
    assert ran.returncode == 0, ran.stderr
    return [line.strip() for line in ran.stdout.splitlines()]


def test_arrows_count_the_imports_between_packages(package):
    assert [line for line in drawing(package) if "-->" in line] == ARROWS


def test_layers_are_drawn_from_top_to_bottom(package):
    lines = drawing(package)
    assert lines[:2] == ["```mermaid", "flowchart TD"]
    assert [line for line in lines if line in ("commands", "data", "models", "errors", "end")] == [
        *("commands", "end"),
        *("data", "models", "end"),
        *("errors", "end"),
    ]
    assert [line for line in lines if "~~~" in line] == [
        "commands ~~~ data & models",
        "data & models ~~~ errors",
    ]


def test_a_drawing_without_arrows_that_point_up_says_so(package):
    assert drawing(package)[-1] == "Arrows that point up: none."


def test_an_arrow_that_points_up_is_named(package):
    write_module(package, "errors", "import fake.commands.train")
    lines = drawing(package)
    assert "errors --> commands" in lines
    assert lines[-1] == "Arrows that point up: errors to commands."


def test_a_package_without_a_layer_is_drawn_and_named(package):
    write_module(package, "novel/thing", "from fake import errors")
    lines = drawing(package)
    assert "novel --> errors" in lines
    assert lines[-3:] == ["Arrows that point up: none.", "", "Without a layer: novel."]


def test_write_replaces_what_is_between_the_markers_only(package, page):
    ran = run(package, "--write", page)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert page.read_text() == (
        "# Layers\n\n<!-- imports: docs/draw_imports.py -->\n"
        + run(package).stdout
        + "<!-- end of imports -->\n\nEnd.\n"
    )


def test_check_fails_until_the_page_is_written_and_again_after_a_change(package, page):
    before = page.read_text()
    outdated = run(package, "--check", page)
    assert outdated.returncode == 1
    assert f"python docs/draw_imports.py --write {page}" in outdated.stdout
    assert page.read_text() == before
    run(package, "--write", page)
    assert run(package, "--check", page).returncode == 0
    write_module(package, "models/resnet", "from fake import errors")
    assert run(package, "--check", page).returncode == 1


@pytest.mark.parametrize("text", ["", "<!-- end of imports -->\n", "<!-- imports: "])
def test_a_page_without_both_markers_is_refused_and_left_alone(package, page, text):
    page.write_text(text)
    for option in ("--write", "--check"):
        ran = run(package, option, page)
        assert ran.returncode == 1
        assert "<!-- imports: docs/draw_imports.py -->" in ran.stderr
    assert page.read_text() == text
