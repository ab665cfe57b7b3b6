"""The architecture: imports point down, and only run.py and flags/ use absl flags."""

import ast
import dataclasses
import importlib.util
import pathlib
import subprocess
import sys

import run
from simclr_tf import config

ROOT = pathlib.Path(__file__).parents[1]


def _layers():
    """Returns the layers that docs/draw_imports.py draws, lowest first."""
    spec = importlib.util.spec_from_file_location("draw_imports", ROOT / "docs/draw_imports.py")
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    return drawing.LAYERS[::-1]


LAYER = {name: index for index, names in enumerate(_layers()) for name in names}
# Pure leaves: arithmetic on tensors. They import only each other and BELOW_PURE.
PURE = (
    "losses",
    "training.lars",
    "data.augment",
    "data.autoaugment",
    "data.geometry",
    "data.jitter",
    "data.tones",
    "data.mixing",
    "data.conditional",
    "data.random",
)
BELOW_PURE = ("errors", "distribute", "keras_api", "keras_optimizers")


def _modules():
    for path in sorted((ROOT / "simclr_tf").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "simclr_tf").with_suffix("").parts)
        if path.stem not in ("__init__", "__main__"):
            yield name, path


def _imported(path):
    """Yields the dotted name of each thing that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _package(module):
    return module.split(".")[0]


def test_every_package_has_a_layer():
    assert {_package(name) for name, _ in _modules()} == set(LAYER) - {"__main__"}


def test_imports_between_packages_point_down():
    wrong = []
    for name, path in _modules():
        for imported in _imported(path):
            top, _, module = imported.partition(".")
            if top != "simclr_tf" or _package(module) in ("", _package(name)):
                continue
            if LAYER[_package(module)] >= LAYER[_package(name)]:
                wrong.append(f"{name} imports {module}")
    assert wrong == []


def test_pure_leaves_import_only_each_other_errors_distribute_and_keras():
    wrong = []
    for name, path in _modules():
        if not name.startswith(PURE):
            continue
        for imported in _imported(path):
            top, _, module = imported.partition(".")
            if top == "simclr_tf" and not module.startswith((*PURE, *BELOW_PURE)):
                wrong.append(f"{name} imports {module}")
    assert wrong == []


def test_the_package_imports_no_flags_and_addons_only_for_lamb():
    wrong = []
    for name, path in _modules():
        for imported in _imported(path):
            top = imported.split(".")[0]
            if top == "flags" or imported.startswith("absl.flags"):
                wrong.append(f"{name} imports {imported}")
            if top == "tensorflow_addons" and name != "training.optimizers":
                wrong.append(f"{name} imports {imported}")
    assert wrong == []


def test_every_argument_that_a_message_names_is_translated_into_a_flag():
    # --mixup and --cutmix are validated before they become an alpha.
    flags = {field.name for field in dataclasses.fields(config.Config)} | {"alpha"}
    wrong = []
    for name, path in _modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr == "ArgumentError":
                argument = ast.literal_eval(node.args[0])
                if run._FLAG_OF_ARGUMENT.get(argument, argument) not in flags:
                    wrong.append(f"{name}:{node.lineno} {argument}")
    assert wrong == []
    assert flags >= set(run._FLAG_OF_ARGUMENT.values())


def test_keras_is_taken_from_one_module():
    wrong = []
    for name, path in _modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute) or node.attr != "keras":
                continue
            if name != "keras_api":
                wrong.append(f"{name}:{node.lineno}")
        imports = [imported.split(".")[0] for imported in _imported(path)]
        wrong += [name for top in imports if top in ("keras", "tf_keras")]
    assert wrong == []


def test_the_drawing_of_the_imports_is_up_to_date():
    page = ROOT / "docs" / "architecture.md"
    command: list[str | pathlib.Path] = [
        sys.executable,
        ROOT / "docs" / "draw_imports.py",
        "--check",
        page,
    ]
    assert subprocess.run(command, check=False).returncode == 0, "run it with --write"
