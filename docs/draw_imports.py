"""Draws which packages of `simclr_tf` import which, as a Mermaid flowchart.

    python docs/draw_imports.py                                 prints the drawing
    python docs/draw_imports.py --write docs/architecture.md    writes it between the two markers
    python docs/draw_imports.py --check docs/architecture.md    exits with 1 if it is out of date

A module directly in `simclr_tf/` stands for itself.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
import itertools
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- imports: docs/draw_imports.py -->\n", "<!-- end of imports -->\n"

# From top to bottom. A package imports from its own modules and from the layers below it.
LAYERS = (
    ("__main__", "bulk", "launch"),
    ("commands",),
    ("report",),
    ("doctor",),
    ("studies", "transfer"),
    ("scoring",),
    ("embeddings", "evaluation", "serving"),
    ("training",),
    ("runs",),
    ("reference",),
    ("config",),
    ("data", "losses", "models"),
    ("console",),
    ("storage",),
    ("multi_worker", "workers"),
    ("keras_optimizers", "worker_sockets"),
    (
        "cluster",
        "distribute",
        "host_memory",
        "keras_api",
        "later_imports",
        "paths",
        "pixel_format",
        "tensorflow_import",
    ),
    ("cgroup", "errors", "preemption", "text"),
)
_LAYER = {name: index for index, names in enumerate(LAYERS) for name in names}


def modules_of(package: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Returns the modules of each sub-package and top-level module, from the top layer down.

    Names that have no layer come last. The package's own `__init__.py` is left out.
    """
    found: dict[str, list[pathlib.Path]] = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).with_suffix("").parts[0]
        if name != "__init__":
            found.setdefault(name, []).append(path)
    return dict(sorted(found.items(), key=lambda item: _LAYER.get(item[0], len(LAYERS))))


def imports_of(path: pathlib.Path, package: pathlib.Path) -> Iterator[list[str]]:
    """Yields the names, outermost first, that lead to each thing that a module imports."""
    folders = [package.name, *path.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the module's own folder, and each further dot is a folder up.
            base = folders[: len(folders) + 1 - node.level] if node.level else []
            origin = base + (node.module.split(".") if node.module else [])
            yield from ([*origin, alias.name] for alias in node.names)


def imports_between(package: pathlib.Path) -> list[tuple[str, str]]:
    """Returns the (importing, imported) pairs of different names, from the top layer down."""
    modules = modules_of(package)
    found = {
        (name, imported[1])
        for name, paths in modules.items()
        for path in paths
        for imported in imports_of(path, package)
        if imported[0] == package.name and len(imported) > 1
    }
    return [pair for pair in itertools.permutations(modules, 2) if pair in found]


def draw(package: pathlib.Path) -> str:
    """Returns the flowchart, and sentences on arrows that point up and on names without a layer."""
    names, arrows = list(modules_of(package)), imports_between(package)
    unknown = [name for name in names if name not in _LAYER]
    layers = [[name for name in names if name in layer] for layer in [*LAYERS, unknown]]
    layers = [layer for layer in layers if layer]
    lines = ["```mermaid", "flowchart TD"]
    for index, layer in enumerate(layers):
        lines += [
            f'    subgraph layer{index}[" "]',
            *(f"        {name}" for name in layer),
            "    end",
        ]
    # Invisible links: without them, Mermaid would place a package by its arrows alone.
    lines += [f"    {' & '.join(a)} ~~~ {' & '.join(b)}" for a, b in itertools.pairwise(layers)]
    lines += [f"    {a} --> {b}" for a, b in arrows]
    layered = [(a, b) for a, b in arrows if a in _LAYER and b in _LAYER]
    up = [f"{a} to {b}" for a, b in layered if _LAYER[a] > _LAYER[b]]
    lines += ["```", "", f"Arrows that point up: {', '.join(up) or 'none'}."]
    if unknown:
        lines += ["", f"Without a layer: {', '.join(unknown)}."]
    return "\n".join(lines) + "\n"


def with_drawing(page: pathlib.Path, drawing: str) -> str:
    """Returns the text of a page with a drawing between its markers.

    Raises:
        SystemExit: if the page does not have each marker once, in their order.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end or BEGIN in old + after or END in before + after:
        raise SystemExit(f"{page} needs these two lines once each:\n{BEGIN}{END}".rstrip())
    return f"{before}{begin}{drawing}{end}{after}"


def main() -> int:
    """Prints, writes or checks the drawing, and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", type=pathlib.Path, default=ROOT / "simclr_tf", help="a folder")
    pages = parser.add_mutually_exclusive_group()
    pages.add_argument("--write", type=pathlib.Path, metavar="PAGE", help="updates a Markdown file")
    pages.add_argument("--check", type=pathlib.Path, metavar="PAGE", help="only compares")
    arguments = parser.parse_args()
    drawing, page = draw(arguments.package.resolve()), arguments.write or arguments.check
    if page is None:
        print(drawing, end="")
    elif arguments.write:
        page.write_text(with_drawing(page, drawing), encoding="utf-8")
    elif with_drawing(page, drawing) != page.read_text(encoding="utf-8"):
        print(f"{page} is out of date; run: python docs/draw_imports.py --write {page}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
