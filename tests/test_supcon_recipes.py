"""SupCon's recipes run, both stages one after the other, shrunk to two steps on the digits."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tiny_runs

import run

ROOT = pathlib.Path(__file__).parents[1]
# Added to the flags of a recipe, so that it runs in seconds.
SHRUNK = {
    "dataset": "digits",
    "eval_split": "test",
    "image_size": 12,  # XLA does not compile views this small.
    "resnet_depth": 8,
    "train_batch_size": 16,
    "train_steps": 2,
    "warmup_epochs": 0,
    "train_summary_steps": 1,
    "linear_eval": False,
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.exhaustive,
    pytest.mark.usefixtures("no_export_in_file"),
]


def run_recipe(name: str, model_dir: pathlib.Path, **changes: object) -> dict:
    """Runs a shrunk recipe and returns its result."""
    given = {"model_dir": model_dir, **SHRUNK, **changes}
    flagfile = f"--flagfile={ROOT}/flags/recipes/{name}.flags"
    arguments = [f"--{key}={value}" for key, value in given.items()]
    assert run.main(["run.py", flagfile, *arguments]) == 0
    return tiny_runs.json_of(model_dir / "result.json")


@pytest.fixture(scope="module")
def stage_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Run directories of the first stage, by data set."""
    folder = tmp_path_factory.mktemp("stage_one")
    for name in ("cifar10", "imagenet"):
        run_recipe(f"{name}_supcon_resnet50", folder / name)
    return {name: folder / name for name in ("cifar10", "imagenet")}


def test_stage_one_is_supcon_on_labels_with_supcons_head(stage_one):
    for name, length_one in (("cifar10", False), ("imagenet", True)):
        architecture = tiny_runs.json_of(stage_one[name] / "architecture.json")
        assert architecture["normalize_features"] is length_one
        assert architecture["proj_head_bn"] is False
        line = tiny_runs.lines_of(stage_one[name] / "metrics.jsonl")[-1]
        assert "train/views_without_positive" in line
        assert np.isfinite(line["train/total_loss"])
        head = tiny_runs.part(tiny_runs.weights(stage_one[name]), "projection_head")
        shapes = sorted(value.shape for value in head.values())
        assert shapes == ([(64, 128)] if length_one else [(64,), (64, 64), (64, 128)])


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("cifar10_supcon_linear", {"decay_epochs": 0.002}),
        ("imagenet_supcon_linear", {"decay_epochs": 0.002}),
        ("imagenet_supcon_linear_lars", {}),
    ],
)
def test_stage_two_trains_a_classifier_and_nothing_else(stage_one, tmp_path, recipe, changes):
    first = stage_one[recipe.partition("_")[0]]
    result = run_recipe(recipe, tmp_path / "run", checkpoint=first, **changes)
    assert 0 <= result["eval/label_top_1_accuracy"] <= 1
    before, after = tiny_runs.weights(first), tiny_runs.weights(tmp_path / "run")
    assert tiny_runs.equal(tiny_runs.part(before, "encoder"), tiny_runs.part(after, "encoder"))
    for name in ("normalize_features", "proj_head_bn"):  # Not given in stage two.
        one, two = (
            tiny_runs.json_of(folder / "architecture.json")[name]
            for folder in (first, tmp_path / "run")
        )
        assert one == two
    # The classifier started at zero, and two steps changed it.
    assert all(value.any() for value in tiny_runs.part(after, "linear_head").values())
    lines = tiny_runs.lines_of(tmp_path / "run" / "metrics.jsonl")
    assert lines[0]["train/supervised_loss"] == pytest.approx(np.log(10), rel=1e-5)
    if changes:
        assert lines[1]["learning_rate"] < lines[0]["learning_rate"]


def test_the_baseline_trains_from_scratch(tmp_path):
    result = run_recipe("imagenet_supervised_resnet50", tmp_path / "run")
    assert result["global_step"] == 2
    assert 0 <= result["eval/label_top_1_accuracy"] <= 1
