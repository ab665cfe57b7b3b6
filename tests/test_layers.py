"""The architecture: imports point down, and only run.py and flags/ touch absl flags."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]

# A module may import modules of its own layer's sub-package listed before it, and lower layers.
LAYERS = (
    ("errors", "data.changes", "losses.classification", "losses.mixing"),
    (
        "data.compositions",
        "training.decays",
        "distribute",
        "data.augment",
        "data.decode",
        "report.console",
    ),
    ("config", "data.jitter", "data.geometry", "report.records", "report.contact_sheet"),
    ("checks", "data.tones", "data.folder", "data.digits"),
    ("losses.tiles", "losses.projections"),
    ("losses.blocked",),
    ("losses.relations", "losses.contrastive", "models.batch_norm"),
    ("losses.supcon", "data.records", "data.autoaugment", "models.layers"),
    ("data.sources", "data.policies", "models.channel_attention", "models.resnet_d"),
    ("models.recompute",),
    ("models.resnet", "models.keras_encoders", "models.heads"),
    ("data.crops", "data.inspection", "data.balanced"),
    ("data.views",),
    ("data.pipeline", "models.simclr"),
    ("models.sizes", "reference.networks"),
    ("run_directory", "reference.names", "reference.graphs"),
    ("reference.files", "reference.mapping"),
    ("reference.inference",),
    ("reference.loading",),
    ("damaged", "look"),
    (
        "training.schedules",
        "training.lars",
        "training.rmsprop",
        "training.checkpoints",
        "serving.export",
    ),
    ("training.teachers", "training.objectives", "training.warm_start", "serving.official"),
    ("starts",),
    (
        "runs",
        "training.optimizers",
        "training.steps",
        "evaluation.features",
        "evaluation.linear",
    ),
    ("training.loop", "training.accumulation", "training.memory"),
    ("report.overview",),
    ("train", "evaluate", "convert", "export"),
)
LAYER = {name: index for index, names in enumerate(LAYERS) for name in names}


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


def test_every_module_has_a_layer():
    assert {name for name, _ in _modules()} == set(LAYER)


def test_imports_point_down():
    wrong = []
    for name, path in _modules():
        for imported in _imported(path):
            top, _, module = imported.partition(".")
            if top == "simclr_tf" and LAYER[module] >= LAYER[name]:
                wrong.append(f"{name} imports {module}")
    assert wrong == []


def test_the_package_knows_nothing_of_flags_or_addons_but_for_lamb():
    wrong = []
    for name, path in _modules():
        for imported in _imported(path):
            top = imported.split(".")[0]
            if top == "flags" or imported.startswith("absl.flags"):
                wrong.append(f"{name} imports {imported}")
            if top == "tensorflow_addons" and name != "training.optimizers":
                wrong.append(f"{name} imports {imported}")
    assert wrong == []
